"""Paired differences: what test episodes add, which runs are missing, failed runs included."""

import io
import math

import numpy as np
import pandas as pd
import pytest

from cml_bench.evidence import stats
from cml_bench.evidence.build import build
from cml_bench.evidence.table import Column
from cml_bench.records import Store
from cml_bench.report import forms, grids, summary
from tests.helpers.simulated import ANSWERS, finish, study

GAIN = {"base": 50.0, "meta": 55.0, "co": 56.0}
ONE = Column(1)


def scores_of(store: Store, method: str, reading: str = "meta") -> np.ndarray:
    """Percent of every episode at one shot, (seeds, episodes)."""
    runs = [r for r in store.all() if (r.spec.method, r.spec.shot) == (method, 1)]
    runs.sort(key=lambda r: r.spec.seed)
    return np.stack([r.arrays[f"{reading}@1"] for r in runs]) * 100.0 / ANSWERS


def status_of(*failed: tuple[str, int], state: str = "collapsed"):
    """Statuses of a study in which these runs, (method, seed) at one shot, failed."""

    def status(spec):
        return state if spec.shot == 1 and (spec.method, spec.seed) in failed else "finished"

    return status


# -- the part from test episodes


def test_the_episodes_part_of_a_difference_is_paired_by_episode(tmp_path):
    resolved = study(seeds=6)
    store = finish(resolved, tmp_path, GAIN)
    table = build(resolved, store, "table1")
    d = table.rows[1].cells[ONE].difference
    each = (scores_of(store, "maml+cml") - scores_of(store, "maml")).mean(axis=0)
    assert d.episode_half == pytest.approx(1.96 * each.std(ddof=1) / math.sqrt(400))
    shown = (
        f"± {d.paired.half:.2f} ({d.episode_half:.2f}), p < 0.001, detectable {d.detectable:.2f}"
    )
    assert grids.difference_text(d, "accuracy").endswith(shown)
    assert shown in forms.text(table)
    (line, *_) = grids.difference_grid(table).rows
    assert line[3].endswith(f" ({d.episode_half:.2f})")


def test_an_episode_that_is_hard_for_both_is_no_noise_of_the_difference(tmp_path):
    """All runs share the test episodes: what they have in common leaves the difference."""
    resolved = study(seeds=5, tasks=200)
    store = finish(resolved, tmp_path, GAIN)
    table = build(resolved, store, "table1")
    cell = table.rows[1].cells[ONE]
    hard = np.random.default_rng(1).normal(0, 30, 200)
    alike = [{seed: s + hard for seed, s in c.scores.items()} for c in (cell, cell.base)]
    both = np.stack([alike[0][seed] - alike[1][seed] for seed in range(5)])
    assert stats.episode_half_width(both) == pytest.approx(cell.difference.episode_half)
    assert stats.episode_half_width(np.stack([*alike[0].values()])) > 1.5 * cell.episode_half


def test_medians_have_no_part_from_episodes(tmp_path):
    resolved = study(5, "regression")
    store = finish(resolved, tmp_path, {"base": 4.0, "meta": 3.0, "co": 5.0}, seed_sd=0.1)
    cells = build(resolved, store, "table1").rows[1].cells
    halves = {c.statistic: cell.difference.episode_half for c, cell in cells.items()}
    assert halves["mean"] > 0
    assert math.isnan(halves["median"])


def test_a_lower_error_is_a_gain_by_its_sign(tmp_path):
    resolved = study(5, "regression")
    store = finish(resolved, tmp_path, {"base": 4.0, "meta": 3.0, "co": 5.0}, seed_sd=0.1)
    _, meta, co = build(resolved, store, "table1").rows
    column = Column(1, 0, "mean")
    assert meta.cells[column].difference.paired.diff < 0
    assert set(grids.cell_text(meta.cells[column], "regression").split()[-1]) == {"▲"}
    assert set(grids.cell_text(co.cells[column], "regression").split()[-1]) == {"▼"}


# -- runs that are not there


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ({("maml", 3)}, "seed 3 of MAML collapsed"),
        (
            {("maml", 3), ("maml", 4), ("maml+cml", 0)},
            "seed 3, seed 4 of MAML collapsed; seed 0 of MAML + CML collapsed",
        ),
        ({("maml+cml", s) for s in range(4)}, "4 runs of MAML + CML collapsed"),
    ],
)
def test_failed_runs_are_named_as_the_reason(lost, reason, tmp_path):
    resolved = study(seeds=9)
    table = build(resolved, finish(resolved, tmp_path, GAIN, status=status_of(*lost)), "table1")
    row = table.rows[1]
    d = row.cells[ONE].difference
    assert d.verdict == d.outcome == f"{reason}: not tested"
    assert f"MAML + CML − MAML ({reason}: not tested)" in forms.text(table)
    assert any(f" 1 difference has no verdict ({reason}: not tested)." in n for n in table.notes)
    assert summary.tally([table])["not tested"] == 2
    told = summary.sentences(resolved, [table], {})[0]
    assert "2 more differences have no verdict (runs missing: not tested)." in told


def test_a_run_that_was_not_made_is_missing(tmp_path):
    resolved = study(seeds=6)
    store = finish(resolved, tmp_path, GAIN, only=lambda s: (s.method, s.seed) != ("maml+cml", 5))
    d = build(resolved, store, "table1").rows[1].cells[ONE].difference
    assert d.verdict == "seed 5 of MAML + CML missing: not tested"


# -- all runs included


def with_failures(tmp_path, *failed, level=GAIN, state="collapsed", seeds=7):
    resolved = study(seeds)
    store = finish(resolved, tmp_path, level, status=status_of(*failed, state=state))
    return build(resolved, store, "table1"), store


def included(table) -> list[str]:
    return [note for note in table.notes if "collapsed runs are counted, too" in note]


def test_the_analysis_of_all_runs_is_shown_where_a_conclusion_differs(tmp_path):
    table, store = with_failures(tmp_path, ("maml", 3))
    d = stats.paired(
        scores_of(store, "maml+cml").mean(axis=1), scores_of(store, "maml").mean(axis=1)
    )
    (note,) = included(table)
    assert note.startswith(
        "What changes if collapsed runs are counted, too: MAML + CML − MAML at 1-shot becomes gain"
        f" (+{d.diff:.3g} ± {d.half:.3g} ("
    )
    assert ", p < 0.001, n = 7), without them: seed 3 of MAML collapsed: not tested; " in note
    assert "MAML + CML† − MAML at 1-shot becomes gain (" in note
    assert "5-shot" not in note, "its conclusion is the same"
    assert note in forms.text(table)
    assert not table.rows[1].cells[ONE].difference.testable, "it decides nothing"


def test_the_analysis_of_all_runs_is_said_to_agree_where_it_does(tmp_path):
    flat = {"base": 50.0, "meta": 50.0, "co": 50.0}
    table, _ = with_failures(tmp_path, ("maml", 3), level=flat)
    assert included(table) == [
        "No gain or loss appears or goes if collapsed runs are counted, too."
    ]


@pytest.mark.parametrize(("state", "seeds"), [("finished", 7), ("diverged", 7), ("collapsed", 4)])
def test_without_a_collapsed_run_or_a_test_nothing_is_said_of_all_runs(state, seeds, tmp_path):
    table, _ = with_failures(tmp_path, ("maml", 3), state=state, seeds=seeds)
    assert included(table) == []


# -- what could be found


def test_every_p_has_the_detectable_difference_beside_it(tmp_path):
    resolved = study(seeds=6)
    table = build(resolved, finish(resolved, tmp_path, GAIN), "table1")
    d = table.rows[1].cells[ONE].difference
    sd = d.per_seed.std(ddof=1)
    assert d.family == 2
    assert d.detectable == pytest.approx(stats.detectable(6, 2) * sd)
    assert d.detectable > stats.detectable(6, 1) * sd
    grid = grids.difference_grid(table)
    assert grid.rows[0][grid.header.index("detectable")] == f"{d.detectable:.2f}"
    frame = pd.read_csv(io.StringIO(forms.csv(table)))
    line = frame[(frame.row == "MAML + CML") & (frame.shot == 1)].iloc[0]
    assert line["detectable"] == pytest.approx(d.detectable)
    assert (line["family"], line["pairs"]) == (2, 6)
    assert line["diff_half_episodes"] == pytest.approx(d.episode_half)
    shown = grids.difference_text(d, table.kind)
    assert shown.endswith(f"{stats.p_equals(d.holm_p)}, detectable {d.detectable:.2f}")
    assert shown in forms.text(table)
    (note,) = (note for note in table.notes if note.startswith("Detectable, beside each p"))
    assert "found with 80 % power" in note


def test_nothing_is_detectable_without_a_test(tmp_path):
    resolved = study(seeds=4)
    table = build(resolved, finish(resolved, tmp_path, GAIN), "table1")
    grid = grids.difference_grid(table)
    assert {row[grid.header.index("detectable")] for row in grid.rows} == {"–"}
    assert not any("power" in note for note in table.notes)
