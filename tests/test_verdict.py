"""Verdicts: how a run ended, and what may be said of a cell. Small exact cases."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cml_bench import records
from cml_bench.engine.readings import counted
from cml_bench.evidence import stats, verdict
from cml_bench.methods.base import accuracy

# -- how a run ended


def right(mean, spread=0):
    """A hundred counts of this mean; their standard error is about ``spread`` / 10."""
    return mean + spread * np.tile([1, -1], 50)


def test_run_status_from_losses():
    good = right(500, 100)
    assert records.run_status([1.6, 1.2, 0.9], good, 1000, way=5) == "finished"
    assert records.run_status([1.6, math.nan, 0.9], good, 1000, way=5) == "diverged"
    assert records.run_status(math.inf, good, 1000, way=5) == "diverged"
    # Divergence comes first: a diverged run has no validation, or one at chance.
    assert records.run_status([math.nan], right(200), 1000, way=5) == "diverged"
    assert records.run_status([math.nan], None, way=5) == "diverged"
    # Regression has no chance level.
    assert records.run_status([3.0, 0.4]) == "finished"


def test_run_status_at_chance():
    # The standard error is 1000 / sqrt(99), so two of them are 201.008.
    assert records.run_status(0.5, right(2000, 1000), 10_000, way=5) == "collapsed"
    assert records.run_status(0.5, right(2201, 1000), 10_000, way=5) == "collapsed"
    assert records.run_status(0.5, right(1799, 1000), 10_000, way=5) == "collapsed"
    assert records.run_status(0.5, right(2202, 1000), 10_000, way=5) == "finished"
    assert records.run_status(0.5, right(1798, 1000), 10_000, way=5) == "finished"
    assert records.run_status(0.5, right(2200, 1000), 10_000, way=20) == "finished"
    # One episode has no spread: then only a score of exactly chance counts as collapsed.
    assert [records.run_status([], [count], 15, way=3) for count in (4, 5, 6)] == [
        "finished",
        "collapsed",
        "finished",
    ]
    assert records.run_status([], [4, 6], 15, way=3) == "collapsed"
    assert records.run_status([], [6, 6], 15, way=3) == "finished"


@pytest.mark.parametrize("way", [2, 3, 5, 7, 10, 20])
@pytest.mark.parametrize("query", [1, 3, 15])
def test_a_head_that_always_names_one_class_is_collapsed(way, query):
    """In every number format and after a validation of any size, although 1/3 is no float."""
    targets = torch.arange(way).repeat_interleave(query).expand(600, -1)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        logits = torch.zeros(600, way * query, way, dtype=dtype)
        logits[..., way - 1] = 1
        counts = counted(accuracy(logits, targets), way * query)
        for tasks in (1, 2, 3, 20, 600):
            assert records.run_status([], counts[:tasks], way * query, way) == "collapsed"
        better = counts[:100].copy()
        better[::2] += query  # a second class is right in every other episode
        assert records.run_status([], better, way * query, way) == "finished"


@given(st.integers(2, 20), st.integers(1, 15), st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_counts_are_judged_as_their_means_were(way, query, shares):
    """The statuses of stored records hold, except within rounding of the limit."""
    answers = way * query
    counts = np.round(np.asarray(shares) * answers).astype(np.uint16)
    scores = counts / answers
    slack = 2 * scores.std(ddof=1) / math.sqrt(len(scores)) - abs(scores.mean() - 1 / way)
    assume(abs(slack) > 1e-9)
    assert records.run_status([], counts, answers, way) == (
        "collapsed" if slack > 0 else "finished"
    )


@pytest.mark.parametrize("counts", [None, [], [0.2, 0.3], [76, 20], [-1, 20], [[15, 15]]])
def test_run_status_needs_counts(counts):
    with pytest.raises(ValueError, match="right answers: whole numbers"):
        records.run_status(0.5, counts, 75, way=5)
    with pytest.raises(ValueError, match="right answers: whole numbers"):
        records.run_status(0.5, [15, 15], way=5)


def test_one_way_has_no_chance_level():
    with pytest.raises(ValueError, match="at least 2 ways"):
        records.run_status([], [15, 15], 15, way=1)


def test_counts_are_whole_whatever_the_number_of_answers():
    for answers in (1, 3, 75, 65_535, 65_536, 200_001):
        wanted = np.unique(np.linspace(0, answers, 50).astype(int))
        for dtype in (torch.float32, torch.float64):
            counts = counted(torch.from_numpy(wanted / answers).to(dtype), answers)
            assert (counts == wanted).all()


# -- one cell


def test_cell_summary_of_finished_runs():
    cell = verdict.cell_summary([1, 2, 3, 4, 5], ["finished"] * 5)
    assert (cell.mean, cell.half) == stats.t_interval([1, 2, 3, 4, 5])[:2]
    assert (cell.finished, cell.total, cell.note) == (5, 5, "")
    assert cell.testable
    assert not cell.marked
    three = verdict.cell_summary([1, 2, 3], ["finished"] * 3)
    assert three.note == "n = 3: shown, not tested"
    assert not three.testable
    assert not three.marked


def test_cell_summary_marks_what_is_missing():
    statuses = ["finished", "diverged", "finished", "collapsed", "finished", "finished", "finished"]
    cell = verdict.cell_summary([1, math.nan, 2, 20, 3, 4, 5], statuses)
    assert (cell.mean, cell.finished, cell.total) == (3, 5, 7)
    assert cell.note == "5 of 7 finished (1 diverged, 1 collapsed)"
    assert cell.marked
    # Five finished seeds are not enough here: the two failures are a result, not bad luck.
    assert not cell.testable


def test_cell_summary_with_nothing_left_or_nonsense():
    cell = verdict.cell_summary([math.nan, 20.0], ["diverged", "collapsed"])
    assert math.isnan(cell.mean)
    assert math.isnan(cell.half)
    assert cell.note == "0 of 2 finished (1 diverged, 1 collapsed)"
    with pytest.raises(ValueError, match="unknown status"):
        verdict.cell_summary([1.0], ["running"])
    with pytest.raises(ValueError, match="one status per value"):
        verdict.cell_summary([1.0, 2.0], ["finished"])
    with pytest.raises(ValueError, match="finite"):
        verdict.cell_summary([1.0, math.nan], ["finished"] * 2)


# -- may it be judged

paper = verdict.Setting("miniimagenet", "ravi", 84, "conv4-64", 30000, 5, 1)
good = verdict.Claim(
    protocol="official",
    ours=paper,
    paper=paper,
    gamma_fixed_beforehand=True,
    statuses=("finished",) * 5,
    data_hashes=("0123456789abcdef",) * 5,
    precisions=("float32",) * 5,
)


def ours(**changes):
    return {"ours": replace(paper, **changes)}


# In the order in which they are reported.
broken = [
    ({"protocol": "matched"}, "not the official protocol: matched"),
    (ours(data="glyphs"), "data glyphs, the paper miniimagenet"),
    (ours(split="random"), "split random, the paper ravi"),
    (ours(image_size=28), "image size 28, the paper 84"),
    (ours(backbone="conv4-32"), "backbone conv4-32, the paper conv4-64"),
    (ours(steps=15000), "steps 15000, the paper 30000"),
    (ours(way=20), "way 20, the paper 5"),
    (ours(shot=5), "shot 5, the paper 1"),
    ({"gamma_fixed_beforehand": False}, "gamma was not fixed beforehand"),
    ({"statuses": ("finished",) * 4}, "4 finished seeds, 5 needed"),
    ({"statuses": ("finished",) * 5 + ("diverged",)}, "1 diverged of 6 seeds"),
    ({"data_differs": ("", "", "", "", "an own copy")}, "an own copy"),
    (
        {"data_hashes": ("0123456789abcdef", "f" * 64) * 2},
        "more than one data hash: 0123456789ab, ffffffffffff",
    ),
    (
        {"precisions": ("float32", "float64", "float32")},
        "more than one precision: float32, float64",
    ),
]


def test_a_fair_claim_is_comparable():
    assert verdict.comparable(good) is None
    assert good.finished == 5


@pytest.mark.parametrize(("change", "reason"), broken, ids=[reason for _, reason in broken])
def test_each_rule_alone(change, reason):
    assert verdict.comparable(replace(good, **change)) == f"not comparable: {reason}"


@pytest.mark.parametrize("first", range(len(broken) - 1))
def test_the_first_reason_is_given(first):
    merged = {}
    for change, _ in reversed(broken[first:]):
        settings_ours = {**merged.get("ours", {}), **differing(change.get("ours", paper))}
        merged = {**merged, **change, "ours": settings_ours}
    claim = replace(good, **{**merged, "ours": replace(paper, **merged["ours"])})
    assert verdict.comparable(claim) == f"not comparable: {broken[first][1]}"


def differing(setting):
    return {name: value for name, value in vars(setting).items() if value != getattr(paper, name)}


def test_other_failures():
    statuses = ("finished",) * 5 + ("collapsed", "diverged")
    assert (
        verdict.comparable(replace(good, statuses=statuses))
        == "not comparable: 1 diverged, 1 collapsed of 7 seeds"
    )
    assert (
        verdict.comparable(replace(good, data_hashes=())) == "not comparable: no data hash recorded"
    )
    silent = replace(paper, steps=None)
    assert (
        verdict.comparable(replace(good, paper=silent))
        == "not comparable: steps 30000, not stated in the paper"
    )
    # An image size does not apply to a graph, on either side.
    graph = replace(paper, data="citeseer", image_size=None)
    assert verdict.comparable(replace(good, ours=graph, paper=graph)) is None


# -- level


def scored(values, spread=0.0, count=100):
    """Scores (seeds, count) with these means over episodes, and +-``spread`` between episodes."""
    return np.asarray(values, dtype=float)[:, None] + spread * np.tile([1.0, -1.0], count // 2)


def test_level_interval_by_hand():
    values = [47.0, 48.0, 49.0, 50.0, 51.0]
    result = verdict.level_verdict(values, scored(values, 10), paper=47.5)
    seeds = 2.131847 * math.sqrt(2.5 / 5)
    test_episodes = 1.645 * 10 * math.sqrt(100 / 99) / math.sqrt(100)
    assert result.difference == pytest.approx(1.5)
    assert result.half == pytest.approx(math.sqrt(seeds**2 + test_episodes**2), rel=1e-6)
    assert (result.low, result.high) == (1.5 - result.half, 1.5 + result.half)
    assert (result.n, result.verdict) == (5, "cannot tell")


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (0.0, "reproduced"),
        (0.4, "reproduced"),
        (-0.4, "reproduced"),
        (0.6, "cannot tell"),
        (-1.4, "cannot tell"),
        (1.6, "differs"),
        (-1.6, "differs"),
    ],
)
def test_level_verdicts(shift, expected):
    # s = 0.5 over five seeds: the half-width is 2.1318 * 0.5 / sqrt(5) = 0.477.
    values = 50 + shift + 0.5 * np.array([-1.0, -1.0, 0.0, 1.0, 1.0])
    result = verdict.level_verdict(values, scored(values), paper=50)
    assert result.half == pytest.approx(0.4767, abs=1e-4)
    assert result.verdict == expected


def test_level_margin_is_counted_in_points(monkeypatch):
    values = 52.0 + 0.5 * np.array([-1.0, -1.0, 0.0, 1.0, 1.0])
    assert verdict.level_verdict(values, scored(values), 50).verdict == "differs"
    monkeypatch.setattr(verdict, "MARGIN", 3)
    assert verdict.level_verdict(values, scored(values), 50).verdict == "reproduced"


def test_a_wide_interval_is_never_reproduced():
    wide = 50 + np.array([-5.0, -5.0, 0.0, 5.0, 5.0])
    assert verdict.level_verdict(wide, scored(wide), paper=50).verdict == "cannot tell"
    # More seeds do not help if there are few test episodes.
    narrow = 50 + 0.1 * np.array([-1.0, 0.0, 1.0] * 10)
    assert verdict.level_verdict(narrow, scored(narrow, 20), paper=50).verdict == "cannot tell"
    assert verdict.level_verdict(narrow, narrow[:, None], paper=50).verdict == "cannot tell"


def test_level_of_few_seeds_is_not_tested():
    values = [50.0, 50.1, 49.9, 50.0]
    result = verdict.level_verdict(values, scored(values), paper=50)
    assert result.verdict == "n = 4: shown, not tested"


def test_level_refuses_mixed_input():
    values = [50.0, 50.1, 49.9, 50.0, 50.2]
    with pytest.raises(ValueError, match="another unit"):
        verdict.level_verdict(values, scored(values) / 100, paper=50)
    with pytest.raises(ValueError, match="other seeds"):
        verdict.level_verdict(values, scored(values[:4]), paper=50)
    with pytest.raises(ValueError, match="finite"):
        verdict.level_verdict(values, scored(values), paper=math.nan)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(40, 60), min_size=5, max_size=8), st.floats(40, 60), st.floats(0, 20))
def test_level_laws(values, number, spread):
    result = verdict.level_verdict(values, scored(values, spread), number)
    if result.verdict == "reproduced":
        assert result.low + 1e-9 >= -1
        assert result.high - 1e-9 <= 1
    elif result.verdict == "differs":
        assert result.low > 1 - 1e-9 or result.high < -1 + 1e-9
    else:
        assert result.low < -1 or result.high > 1
    mirrored = [100 - value for value in values]
    assert verdict.level_verdict(
        mirrored, scored(mirrored, spread), 100 - number
    ).half == pytest.approx(result.half, abs=1e-9)


# -- gain


def test_gain_verdicts():
    up = stats.Paired(2.0, 1.5, 0.02, 5)
    down = stats.Paired(-2.0, 1.5, 0.02, 5)
    assert verdict.gain_verdict(up, 0.049) == verdict.GainVerdict("gain", 0.5, 3.5, None)
    assert verdict.gain_verdict(down, 0.049) == verdict.GainVerdict("loss", -3.5, -0.5, None)
    # The adjusted p decides, not the interval.
    assert verdict.gain_verdict(up, 0.05).verdict == "undecided"
    assert verdict.gain_verdict(up, math.nan).verdict == "undecided"
    assert verdict.gain_verdict(up._replace(n=4), 0.001).verdict == "n = 4: shown, not tested"


def test_gain_of_the_paper():
    pair = stats.Paired(2.0, 1.5, 0.02, 5)
    assert [
        verdict.gain_verdict(pair, 0.02, gain).paper_inside for gain in (0.4, 0.5, 1.88, 3.5, 3.6)
    ] == [False, True, True, True, False]
    assert verdict.gain_verdict(pair._replace(half=math.nan), math.nan, 1.88).paper_inside is None
