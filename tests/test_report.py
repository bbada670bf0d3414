"""The files of a study: tables, figures and page. The page's text is in test_page.py."""

import numpy as np
import pytest

from cml_bench.engine.build import Settings
from cml_bench.engine.run import run
from cml_bench.figures import style
from cml_bench.figures.kinds.curves import CurvesFigure
from cml_bench.report import summary, write
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.simulated import finish, study
from tests.helpers.studies import study as small_config


def written(resolved, root, keys=()):
    """Write all files for people: tables, then the page that links them."""
    return [*write.tables(resolved, root, list(keys)), write.page(resolved, root)]


@pytest.fixture
def page(tmp_path):
    resolved = study(seeds=3)
    finish(resolved, tmp_path, {"base": 50, "meta": 53, "co": 54})
    paths = written(resolved, tmp_path)
    return (
        tmp_path,
        paths,
        write.text(resolved, tmp_path, []),
        (tmp_path / "simulated" / "report.html").read_text(),
    )


def test_everything_is_written_and_named(page):
    root, paths, printed, _ = page
    assert {root / "simulated" / "report.html", root / "simulated" / "tables" / "table1.md"} <= {
        *write.files(study(seeds=3), root)
    }
    for path in paths:
        assert path.exists()
    assert {p.suffix for p in paths} == {".html", ".md", ".tex", ".csv"}
    assert "MAML + CML†" in printed
    index = (root / "index.csv").read_text().splitlines()
    assert len(index) == 1 + 12


def test_equal_records_give_equal_pages(page):
    root, _, _, html = page
    written(study(seeds=3), root)
    assert (root / "simulated" / "report.html").read_text() == html


def test_a_study_with_nothing_finished_still_has_a_page(tmp_path):
    written(study(), tmp_path)
    assert "0 of 20 runs are finished" in (tmp_path / "simulated" / "report.html").read_text()


def test_curves_are_those_of_the_stored_models_on_the_very_test_tasks(tmp_path):
    from cml_bench.study.config import parse

    config = small_config(results=str(tmp_path))
    rows = [{"label": "MAML", "run": "maml"}, {"label": "CML†", "run": "maml+cml", "reading": "co"}]
    config["figures"] = {
        "figure2": {
            "kind": "curves",
            "experiment": "s",
            "title": "F",
            "runs": rows,
            "tasks": [0, 4],
        }
    }
    config["experiments"]["s"]["evaluation"] = {"tasks": 5, "query": 10}
    resolved = resolve(parse(config, "test"), "test")
    settings = Settings(results=tmp_path, report=lambda text: None)
    specs = [item.spec for item in resolved.runs]
    records = {(s.method, s.shot): run(s, settings) for s in specs if s.seed == 0}
    made = write.figures(resolved, tmp_path, [])
    assert [path.suffix for path in made] == [".png", ".svg", ".pdf"]
    assert made[0].read_bytes()[:4] == b"\x89PNG"
    arrays = dict(np.load(tmp_path / "small" / "probes" / "figure2.npz"))
    assert arrays["curves/5"].shape == (2, 2, 201)
    # The stored squared error of test task 4 is about the error of the drawn curve at random points
    # of the grid.
    for method, k in (("maml", 0), ("maml+cml", 1)):
        drawn = np.mean((arrays["curves/5"][k, 1] - arrays["truth/5"][1]) ** 2)
        stored = records[method, 5].arrays["meta@1" if k == 0 else "co@1"][4]
        assert 0.2 < drawn / stored < 5
    at = np.searchsorted(arrays["x"], arrays["support_x/10"][1])
    assert np.abs(arrays["truth/10"][1][at] - arrays["support_y/10"][1]).max() < 0.3, (
        "support points lie on the truth"
    )


def test_what_a_cost_table_lacks_stands_on_the_page(tmp_path):
    resolved = study(seeds=3, kind="cost")
    finish(resolved, tmp_path, {"base": 50, "meta": 53, "co": 54}, only=lambda s: s.seed > 0)
    written(resolved, tmp_path)
    assert (
        "8 of 12 runs are made and evaluated"
        in (tmp_path / "simulated" / "report.html").read_text()
    )


def test_an_experiment_without_training_has_a_page(tmp_path):
    from cml_bench.study.config import parse

    experiment = {
        "data": "glyphs",
        "network": "conv4",
        "shots": [1],
        "query": 5,
        "steps": 0,
        "methods": {"pixel_nn": {}},
    }
    resolved = resolve(
        parse({"study": "nearest", "experiments": {"e": experiment}}, "test"), "test"
    )
    written(resolved, tmp_path)
    assert "0 of 1 runs are finished" in (tmp_path / "nearest" / "report.html").read_text()


FIGURE = CurvesFigure(
    kind="curves", experiment="e", title="T", runs=[{"label": "MAML", "run": "maml"}]
)


def test_figures_are_the_same_bytes_each_time():
    arrays = {
        "shots": np.array([5]),
        "tasks": np.array([0]),
        "x": np.linspace(-5, 5, 9),
        "labels": np.array(["MAML"]),
        "truth/5": np.ones((1, 9)),
        "curves/5": np.zeros((1, 1, 9)),
        "support_x/5": np.zeros((1, 5)),
        "support_y/5": np.ones((1, 5)),
    }
    first, second = (style.encode(FIGURE.drawn(arrays, [0, 1]), "svg") for _ in range(2))
    assert first == second


def test_the_facts_name_splits_seeds_and_what_a_row_is_that_is_not_called_like_its_method():
    methods = {
        "gmeta": {},
        "gmeta+cml": {},
        "frozen": {"method": "gmeta+cml", "options": {"cml": {"frozen": True}}},
        "noise": {"method": "gmeta", "protocol_options": {"gradient_noise": 0.5}},
    }
    experiment = {
        "data": "sbm",
        "network": "gcn",
        "way": 2,
        "shots": [5],
        "query": 5,
        "protocol": "official",
        "seeds": [3],
        "splits": ["r0", "r4"],
        "methods": methods,
    }
    plan = resolve(parse({"study": "s", "experiments": {"e": experiment}}, "test"), "test")
    (fact,) = [fact for fact in summary.facts(plan) if fact.startswith("e: ")]
    assert "5 shots, class splits r0, r4, training seeds 3," in fact
    assert "frozen (G-Meta + CML, co-learner frozen)" in fact
    assert "noise (G-Meta, Gaussian gradient noise 0.5)" in fact
    assert "G-Meta, G-Meta + CML, " in fact
