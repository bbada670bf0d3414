"""The committed results: records, tables and the blocks of docs/results.md agree."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cml_bench.errors import UserError
from cml_bench.records import Store
from cml_bench.report import publish, write
from cml_bench.study import selection
from cml_bench.study.config import parse, read
from cml_bench.study.resolve import resolve
from tests.helpers.checkouts import CONFIG
from tests.helpers.plans import dumped, edited
from tests.helpers.simulated import finish, study

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference"


def published_studies() -> list[str]:
    """The studies with a page; a study that is still under way has records alone."""
    return sorted(path.parent.name for path in REFERENCE.glob("*/report.html"))


@pytest.mark.parametrize("name", published_studies())
def test_the_pages_show_the_committed_records(name, tmp_path, monkeypatch):
    """The tables and the page's block are made again from the committed records, and equal."""
    monkeypatch.chdir(ROOT)
    configs = (read(path) for path in Path("configs").glob("*.yaml"))
    resolved = resolve(next(config for config in configs if config.study == name), name)
    home = publish.PUBLISHED / name
    resolved = selection.narrowed(resolved, Store(home))
    write.tables(resolved, home, [], out=tmp_path)
    for key in resolved.tables:
        for kind in ("md", "tex", "csv"):
            assert (tmp_path / "tables" / f"{key}.{kind}").read_text() == (
                home / "tables" / f"{key}.{kind}"
            ).read_text()
    text, block = publish.RESULTS.read_text(), publish.block(resolved, home, publish.RESULTS)
    assert publish.between(text, name, block) == text, f"publish {name} again"
    assert block in text


MARKED = "# Title\n<!-- simulated:begin (how) -->\nold\n<!-- simulated:end -->\nrest\n"


@pytest.fixture
def page(tmp_path):
    """A copy of docs/results.md with an empty study between its markers."""
    page = tmp_path / publish.RESULTS
    page.parent.mkdir(exist_ok=True)
    page.write_text(MARKED)
    return page


def test_publishing_copies_records_and_fills_the_block(tmp_path, page):
    resolved = study(seeds=3)
    finish(resolved, tmp_path / "results", {"base": 50, "meta": 53, "co": 54})
    reference = tmp_path / "reference"
    (tmp_path / publish.README).write_text(MARKED)
    publish.publish(resolved, tmp_path / "results", reference, tmp_path)
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("# Title\n<!-- simulated:begin (how) -->\n## A 100 % made-up study\n")
    assert text.endswith("<!-- simulated:end -->\nrest\n")
    assert "records in [`" in text
    assert "![Paired differences](../reference/simulated/figures/forest.png)" in text
    assert (tmp_path / publish.README).read_text() == MARKED, "studies are told on their page alone"
    assert (reference / "simulated" / "figures" / "forest.png").read_bytes().startswith(b"\x89PNG")
    assert "### T & U" in text
    assert len(list((reference / "simulated" / "runs").glob("*/record.json"))) == 12
    assert not list(reference.rglob("*.safetensors"))
    publish.publish(resolved, tmp_path / "gone", reference, tmp_path)
    assert page.read_text() == text, "the committed records alone are enough"
    fewer = study(seeds=2)
    publish.publish(fewer, tmp_path / "gone", reference, tmp_path)
    assert len(list((reference / "simulated" / "runs").iterdir())) == 8, (
        "no run that the study no longer has"
    )


def test_publishing_an_unfinished_study_is_refused(tmp_path, page):
    with pytest.raises(UserError, match="12 runs are in neither"):
        publish.publish(study(seeds=3), tmp_path, tmp_path / "reference", tmp_path)
    assert page.read_text() == MARKED


def two_graphs(data_dir: Path) -> dict:
    """A plan like Table 3: class splits, a second line, and a graph that a person must fetch."""
    one = {
        "network": "gcn",
        "way": 2,
        "shots": [1],
        "query": 5,
        "steps": 3,
        "evaluation": {"tasks": 10, "query": 5},
        "methods": {"gmeta": {"options": {"inner_steps": 1}}, "gmeta+cml": {}},
    }
    splits = {**one, "seeds": [0], "splits": ["r0", "r1", "r2"]}
    rows = [
        {"label": "G", "run": "gmeta"},
        {"label": "G + CML", "run": "gmeta+cml", "against": "gmeta"},
    ]
    columns = [
        {"experiment": "sbm", "fixed": "one", "title": "sbm"},
        {"experiment": "corafull", "title": "corafull"},
    ]
    config = {
        "study": "simulated",
        "seeds": 4,
        "data_dir": str(data_dir),
        "experiments": {
            "sbm": {**splits, "data": "sbm"},
            "corafull": {**splits, "data": "corafull"},
            "one": {**one, "data": "sbm", "data_options": {"split": "r7"}},
        },
        "tables": {"t": {"kind": "splits", "columns": columns, "title": "T", "rows": rows}},
    }
    return resolve(parse(config, "test"), "test")


def test_runs_whose_data_cannot_be_had_here_are_no_reason_not_to_publish(tmp_path, page):
    """As with CoraFull in Table 3, the pages say what was not run."""
    resolved = two_graphs(tmp_path / "data")
    finish(
        resolved,
        tmp_path / "results",
        {"meta": 53, "co": 54},
        only=lambda spec: spec.data.name == "sbm",
    )
    publish.publish(resolved, tmp_path / "results", tmp_path / "reference", tmp_path)
    results = page.read_text()
    assert "6 runs not run: cora.npz of CoraFull must be fetched by hand" in results
    assert re.search(r"G \+ CML *\| 3 *\| 5\S+ ± .*\) *\| – *\|", results)
    assert re.search(r"G \+ CML, one split *\| 4 *\| 5\S+ ± ", results), "its series are kept, too"
    assert "Counted as missing" not in results
    file = tmp_path / "data" / "downloads" / "corafull" / "cora.npz"
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(UserError, match="6 runs are in neither"):
        publish.publish(resolved, tmp_path / "results", tmp_path / "reference", tmp_path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A tiny study that is trained, drawn and published: its plan and the published folder."""
    from cml_bench.engine.build import Settings
    from cml_bench.engine.jobs import run_all

    root = tmp_path_factory.mktemp("drawn")
    config = {**CONFIG, "experiments": {"sinusoid": CONFIG["experiments"]["sinusoid"]}}
    config["tables"] = {"sinusoid": CONFIG["tables"]["sinusoid"]}
    resolved = resolve(parse(config, "test"), "test")
    specs = [run.spec for run in resolved.runs]
    run_all(specs, Settings(results=root / "results", report=lambda text: None))
    write.figures(resolved, root / "results", [])
    publish.publish(resolved, root / "results", root / "reference", root)
    return resolved, root / "reference" / "tiny"


@pytest.fixture
def published(drawn, tmp_path):
    """A plan and a copy of the published folder without its picture, to be changed."""
    resolved, home = drawn
    shutil.copytree(home, tmp_path / "tiny")
    (tmp_path / "tiny" / "figures" / "figure2.png").unlink()
    return resolved, tmp_path / "tiny"


def test_a_figure_is_drawn_again_from_what_is_committed(drawn, published, tmp_path):
    """The arrays beside the picture are enough: no model and no torch is needed."""
    resolved, home = published
    assert not list(home.rglob("*.safetensors"))
    other = home / "runs" / "of-another-study"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"")
    (tmp_path / "plan.json").write_text(dumped(resolved))
    code = (
        "import sys; from cml_bench.__main__ import main; print(main(sys.argv[1:]), 'torch' in"
        " sys.modules)"
    )
    arguments = ["figure", "--plan", str(tmp_path / "plan.json"), "--results", str(home)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.endswith("0 False\n"), done.stderr
    before = drawn[1] / "figures" / "figure2.png"
    assert (home / "figures" / "figure2.png").read_bytes() == before.read_bytes()


def test_an_edited_figure_is_drawn_from_committed_arrays_only_if_they_are_of_it(published):
    resolved, home = published

    def another(plan):
        figure = plan["figures"]["figure2"]
        figure["title"] = figure["runs"][0]["label"] = "Another"

    resolved = edited(resolved, another)
    write.figures(resolved, home, [])
    assert (home / "figures" / "figure2.svg").exists()
    resolved = edited(resolved, lambda plan: plan["figures"]["figure2"].update(tasks=[3, 4]))
    with pytest.raises(
        UserError, match=r"figure2\.npz is of other runs, readings or tasks than figure2 shows now"
    ):
        write.figures(resolved, home, [])


def test_arrays_of_before_ids_were_kept_are_known_by_their_labels(published):
    resolved, home = published
    path = home / "probes" / "figure2.npz"
    old = {
        name: values for name, values in np.load(path).items() if name not in ("runs", "readings")
    }
    np.savez(path, **old)
    write.figures(resolved, home, [])
    resolved = edited(
        resolved, lambda plan: plan["figures"]["figure2"]["runs"][0].update(label="Another")
    )
    with pytest.raises(UserError, match="is of other runs, readings or tasks"):
        write.figures(resolved, home, [])


@pytest.mark.parametrize(
    "name", [name for name in published_studies() if list((REFERENCE / name).glob("probes/*"))]
)
def test_committed_arrays_draw_the_committed_figures(name, tmp_path):
    home = shutil.copytree(REFERENCE / name, tmp_path / name)
    shutil.rmtree(home / "figures")
    configs = (read(path) for path in (ROOT / "configs").glob("*.yaml"))
    resolved = resolve(next(config for config in configs if config.study == name), name)
    assert len(write.figures(resolved, home, [])) == 3 * len(resolved.figures) > 0


def test_without_models_and_arrays_a_figure_says_what_is_missing(published):
    resolved, home = published
    arrays = home / "probes" / "figure2.npz"
    arrays.write_bytes(arrays.read_bytes()[:99])
    with pytest.raises(
        UserError, match=r"figure2\.npz is missing or damaged .*Restore it from the repository"
    ):
        write.figures(resolved, home, [])
    arrays.unlink()
    with pytest.raises(
        UserError, match=r"holds a record without weights .* no arrays .*figure2\.npz to draw from"
    ):
        write.figures(resolved, home, [])
    shutil.rmtree(home / "runs")
    with pytest.raises(
        UserError, match="figure2 needs a run that is not finished: maml on sinusoid"
    ):
        write.figures(resolved, home, [])


def test_a_picture_of_a_figure_that_is_gone_goes_too(drawn, tmp_path):
    resolved, home = drawn
    shutil.copytree(home, tmp_path / "tiny")
    for path in ("figures/old.png", "probes/old.npz"):
        (tmp_path / "tiny" / path).write_bytes(b"old")
    publish.publish(resolved, tmp_path / "nowhere", tmp_path, tmp_path)
    assert sorted(path.name for path in (tmp_path / "tiny" / "figures").iterdir()) == [
        "figure2.png",
        "forest.png",
    ]
    assert [path.name for path in (tmp_path / "tiny" / "probes").iterdir()] == ["figure2.npz"]


def test_no_copy_of_tables_lies_beside_the_published_ones():
    found = sorted((ROOT / "results" / "reference").glob("*/*/tables"))
    assert not found, "only STUDY/tables is made anew by `publish`"
