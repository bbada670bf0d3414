"""Intervals, tests and aggregates: values derived by hand or from scipy, and laws."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cml_bench.evidence import stats

some = settings(deadline=None, max_examples=60)
points = st.integers(-1000, 1000).map(lambda tenths: tenths / 10)


def rows(minimum, maximum, elements=points):
    return st.lists(elements, min_size=minimum, max_size=maximum)


# -- one mean


def test_t_interval_by_hand():
    interval = stats.t_interval([1, 2, 3, 4, 5])
    assert interval.mean == 3
    assert interval.n == 5
    assert interval.half == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)
    assert (interval.low, interval.high) == (3 - interval.half, 3 + interval.half)
    assert stats.t_interval([1, 2, 3, 4, 5], level=0.90).half == pytest.approx(
        2.131847 * math.sqrt(0.5), rel=1e-6
    )


def test_t_interval_without_spread_to_estimate():
    one, none = stats.t_interval([47.0]), stats.t_interval([])
    assert (one.mean, one.n) == (47.0, 1)
    assert none.n == 0
    assert all(math.isnan(x) for x in (one.half, none.mean, none.half))
    assert stats.t_interval([47.0, 47.0]).half == 0


@pytest.mark.parametrize("bad", [[1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
def test_t_interval_refuses(bad):
    with pytest.raises(ValueError, match="values must"):
        stats.t_interval(bad)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_levels_are_fractions(level):
    with pytest.raises(ValueError, match="level"):
        stats.t_interval([1, 2, 3], level)


def test_episode_half_width_by_hand():
    # Averaged over seeds the episodes score 10, 20, 30: s = 10.
    scores = [[0, 30, 20], [20, 10, 40]]
    assert stats.episode_half_width(scores) == pytest.approx(1.96 * 10 / math.sqrt(3))
    assert math.isnan(stats.episode_half_width([[50.0], [51.0]]))
    for bad in ([1.0, 2.0], np.empty((0, 4)), [[1.0, math.nan]]):
        with pytest.raises(ValueError, match="scores must"):
            stats.episode_half_width(bad)


def test_episode_half_width_does_not_shrink_with_seeds():
    rng = np.random.default_rng(0)
    scores = 50 + 10 * rng.standard_normal(400) + rng.standard_normal((80, 400))
    few, many = stats.episode_half_width(scores[:5]), stats.episode_half_width(scores)
    assert many == pytest.approx(few, rel=0.05)
    assert (
        stats.t_interval(scores.mean(axis=1)).half
        < 0.5 * stats.t_interval(scores[:5].mean(axis=1)).half
    )


# -- one difference


@some
@given(st.lists(st.tuples(points, points), min_size=2, max_size=9))
def test_paired_agrees_with_scipy(pairs):
    a, b = np.array(pairs).T
    ours = stats.paired(a, b)
    assert ours.diff == pytest.approx((a - b).mean(), abs=1e-9)
    if np.ptp(a - b) > 0.05:
        scipys = scipy.stats.ttest_rel(a, b)
        low, high = scipys.confidence_interval(0.95)
        assert ours.p == pytest.approx(scipys.pvalue, rel=1e-6)
        assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)


@some
@given(st.lists(st.tuples(points, points), min_size=1, max_size=9), st.permutations(range(9)))
def test_paired_swapped_negates_and_order_of_seeds_is_nothing(pairs, order):
    a, b = np.array(pairs).T
    one, other = stats.paired(a, b), stats.paired(b, a)
    assert other.diff == -one.diff
    np.testing.assert_equal((one.half, one.p, one.n), (other.half, other.p, other.n))
    order = [i for i in order if i < len(a)]
    np.testing.assert_allclose(stats.paired(a[order], b[order]), one, rtol=1e-6, atol=1e-9)


def test_paired_degenerate():
    same = stats.paired([47.1, 48.3], [47.1, 48.3])
    assert same == (0, 0, 1, 2)
    single = stats.paired([47.0], [46.0])
    assert (single.diff, single.n) == (1, 1)
    assert math.isnan(single.half)
    assert math.isnan(single.p)
    with pytest.raises(ValueError, match="not paired: 2 and 3"):
        stats.paired([1, 2], [1, 2, 3])


def test_paired_equal_shift_is_not_evidence():
    baseline = np.array([31.1, 48.3, 64.9, 20.7, 7.4])
    # The differences are not equal bit by bit, and yet they must count as equal.
    assert np.ptp(baseline + 1.88 - baseline) > 0
    shifted = stats.paired(baseline + 1.88, baseline)
    assert shifted.diff == pytest.approx(1.88)
    assert math.isnan(shifted.half)
    assert math.isnan(shifted.p)
    assert stats.signs(shifted.p, gain=True) == ""


# -- a family


def test_holm_by_hand():
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(stats.holm([0.5, 0.9]), [1, 1])
    np.testing.assert_allclose(stats.holm([0.01, math.nan, 0.02]), [0.02, math.nan, 0.02])
    assert stats.holm([]).shape == (0,)
    for bad in ([1.5], [-0.1], [[0.1]]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            stats.holm(bad)


@some
@given(rows(1, 10, st.one_of(st.just(math.nan), st.floats(0, 1))), st.randoms())
def test_holm_laws(pvalues, random):
    p = np.array(pvalues)
    adjusted = stats.holm(p)
    np.testing.assert_array_equal(p, pvalues)
    np.testing.assert_array_equal(np.isnan(adjusted), np.isnan(p))
    tested = ~np.isnan(p)
    m = tested.sum()
    assert np.all(adjusted[tested] >= p[tested])
    assert np.all(adjusted[tested] <= np.minimum(1, m * p[tested]))
    assert np.all(np.diff(adjusted[tested][np.argsort(p[tested])]) >= 0)
    if m:
        assert np.nanmin(adjusted) == min(1, m * np.nanmin(p))
    order = list(range(p.size))
    random.shuffle(order)
    np.testing.assert_array_equal(stats.holm(p[order]), adjusted[order])


@pytest.mark.parametrize(
    ("p", "count"),
    [(0.0009, 3), (0.001, 2), (0.0099, 2), (0.01, 1), (0.049, 1), (0.05, 0), (math.nan, 0)],
)
def test_signs_say_how_sure_and_which_way(p, count):
    assert stats.signs(p, gain=True) == "▲" * count
    assert stats.signs(p, gain=False) == "▼" * count


@pytest.mark.parametrize(
    ("p", "text", "equals"),
    [
        (0.03124, "0.0312", "p = 0.0312"),
        (0.001, "0.001", "p = 0.001"),
        (0.000999, "<0.001", "p < 0.001"),
        (3.4e-6, "<0.001", "p < 0.001"),
        (1.0, "1", "p = 1"),
    ],
)
def test_a_p_below_a_thousandth_has_no_digits(p, text, equals):
    assert (stats.p_text(p), stats.p_equals(p)) == (text, equals)


def test_few_seeds_are_named():
    assert stats.MIN_SEEDS == 5
    assert stats.not_tested(3) == "n = 3: shown, not tested"


# -- sign flips


def test_sign_flip_by_hand():
    assert stats.sign_flip([1, 2, 3, 4, 5]) == (2 / 32, 2 / 32)
    # 3+1+1, 3+1-1, 3-1+1 and their opposites reach the observed 3; 3-1-1 does not.
    assert stats.sign_flip([3, 1, -1]) == (6 / 8, 2 / 8)
    assert stats.sign_flip([0, 0, 0]).p == 1
    assert stats.sign_flip([2.5]) == (1, 1)
    assert math.isnan(stats.sign_flip([]).p)
    assert stats.sign_flip(np.ones(20)) == (2.0**-19, 2.0**-19)
    with pytest.raises(ValueError, match="at most 20 seeds, got 21"):
        stats.sign_flip(np.ones(21))


@some
@given(rows(1, 8, st.integers(-9, 9)))
def test_sign_flip_equals_brute_force(tenths):
    # Counted in whole tenths, where ties are exact; tenths as floats would lose some of them.
    patterns = itertools.product([1, -1], repeat=len(tenths))
    reached = [abs(np.dot(signs, tenths)) >= abs(sum(tenths)) for signs in patterns]
    differences = np.array(tenths) / 10
    assert stats.sign_flip(differences).p == np.mean(reached)
    assert stats.sign_flip(-differences).p == np.mean(reached)


# -- a whole table


def iqm(values):
    """The interquartile mean of a row or table, as ``aggregate`` gives it for a method."""
    rows = np.atleast_2d(values)
    return stats.aggregate(rows, rows, seed=0).iqm_a.value


def improvement(a, b):
    """The probability of improvement, as ``aggregate`` gives it."""
    return stats.aggregate(a, b, seed=0).improvement.value


def test_iqm_by_hand():
    assert iqm([0, 1, 2, 3, 4, 5, 6, 100]) == 3.5
    assert [iqm(column) for column in ([9, 2, 4, 5], [1, 3, 0, 6])] == [4.5, 2.0]
    assert iqm([1, 2, 6]) == 3
    for bad, message in (([], "one shape"), ([1.0, math.nan], "finite")):
        with pytest.raises(ValueError, match=message):
            iqm(bad)


@some
@given(rows(1, 30))
def test_iqm_is_the_trimmed_mean(values):
    assert iqm(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25), abs=1e-9)


def test_probability_of_improvement_by_hand():
    # First cell: 2>1, 2=2, 3>1, 3>2 make 3.5 of 4; second cell: none of 4.
    a, b = [[2, 3], [0, 0]], [[1, 2], [5, 6]]
    assert improvement(a, b) == (3.5 / 4 + 0) / 2
    assert improvement([[1, 1, 4]], [[2, 2, 2]]) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="one shape"):
        improvement([[1.0]], [[1.0], [2.0]])


@some
@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 6))
def test_improvement_swapped_is_the_rest(seed, cells, n):
    a, b = np.random.default_rng(seed).integers(0, 5, size=(2, cells, n))
    there = improvement(a, b)
    assert there + improvement(b, a) == pytest.approx(1)
    u = [
        scipy.stats.mannwhitneyu(x, y, method="asymptotic").statistic / n**2
        for x, y in zip(a, b, strict=True)
    ]
    assert there == pytest.approx(np.mean(u))


def table(cells=3, n=6):
    rng = np.random.default_rng(1)
    b = 50 + rng.standard_normal((cells, n))
    return b + 1 + 0.5 * rng.standard_normal((cells, n)), b


def test_aggregate_equals_a_plain_loop(monkeypatch):
    a, b = table()
    monkeypatch.setattr(stats, "RESAMPLES", 50)
    result = stats.aggregate(a, b, seed=7)
    assert result.improvement.value == pytest.approx(improvement(a, b))
    assert result.iqm_difference.value == iqm(a - b)
    assert (result.cells, result.seeds) == (3, 6)
    draws = np.random.default_rng(7).integers(6, size=(50, 6))
    loops = {
        "improvement": [improvement(a[:, d], b[:, d]) for d in draws],
        "iqm_difference": [iqm(a[:, d] - b[:, d]) for d in draws],
        "iqm_a": [iqm(a[:, d]) for d in draws],
        "iqm_b": [iqm(b[:, d]) for d in draws],
    }
    for name, values in loops.items():
        assert getattr(result, name)[1:] == pytest.approx(np.quantile(values, [0.025, 0.975])), name


def test_aggregate_is_a_function_of_its_seed():
    a, b = table()
    assert stats.aggregate(a, b, seed=1) == stats.aggregate(a, b, seed=1)
    assert stats.aggregate(a, b, seed=1) != stats.aggregate(a, b, seed=2)


def test_aggregate_takes_seeds_as_blocks():
    # The same eight runs printed in five cells are no more evidence than in one.
    a, b = table(1, 8)
    once, five_times = (
        stats.aggregate(np.tile(a, (k, 1)), np.tile(b, (k, 1)), seed=3) for k in (1, 5)
    )
    for name in ("improvement", "iqm_difference", "iqm_a", "iqm_b"):
        assert getattr(five_times, name) == pytest.approx(getattr(once, name))


def test_aggregate_few_seeds_and_bad_shapes():
    a, b = table(3, 4)
    result = stats.aggregate(a, b, seed=0)
    assert result.iqm_a.value == iqm(a)
    assert all(math.isnan(x) for estimate in result[:4] for x in estimate[1:])
    with pytest.raises(ValueError, match="one shape"):
        stats.aggregate(a, b[:, :3], seed=0)
    with pytest.raises(ValueError, match="finite"):
        stats.aggregate(a, np.where(b > b.mean(), math.nan, b), seed=0)


# -- bold


def column():
    wiggle = np.array([-0.4, 0.3, 0.1, -0.2, 0.2])
    base = np.array([47.0, 48.0, 47.5, 46.8, 47.9])
    return {"worse": base, "tied": base + 5 + wiggle, "best": base + 5.05}


def test_best_set():
    scores = column()
    assert stats.best_set(scores) == {"best", "tied"}
    assert stats.best_set({name: -x for name, x in scores.items()}, higher_is_better=False) == {
        "best",
        "tied",
    }
    assert stats.best_set({"only": scores["worse"]}) == {"only"}
    assert stats.best_set({"a": scores["worse"], "b": scores["worse"]}) == {"a", "b"}
    assert stats.best_set({}) == set()


def test_best_set_is_paired():
    # Scores vary by tens of points between seeds, but within each seed one method is a little
    # better.
    hard = np.array([20.0, 40.0, 60.0, 80.0, 99.0])
    scores = {"a": hard + np.array([0.9, 1.1, 1.0, 1.2, 0.8]), "b": hard}
    assert stats.best_set(scores) == {"a"}


def test_best_set_needs_five_common_seeds():
    scores = column()
    assert stats.best_set({name: x[:4] for name, x in scores.items()}) == set()
    assert stats.best_set({**scores, "short": scores["best"][:4]}) == set()
    assert stats.best_set({**scores, "long": np.append(scores["best"], 50)}) == set()
    assert stats.best_set({**scores, "nan": [math.nan, 1, 2, 3, 4]}) == set()
    seeds = {name: range(5) for name in scores}
    assert stats.best_set(scores, seeds_by_method=seeds) == {"best", "tied"}
    assert stats.best_set(scores, seeds_by_method={**seeds, "tied": [0, 1, 2, 3, 5]}) == set()


# -- power


@pytest.mark.parametrize(
    ("n", "family", "effect"),
    [(5, 1, 1.68), (5, 8, 2.98), (6, 1, 1.43), (6, 8, 2.34), (10, 1, 1.00), (10, 8, 1.43)],
)
def test_detectable_differences(n, family, effect):
    assert stats.detectable(n, family) == pytest.approx(effect, abs=0.005)


@pytest.mark.parametrize(("n", "family"), [(2, 1), (5, 8), (200, 20)])
def test_a_detectable_difference_has_80_percent_power(n, family):
    effect, quantile = stats.detectable(n, family), stats.t_quantile(n, 1 - 0.05 / family)
    power = scipy.stats.nct.sf(quantile, n - 1, effect * math.sqrt(n))
    assert power == pytest.approx(0.8, abs=1e-4)


def test_detectable_differences_are_for_several_seeds():
    assert math.isnan(stats.detectable(1))
    with pytest.raises(ValueError, match="at least one member, got 0"):
        stats.detectable(5, 0)


def test_seeds_needed_are_the_fewest_that_detect_a_difference():
    for difference in (0.3, 1.1, -1.1):
        n = stats.seeds_needed(difference, 1000, family=4)
        assert stats.detectable(n, 4) <= abs(difference) < stats.detectable(n - 1, 4)
    assert stats.seeds_needed(50.0, 1000) == stats.MIN_SEEDS, "fewer are not tested"
    assert stats.seeds_needed(0.01, 1000) is None
    assert stats.seeds_needed(0.0, 1000) is None
