"""What is committed: records, tables and the README's blocks agree."""

from pathlib import Path

import pytest

from cml_bench import plan, publish
from cml_bench.config import parse, read
from cml_bench.errors import UserError
from tests.simulated import finish, study

ROOT = Path(__file__).parent.parent


def published_studies() -> list[str]:
    return sorted(path.name for path in (ROOT / "results" / "reference").glob("*") if (path / "runs").is_dir())


@pytest.mark.parametrize("name", published_studies())
def test_the_readme_shows_the_committed_records(name, tmp_path, monkeypatch):
    """Tables made again from the committed records are the committed ones, and stand in the README."""
    monkeypatch.chdir(ROOT)
    configs = (read(path) for path in Path("configs").glob("*.yaml"))
    resolved = plan.resolve(next(config for config in configs if config.study == name), name)
    home = publish.REFERENCE / name
    from cml_bench import report

    report.tables(resolved, home, [], out=tmp_path)
    for key in resolved["tables"]:
        for kind in ("md", "tex", "csv"):
            assert (tmp_path / "tables" / f"{key}.{kind}").read_text() == (
                home / "tables" / f"{key}.{kind}"
            ).read_text()
    readme = Path("README.md").read_text()
    assert publish.block(resolved, home) in readme


def test_publishing_copies_records_and_fills_the_block(tmp_path):
    resolved = study(seeds=3)
    finish(resolved, tmp_path / "results", {"base": 50, "meta": 53, "co": 54})
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n<!-- simulated:begin (how) -->\nold\n<!-- simulated:end -->\nrest\n")
    reference = tmp_path / "reference"
    publish.publish(resolved, tmp_path / "results", reference, readme)
    text = readme.read_text()
    assert "old" not in text
    assert text.startswith("# Title\n<!-- simulated:begin (how) -->\n### T & U\n")
    assert text.endswith("<!-- simulated:end -->\nrest\n")
    assert len(list((reference / "simulated" / "runs").glob("*/record.json"))) == 12
    assert not list(reference.rglob("*.safetensors"))
    publish.publish(resolved, tmp_path / "gone", reference, readme)
    assert readme.read_text() == text, "the committed records alone are enough"
    fewer = study(seeds=2)
    publish.publish(fewer, tmp_path / "gone", reference, readme)
    assert len(list((reference / "simulated" / "runs").iterdir())) == 8, "no run that the study no longer has"


def test_publishing_an_unfinished_study_is_refused(tmp_path):
    with pytest.raises(UserError, match="12 runs are in neither"):
        publish.publish(study(seeds=3), tmp_path, tmp_path / "reference", tmp_path / "README.md")
    assert not (tmp_path / "README.md").exists()


def test_a_figure_is_drawn_again_from_what_is_committed(tmp_path):
    """Without any model: from the arrays that are published beside the picture."""
    from cml_bench import report
    from cml_bench.engine.jobs import run_all
    from cml_bench.engine.train import Settings
    from cml_bench.spec import RunSpec
    from tests.test_workflow import CONFIG

    config = {**CONFIG, "experiments": {"sinusoid": CONFIG["experiments"]["sinusoid"]}}
    config["tables"] = {"sinusoid": CONFIG["tables"]["sinusoid"]}
    resolved = plan.resolve(parse(config, "test"), "test")
    specs = [RunSpec.model_validate(run["spec"]) for run in resolved["runs"]]
    run_all(specs, Settings(results=tmp_path / "results", report=lambda text: None))
    report.figures(resolved, tmp_path / "results", [])
    publish.publish(resolved, tmp_path / "results", tmp_path / "reference", tmp_path / "README.md")
    home = tmp_path / "reference" / "tiny"
    assert not list(home.rglob("*.safetensors"))
    before = (home / "figures" / "figure2.png").read_bytes()
    (home / "figures" / "figure2.png").unlink()
    report.figures(resolved, home, [])
    assert (home / "figures" / "figure2.png").read_bytes() == before
