"""The charts on a study's page: learning curves, and the colours of verdicts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import vl_convert

from cml_bench.evidence.build import build
from cml_bench.figures import style
from cml_bench.figures.outcomes import LOOKS
from cml_bench.records import Store
from cml_bench.report import charts, learning, overview, page
from cml_bench.study import config
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.checkouts import ROOT
from tests.helpers.pages import LEVEL, specs_in, written
from tests.helpers.simulated import experiment, finish, study


def drawn(spec: dict) -> str:
    """A chart as SVG, drawn by the library that the page holds."""
    return vl_convert.vegalite_to_svg(spec | {"width": 400}, config=charts.CONFIG)


def test_learning_curves_keep_a_methods_colour_where_another_has_no_runs(tmp_path):
    resolved = study(seeds=2)
    finish(
        resolved, tmp_path, LEVEL, only=lambda s: (s.method, s.shot) != ("maml", 5) or s.seed > 1
    )
    titled = {
        spec["title"]: spec
        for name, spec in specs_in(written(resolved, tmp_path)).items()
        if name.startswith("curve-")
    }
    assert list(titled) == [
        "1-shot, validation",
        "1-shot, training",
        "5-shot, validation",
        "5-shot, training",
    ]
    first, second = (titled[f"{shot}-shot, validation"] for shot in (1, 5))
    assert [c["method"] for c in first["data"]["values"]] == ["MAML"] * 2 + ["MAML + CML"] * 2 + [
        "MAML",
        "MAML + CML",
    ]
    assert {c["method"] for c in second["data"]["values"]} == {"MAML + CML"}
    assert first["encoding"]["color"]["scale"] == second["encoding"]["color"]["scale"]
    assert first["encoding"]["color"]["scale"]["range"] == list(style.COLOURS[:2])
    assert first["encoding"]["strokeDash"]["scale"]["range"] == [[1, 0], [6, 2]], (
        "not by colour alone"
    )
    assert drawn(first).count("aria-label=") > 4


def test_the_mean_curve_is_over_steps_that_all_runs_have():
    one = charts.Curve("m", "0", [0, 10, 20], [1.0, 2.0, 4.0])
    other = charts.Curve("m", "1", [0, 10, 20, 30], [3.0, math.nan, 6.0, 9.0])
    assert charts.mean([one, other]) == charts.Curve("m", "mean of 2", [0, 20], [2.0, 5.0])


def test_long_curves_are_thinned_from_the_first_step_to_the_last():
    steps = list(range(0, 7001, 7))
    curve = charts.Curve("m", "0", steps, np.linspace(0, 1, len(steps)).tolist())
    (line,) = charts.learning([curve], {"m": 0}, "t", "classification", 40)["data"]["values"]
    assert (len(line["step"]), line["step"][0], line["step"][-1]) == (40, 0, 7000)
    assert len(line["score"]) == 40


@pytest.mark.parametrize(("kind", "steps"), [("classification", [0, 20]), ("regression", [20])])
def test_scores_that_an_axis_cannot_show_are_left_out(kind, steps):
    curve = charts.Curve("m", "0", [0, 10, 20, 30], [0.0, math.nan, 2.0, math.inf])
    (line,) = charts.learning([curve], {"m": 0}, "t", kind, 40)["data"]["values"]
    assert line["step"] == steps


def test_accuracies_are_in_percent_and_errors_as_they_are(tmp_path):
    for kind, scale in (("accuracy", 100), ("regression", 1)):
        resolved = study(seeds=1, kind=kind)
        store = finish(resolved, tmp_path / kind, LEVEL)
        record = store.read(resolved.runs[0].spec)
        (curve,) = charts.curves([("MAML", record)], "validation")
        assert curve == ("MAML", "0", [0, 50, 100], [0.2 * scale, 0.4 * scale, 0.5 * scale])
        (training,) = charts.curves([("MAML", record)], "train")
        assert math.isnan(training.scores[0])


def test_a_study_of_many_runs_has_a_page_of_bounded_size():
    """The full grid has 771 runs with up to 300 validations each."""
    steps = list(range(0, 30_000, 100))
    curves = [
        charts.Curve("m", str(s), steps, np.random.default_rng(s).random(300).tolist())
        for s in range(800)
    ]
    spec = charts.learning(curves, {"m": 0}, "t", "classification", charts.MOST_POINTS // (2 * 800))
    assert len(json.dumps(spec, separators=(",", ":"))) < 300_000


def luminance(colour: str) -> float:
    """The relative luminance of a colour, as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("background", ["#ffffff", "#0d1117"])
def test_verdicts_stand_out_from_a_light_page_and_from_a_dark_one(background):
    css = page._environment().get_template("page.css").render()
    assert background in css.replace("#fff;", "#ffffff;")
    for look in LOOKS.values():
        a, b = sorted((luminance(look.colour), luminance(background)))
        assert (b + 0.05) / (a + 0.05) >= 3, "WCAG 2, 1.4.11"


def test_the_mean_has_its_interval_and_a_logarithmic_axis_cuts_it():
    curves = [charts.Curve("m", str(k), [0, 10], [1.0, v]) for k, v in enumerate((2.0, 4.0, 9.0))]
    spec = charts.learning(curves, {"m": 4}, "t", "classification", 40)
    *_, mean = spec["data"]["values"]
    assert (mean["seed"], mean["score"]) == ("mean of 3", [1.0, 5.0])
    assert mean["high"] == pytest.approx([1.0, 5 + 4.3027 * 3.6056 / math.sqrt(3)], rel=1e-4)
    assert mean["low"][1] == pytest.approx(5 - 4.3027 * 3.6056 / math.sqrt(3), rel=1e-4)
    assert spec["encoding"]["color"]["scale"]["range"] == [style.COLOURS[4]]
    assert spec["encoding"]["y"]["scale"]["domain"] == [mean["low"][1], mean["high"][1]]
    *_, mean = charts.learning(curves, {"m": 0}, "t", "regression", 40)["data"]["values"]
    assert mean["low"] == [1.0, 1.0], "the lowest score of a run"


def test_a_method_has_one_colour_in_all_experiments():
    content = {
        "study": "s",
        "seeds": 1,
        "experiments": {
            "first": experiment(400, methods={"maml": {}, "boil": {}}),
            "second": experiment(400, methods={"boil": {}, "maml+cml": {}}),
        },
        "tables": {
            "t": {
                "kind": "accuracy",
                "experiment": "first",
                "title": "One",
                "rows": [{"label": "MAML", "run": "maml"}, {"label": "BOIL", "run": "boil"}],
            }
        },
    }
    plan = resolve(parse(content, "test"), "test")
    assert style.order(plan) == ["maml", "boil", "maml+cml"]
    assert learning.experiments(plan) == {"first": "One", "second": "second"}


def test_rows_of_one_colour_have_dashes_of_their_own(monkeypatch):
    """CL is read in five ways, more than any other method."""
    monkeypatch.chdir(ROOT)
    path = Path("configs/omniglot_study.yaml")
    plan = resolve(config.read(path), str(path))
    store = Store(Path("results/reference/omniglot"))
    found = overview.looks(plan, build(plan, store, "omniglot"))
    drawn = [(colour, tuple(dash)) for colour, dash in found.values()]
    assert len(set(drawn)) == len(drawn)
