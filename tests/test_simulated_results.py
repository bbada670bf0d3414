"""Intervals, tests and verdicts on simulated results: coverage and errors are as promised."""

import numpy as np
import pytest

from cml_bench.evidence import stats, verdict

# -- intervals and tests: coverage and size are nominal within one point


def test_simulated_t_interval_covers():
    values = np.random.default_rng(0).normal(50, 2, size=(5000, 5))
    intervals = [stats.t_interval(x) for x in values]
    assert np.mean([i.low <= 50 <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.01)


def test_simulated_episode_interval_covers():
    rng = np.random.default_rng(1)
    scores = 50 + 10 * rng.standard_normal((4000, 1, 300)) + rng.standard_normal((4000, 3, 1)) * 0
    errors = [(abs(x.mean() - 50), stats.episode_half_width(x)) for x in scores]
    assert np.mean([error <= half for error, half in errors]) == pytest.approx(0.95, abs=0.01)


def test_simulated_paired_interval_and_p():
    rng = np.random.default_rng(2)
    shared = rng.normal(0, 3, size=(3000, 5))
    a, b = 52 + shared + rng.normal(size=shared.shape), 50 + shared + rng.normal(size=shared.shape)
    gains = [stats.paired(x, y) for x, y in zip(a, b, strict=True)]
    nulls = [stats.paired(x - 2, y) for x, y in zip(a, b, strict=True)]
    assert np.mean([g.low <= 2 <= g.high for g in gains]) == pytest.approx(0.95, abs=0.01)
    assert np.mean([g.p < 0.05 for g in nulls]) == pytest.approx(0.05, abs=0.01)
    # The interval excludes 0 exactly where p is below 0.05.
    assert all((g.p < 0.05) == (abs(g.diff) > g.half) for g in gains)


def test_simulated_sign_flip_size():
    differences = np.random.default_rng(3).normal(size=(5000, 8))
    # The largest attainable size below 5 % with eight seeds is 6 of 128.
    size = np.mean([stats.sign_flip(d).p <= 0.05 for d in differences])
    assert size == pytest.approx(6 / 128, abs=0.01)


def simulated_families(rng, shift, families, size=6, n=5):
    """Whether differences of ``families`` tables get a sign, (families, size).

    The first difference of each table is ``shift`` points.
    """
    differences = rng.normal(0, 1, size=(families, size, n))
    differences[:, 0] += shift
    holm = [stats.holm([stats.paired(d, np.zeros(n)).p for d in table]) for table in differences]
    return np.array([[stats.signs(p, gain=True) != "" for p in table] for table in holm])


def test_simulated_noise_gets_no_sign():
    starred = simulated_families(np.random.default_rng(4), 0, 1800)
    # 1 - (1 - 0.05/6)^6 = 0.049 of the tables have any sign at all.
    assert starred.any(axis=1).mean() == pytest.approx(0.05, abs=0.01)


def test_simulated_five_points_get_a_sign():
    starred = simulated_families(np.random.default_rng(5), 5, 800)
    assert starred[:, 0].mean() > 0.95
    # Without the true gain, five hypotheses are left at 0.05/5 and so on: a sign in at most 5 % of
    # the tables.
    assert starred[:, 1:].any(axis=1).mean() <= 0.06


def test_simulated_bootstrap_covers_with_many_seeds(monkeypatch):
    # A seed shifts all cells alike; resampling each cell's seeds separately would cover about 68 %.
    rng = np.random.default_rng(6)
    monkeypatch.setattr(stats, "RESAMPLES", 150)
    hits = []
    for _ in range(300):
        difference = rng.normal(size=(1, 40)) + 0.5 * rng.normal(size=(4, 40))
        estimate = stats.aggregate(difference, np.zeros((4, 40)), seed=int(rng.integers(999)))
        hits.append(estimate.iqm_difference.low <= 0 <= estimate.iqm_difference.high)
    assert 0.90 <= np.mean(hits) <= 0.97


# -- verdicts


def simulated_levels(seed, count, truth, seed_sd, episode_sd, own_sd=0.2):
    """Verdicts against 50 for ``count`` cells of five seeds and 200 shared test episodes."""
    rng = np.random.default_rng(seed)
    scores = (
        truth
        + seed_sd * rng.normal(size=(count, 5, 1))
        + episode_sd * rng.normal(size=(count, 1, 200))
    )
    scores += own_sd * rng.normal(size=(count, 5, 200))
    return [verdict.level_verdict(cell.mean(axis=1), cell, 50) for cell in scores]


@pytest.mark.parametrize(
    ("seed_sd", "episode_sd"), [(0.5, 0.0), (0.5, 1.0), (0.0, 10.0), (0.1, 5.0)]
)
def test_simulated_level_interval_covers(seed_sd, episode_sd):
    # One part of the variance dominates, as seeds do in the paper's setting of 10,000 episodes.
    levels = simulated_levels(0, 3000, 50, seed_sd, episode_sd)
    assert np.mean([v.low <= 0 <= v.high for v in levels]) == pytest.approx(0.90, abs=0.01)


@pytest.mark.parametrize(("episode_sd", "own_sd", "at_most"), [(4, 0.2, 0.93), (3, 8, 0.97)])
def test_simulated_level_interval_is_never_too_narrow(episode_sd, own_sd, at_most):
    # First both parts are of equal size, then much is particular to one seed on one episode. Both
    # intervals are somewhat too wide.
    levels = simulated_levels(1, 2000, 50, 0.3, episode_sd, own_sd)
    assert 0.90 <= np.mean([v.low <= 0 <= v.high for v in levels]) <= at_most


def test_simulated_level_errors():
    # On the margin itself either firm verdict is wrong, and each comes at most 5 % of the time.
    verdicts = [v.verdict for v in simulated_levels(2, 2500, 51, 0.3, 2)]
    for wrong in ("differs", "reproduced"):
        assert 0.03 <= verdicts.count(wrong) / 2500 <= 0.06
    true = [v.verdict for v in simulated_levels(3, 500, 50, 0.3, 2)]
    assert true.count("reproduced") > 450
    assert true.count("differs") == 0
    far = [v.verdict for v in simulated_levels(4, 500, 55, 0.3, 2)]
    assert far.count("differs") == 500


def test_simulated_few_episodes_cannot_tell():
    verdicts = {v.verdict for v in simulated_levels(5, 300, 50, 0.1, 40)}
    assert "reproduced" not in verdicts


def test_simulated_gain_and_noise():
    rng = np.random.default_rng(6)
    baseline = 50 + rng.normal(size=5)
    for shift, expected in ((5, "gain"), (-5, "loss")):
        cells = baseline + shift + rng.normal(size=(150, 6, 5))
        verdicts = [v for cell in cells for v in verdicts_of_family(cell, baseline)]
        assert verdicts.count(expected) / len(verdicts) > 0.95
    tables = [verdicts_of_family(baseline + rng.normal(size=(6, 5)), baseline) for _ in range(500)]
    assert np.mean([set(table) != {"undecided"} for table in tables]) <= 0.07


def verdicts_of_family(methods, baseline):
    pairs = [stats.paired(values, baseline) for values in methods]
    adjusted = stats.holm([pair.p for pair in pairs])
    return [verdict.gain_verdict(pair, p).verdict for pair, p in zip(pairs, adjusted, strict=True)]
