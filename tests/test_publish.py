"""What is committed: records, tables and the README's blocks agree."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cml_bench import plan, publish, report
from cml_bench.config import parse, read
from cml_bench.errors import UserError
from cml_bench.spec import RunSpec
from tests.simulated import finish, study
from tests.test_workflow import CONFIG

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference"


def published_studies() -> list[str]:
    return sorted(path.name for path in REFERENCE.glob("*") if (path / "runs").is_dir())


@pytest.mark.parametrize("name", published_studies())
def test_the_readme_shows_the_committed_records(name, tmp_path, monkeypatch):
    """Tables made again from the committed records are the committed ones, and stand in the README."""
    monkeypatch.chdir(ROOT)
    configs = (read(path) for path in Path("configs").glob("*.yaml"))
    resolved = plan.resolve(next(config for config in configs if config.study == name), name)
    home = publish.REFERENCE / name
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


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A tiny study, trained, drawn and published: its plan and the published folder."""
    from cml_bench.engine.jobs import run_all
    from cml_bench.engine.train import Settings

    root = tmp_path_factory.mktemp("drawn")
    config = {**CONFIG, "experiments": {"sinusoid": CONFIG["experiments"]["sinusoid"]}}
    config["tables"] = {"sinusoid": CONFIG["tables"]["sinusoid"]}
    resolved = plan.resolve(parse(config, "test"), "test")
    specs = [RunSpec.model_validate(run["spec"]) for run in resolved["runs"]]
    run_all(specs, Settings(results=root / "results", report=lambda text: None))
    report.figures(resolved, root / "results", [])
    publish.publish(resolved, root / "results", root / "reference", root / "README.md")
    return resolved, root / "reference" / "tiny"


@pytest.fixture
def published(drawn, tmp_path):
    """A copy to change: plan, and folder without its picture."""
    resolved, home = drawn
    shutil.copytree(home, tmp_path / "tiny")
    (tmp_path / "tiny" / "figures" / "figure2.png").unlink()
    return json.loads(json.dumps(resolved)), tmp_path / "tiny"


def test_a_figure_is_drawn_again_from_what_is_committed(drawn, published, tmp_path):
    """Without any model of its runs, and without torch: from the arrays that are published beside the picture."""
    resolved, home = published
    assert not list(home.rglob("*.safetensors"))
    other = home / "runs" / "of-another-study"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"")
    (tmp_path / "plan.json").write_text(json.dumps(resolved))
    code = "import sys; from cml_bench.__main__ import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    arguments = ["figure", "--plan", str(tmp_path / "plan.json"), "--results", str(home)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("0 False\n"), done.stderr
    before = drawn[1] / "figures" / "figure2.png"
    assert (home / "figures" / "figure2.png").read_bytes() == before.read_bytes()


def test_an_edited_figure_is_drawn_from_committed_arrays_only_if_they_are_of_it(published):
    resolved, home = published
    figure = resolved["figures"]["figure2"]
    figure["title"] = figure["runs"][0]["label"] = "Another"
    report.figures(resolved, home, [])
    assert (home / "figures" / "figure2.svg").exists()
    figure["tasks"] = [3, 4]
    with pytest.raises(UserError, match=r"figure2\.npz is of other runs, readings or tasks than figure2 shows now"):
        report.figures(resolved, home, [])


def test_arrays_of_before_ids_were_kept_are_known_by_their_labels(published):
    resolved, home = published
    path = home / "probes" / "figure2.npz"
    old = {name: values for name, values in np.load(path).items() if name not in ("runs", "readings")}
    np.savez(path, **old)
    report.figures(resolved, home, [])
    resolved["figures"]["figure2"]["runs"][0]["label"] = "Another"
    with pytest.raises(UserError, match="is of other runs, readings or tasks"):
        report.figures(resolved, home, [])


@pytest.mark.parametrize("name", [name for name in published_studies() if list((REFERENCE / name).glob("probes/*"))])
def test_committed_arrays_draw_the_committed_figures(name, tmp_path):
    home = shutil.copytree(REFERENCE / name, tmp_path / name)
    shutil.rmtree(home / "figures")
    configs = (read(path) for path in (ROOT / "configs").glob("*.yaml"))
    resolved = plan.resolve(next(config for config in configs if config.study == name), name)
    assert len(report.figures(resolved, home, [])) == 3 * len(resolved["figures"]) > 0


def test_without_models_and_arrays_a_figure_says_what_is_missing(published):
    resolved, home = published
    arrays = home / "probes" / "figure2.npz"
    arrays.write_bytes(arrays.read_bytes()[:99])
    with pytest.raises(UserError, match=r"figure2\.npz is missing or damaged .*Restore it from the repository"):
        report.figures(resolved, home, [])
    arrays.unlink()
    with pytest.raises(UserError, match=r"holds a record without weights .* no arrays .*figure2\.npz to draw from"):
        report.figures(resolved, home, [])
    shutil.rmtree(home / "runs")
    with pytest.raises(UserError, match="figure2 needs a run that is not finished: maml on sinusoid"):
        report.figures(resolved, home, [])
