"""Gains over outer steps and steps to an accuracy, from the validation curves of records."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import vl_convert

from cml_bench.evidence import progress, stats
from cml_bench.evidence.build import build
from cml_bench.figures import style
from cml_bench.report import charts
from cml_bench.report import progress as section
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers import simulated
from tests.helpers.curves import edit_record, gains, redraw
from tests.helpers.pages import LEVEL, specs_in, written
from tests.helpers.simulated import finish, study

META, CO = ("MAML + CML", 1), ("MAML + CML†", 1)


def made(tmp_path, scores, seeds=5, **options):
    """A study's plan, its store with these curves, and its table."""
    resolved = study(seeds=seeds, **options)
    store = finish(resolved, tmp_path, LEVEL)
    redraw(resolved, store, scores)
    return resolved, store, build(resolved, store, "table1")


def courses(table) -> dict:
    return {(c.row.label, c.column.shot): c for c in progress.courses(table)}


def arrivals(table) -> dict:
    return {(a.row.label, a.column.shot): a for a in progress.arrivals(table)}


def folder(resolved, store, method: str, seed: int, shot: int = 1):
    specs = [run.spec for run in resolved.runs]
    return store.folder(
        next(s for s in specs if (s.method, s.seed, s.shot) == (method, seed, shot))
    )


# -- gains


def test_a_known_gain_is_found_at_each_step_with_its_paired_interval(tmp_path):
    found = courses(made(tmp_path, gains(0, 6, 2))[2])
    course = found[META]
    assert list(course.gains) == [50, 100], "at step 0 nothing is trained"
    expected = stats.t_interval([6 + 0.2 * (seed - 2) for seed in range(5)])
    assert course.gains[50] == pytest.approx((6, expected.half, course.gains[50].p, 5))
    assert course.gains[100].diff == pytest.approx(2)
    assert found[CO].gains[100].diff == pytest.approx(4), "the co-learner's own curve"


def test_a_gain_shrinks_only_where_its_change_is_significant(tmp_path):
    found = courses(made(tmp_path / "a", gains(0, 6, 2))[2])
    assert found[META].change.paired.diff == pytest.approx(4)
    assert found[META].change.outcome != "shrinks", "the same change in every seed is no evidence"

    def noisy(sd):
        rng, scores = np.random.default_rng(1), gains(0, 6, 2)
        noise = {seed: rng.normal(0, sd) for seed in range(5)}

        def drawn(spec, head):
            curve = scores(spec, head)
            return {**curve, 50: curve[50] + noise[spec.seed] * ("+cml" in spec.method)}

        return drawn

    assert courses(made(tmp_path / "b", noisy(0.5))[2])[META].change.outcome == "shrinks"
    far = courses(made(tmp_path / "c", noisy(8))[2])[META]
    assert far.change.outcome == "not shown"
    assert far.change.first.mean > far.change.second.mean, "smaller, and yet not shown to shrink"


def test_p_is_adjusted_for_all_comparisons_of_a_family(tmp_path):
    found = courses(made(tmp_path, gains(0, 6, 1.3, spread=1))[2])
    one = found[META].gains[100].p
    assert found[META].end_p == pytest.approx(min(1, 2 * one)), "two shots without the co-learner"


def test_a_gain_at_the_end_may_be_speed_while_the_baseline_improves(tmp_path):
    rising = courses(made(tmp_path / "a", gains(0, 6, 5))[2])[META]
    assert rising.outcome.startswith("cannot tell")
    assert rising.rise.diff == pytest.approx(10)
    assert rising.before == 50

    def level(spec, head):
        curve = gains(0, 6, 5)(spec, head)
        wobble = (-1) ** spec.seed * (spec.method == "maml")
        return {**curve, 100: curve[100] - 10 + wobble}

    flat = courses(made(tmp_path / "b", level)[2])[META]
    assert flat.outcome.startswith("end:")


def test_a_gain_that_is_gone_at_the_end_was_speed(tmp_path):
    def scores(spec, head):
        curve = gains(0, 6, 0, spread=0.5)(spec, head)
        return {**curve, 50: curve[50] + 0.1 * (spec.seed % 2) * ("+cml" in spec.method)}

    assert courses(made(tmp_path, scores)[2])[META].outcome.startswith("speed:")


def test_a_changed_record_moves_what_is_said(tmp_path):
    resolved, store, table = made(tmp_path, gains(0, 6, 5))
    before = courses(table)[META].outcome

    def worse(content):
        content["curves"]["validation"]["score_meta"][2] = 0.1

    edit_record(folder(resolved, store, "maml+cml", 3), worse)
    after = courses(build(resolved, store, "table1"))[META].outcome
    assert (before[:11], after) == ("cannot tell", "no gain shown at the end")


# -- curves that are missing, unequal, few


def test_a_run_without_a_curve_is_named_and_the_other_pairs_stay(tmp_path):
    resolved, store, _ = made(tmp_path, gains(0, 6, 2))
    edit_record(folder(resolved, store, "maml+cml", 3), lambda content: content.pop("curves"))
    table = build(resolved, store, "table1")
    course = courses(table)[META]
    assert course.left_out == ("3",)
    assert course.gains[100].n == 4
    assert section.notes(table, progress.courses(table))[0] == (
        "No validation curve of seed 3: MAML + CML − MAML, 1-shot; MAML + CML† − MAML, 1-shot."
    )


def test_a_study_without_any_curve_has_no_section(tmp_path):
    resolved, store, _ = made(tmp_path, gains(0, 6, 2))
    for run in resolved.runs:
        edit_record(store.folder(run.spec), lambda content: content.pop("curves"))
    table = build(resolved, store, "table1")
    assert {c.reason for c in progress.courses(table)} == {"no validation curve stored"}
    assert progress.arrivals(table) == []
    assert section.sections(resolved, [table]) == []
    assert 'id="progress"' not in written(resolved, tmp_path)


def test_gains_stand_at_steps_at_which_all_pairs_were_validated(tmp_path):
    def stops(spec, head):
        curve = gains(0, 6, 2)(spec, head)
        if spec.seed == 1 and spec.method == "maml":
            del curve[100]
        return curve

    table = made(tmp_path / "a", stops)[2]
    course = courses(table)[META]
    assert (list(course.gains), course.gains[50].n, course.stopped) == ([50], 5, 4)
    assert course.change is None, "half of the training cannot be told from its end"
    assert "to 50 (4 of 5 pairs go on)" in section.notes(table, progress.courses(table))[0]

    def apart(spec, head):
        curve = gains(0, 6, 2)(spec, head)
        shift = 7 if spec.method == "maml" else 0
        return {step + shift: score for step, score in curve.items()}

    course = courses(made(tmp_path / "b", apart)[2])[META]
    assert course.reason == "no step at which all were validated"


def test_each_shot_has_a_band_of_its_own(tmp_path):
    resolved, _, table = made(tmp_path, gains(0, 6, 2))
    (item,) = section.sections(resolved, [table])
    for spec in item["charts"]:
        svg = vl_convert.vegalite_to_svg(spec | {"width": 400}, config=charts.CONFIG)
        shots = {point["shots"] for point in spec["data"]["values"]}
        assert len(shots) == 2
        assert svg.count('class="mark-area ') == len(shots)


@pytest.mark.parametrize("seeds", [1, 4])
def test_few_seeds_are_shown_and_not_tested(tmp_path, seeds):
    resolved, _, table = made(tmp_path, gains(0, 6, 2), seeds=seeds)
    course = courses(table)[META]
    assert course.outcome == f"n = {seeds}: shown, not tested"
    assert math.isnan(course.end_p)
    (item,) = section.sections(resolved, [table])
    for spec in item["charts"]:
        assert "<svg" in vl_convert.vegalite_to_svg(spec | {"width": 400}, config=charts.CONFIG)
    points = item["charts"][0]["data"]["values"]
    assert [p["low"] is None for p in points] == [seeds == 1] * len(points)
    assert "shown, not tested" in written(resolved, tmp_path)


def test_a_reading_that_is_made_at_test_alone_is_named(tmp_path):
    table = made(tmp_path, gains(0, 6, 2))[2]
    table.rows[2] = dataclasses.replace(table.rows[2], reading="co_eq9")
    assert courses(table)[CO].reason == "this reading is made at test alone"
    assert CO not in arrivals(table)


def test_scores_of_other_validation_tasks_are_not_compared(tmp_path):
    methods = {"maml": {}, "maml+cml": {"protocol_options": {"val_tasks": 70}}}
    config = {
        "study": "simulated",
        "seeds": 5,
        "experiments": {"e": simulated.experiment(400, methods=methods)},
        "tables": {
            "table1": {
                "kind": "accuracy",
                "experiment": "e",
                "title": "T",
                "rows": [
                    {**row, "varies": ["protocol.val_tasks"]} if "against" in row else row
                    for row in simulated.ROWS
                ],
            }
        },
    }
    resolved = resolve(parse(config, "test"), "test")
    table = build(resolved, finish(resolved, tmp_path, LEVEL), "table1")
    assert courses(table)[META].reason == "validated on other tasks than the baseline"


# -- steps to a level


def test_the_first_step_at_a_level_is_counted_and_the_median_taken(tmp_path):
    found = arrivals(made(tmp_path, gains(0, 20, 20, spread=0))[2])
    assert found["MAML", 1].final.level == pytest.approx(52), "50 + seed, mean over five"
    assert found["MAML", 1].final.median == 100
    assert found["MAML", 1].final.never == ("0", "1")
    assert found[META].final.median == 50
    assert found[META].base == found["MAML", 1].final
    assert found[META].round[70].median == 100
    assert found["MAML", 1].round[70][1:] == (math.inf, 0, 5, tuple("01234"), 100)
    assert list(found[META].round) == [70, 80, 90], "the best that half of some row's runs reach"


def test_a_run_that_never_reaches_a_level_is_named_and_counts_as_later_than_all(tmp_path):
    def scores(spec, head):
        high = spec.seed in (0, 3) or spec.method != "maml"
        return {0: 20.0, 50: 30.0, 100: 95.0 if high else 40.0}

    resolved, store, table = made(tmp_path, scores)
    reached = arrivals(table)["MAML", 1].round[95]
    assert (reached.median, reached.reached, reached.never) == (math.inf, 2, ("1", "2", "4"))
    rows = section.arrival_grid(table, progress.arrivals(table)).rows
    assert rows[0][-1] == "> 100 (2 of 5; not seeds 1, 2, 4)"
    assert rows[1][4] == "> 100 (2 of 5)", "the baseline's own row names its runs"

    def collapse(content):
        content["status"] = "collapsed"

    edit_record(folder(resolved, store, "maml", 0), lambda content: content.pop("curves"))
    edit_record(folder(resolved, store, "maml", 1), collapse)
    reached = arrivals(build(resolved, store, "table1"))["MAML", 1].round[95]
    assert (reached.total, reached.never) == (5, ("0", "1", "2", "4")), "none is dropped"


def test_errors_are_to_fall_to_a_level(tmp_path):
    def scores(spec, head):
        better = 0.5 if "+cml" in spec.method else 1.0
        return {0: 400.0, 50: 100 * better, 100: 30 * better}

    resolved, _, table = made(tmp_path, scores, kind="regression")
    found = arrivals(table)
    assert found["MAML", 1].final.level == pytest.approx(0.3)
    assert found[META].final.median == 100
    assert list(found[META].round) == [1.0, 0.5, 0.2]
    assert [r.median for r in found[META].round.values()] == [50, 50, 100]
    course = courses(table)[META]
    assert course.better * course.gains[50].diff == pytest.approx(0.5)
    (item,) = section.sections(resolved, [table])
    assert item["charts"][0]["data"]["values"][0]["gain"] > 0, "improvement is upwards"
    places = [row[1] for row in item["gains"].rows]
    assert places == ["1-shot", "5-shot"] * 2, "inner steps at test have no curve of their own"


# -- the page


def test_the_page_says_that_validation_tasks_are_no_test_tasks(tmp_path):
    resolved, _, _ = made(tmp_path, gains(0, 6, 2, spread=1))
    html = written(resolved, tmp_path)
    assert "All its numbers are of validation tasks, not of the test tasks" in html
    assert "the tested models are selected by them" in " ".join(html.split())
    assert '<a href="#progress">' in html
    drawn = {name: spec for name, spec in specs_in(html).items() if name.startswith("progress-")}
    titles = [spec["title"]["text"]["expr"] for spec in drawn.values()]
    wide = [json.loads(title.rpartition(" : ")[2]) for title in titles]
    assert wide == ["MAML + CML − MAML", "MAML + CML† − MAML"]
    assert "+6.00 ± 1.96 (50)" in re.sub("</?abbr[^>]*>", "", html)
    for spec in drawn.values():
        svg = vl_convert.vegalite_to_svg(spec | {"width": 400}, config=charts.CONFIG)
        assert svg.count('aria-roledescription="point"') == 4, "two steps, two shots"


def test_charts_of_a_table_share_an_axis_that_holds_every_mean(tmp_path):
    resolved, _, table = made(tmp_path, gains(0, 6, 2))
    (item,) = section.sections(resolved, [table])
    domains = {
        tuple(spec["layer"][2]["encoding"]["y"]["scale"]["domain"]) for spec in item["charts"]
    }
    ((low, high),) = domains
    assert low < 0 < 12 < high
    colours = {spec["encoding"]["color"]["value"] for spec in item["charts"]}
    assert colours == {style.COLOURS[1]}, "that of MAML + CML, in all charts of the study"
