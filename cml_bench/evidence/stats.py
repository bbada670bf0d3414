"""Intervals, paired tests and aggregates over training seeds.

The training seed is the unit of replication, never the episode: every test here works on one number
per seed. What the finite list of test episodes adds is a number of its own
(:func:`episode_half_width`).

All functions are pure and keep the unit of their input (percentage points in, percentage points
out). Input that is not finite raises ``ValueError``: the caller leaves out diverged runs first
(``verdict.cell_summary``).
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_SEEDS = 5
"""Fewest seeds for which a sign, a bold figure or a verdict is given."""

MAX_SIGN_FLIPS = 20
"""Largest number of seeds whose sign flips are enumerated (2^19 sums, 4 MB)."""

RESAMPLES = 2000
"""Number of bootstrap samples of an aggregate."""

_LEVEL = 0.95

UP, DOWN = "▲", "▼"
"""The signs of a gain and of a loss, everywhere."""

SIGNIFICANCE = (0.05, 0.01, 0.001)
"""Adjusted p below which a difference has one sign, two, three."""

POWER = 0.8
"""The probability with which a difference that is called detectable is found."""

# Equal means over the same thousands of episodes agree to about 1e-15 of their size, and no
# accuracy is measured to twelve digits. So a smaller spread is rounding, not variance.
_ROUNDING = 1e-12


class Interval(NamedTuple):
    """A mean over ``n`` seeds with its half-width, both in the unit of the values."""

    mean: float
    half: float
    n: int

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half


class Paired(NamedTuple):
    """Mean paired difference (method minus baseline) over ``n`` seeds, half-width, two-sided p."""

    diff: float
    half: float
    p: float
    n: int

    @property
    def low(self) -> float:
        return self.diff - self.half

    @property
    def high(self) -> float:
        return self.diff + self.half

    def detectable(self, family: int) -> float:
        """The true difference that ``n`` seeds with this spread find, as in :func:`detectable`; nan
        without a p.
        """
        if math.isnan(self.p):
            return math.nan
        deviation = self.half * math.sqrt(self.n) / t_quantile(self.n, 0.95)
        return detectable(self.n, family) * deviation


class SignFlip(NamedTuple):
    """Exact sign-flip p and the smallest value it can take with this many seeds."""

    p: float
    smallest: float


class Estimate(NamedTuple):
    """A point estimate with the ends of its bootstrap interval (nan below ``MIN_SEEDS`` seeds)."""

    value: float
    low: float
    high: float


class Aggregate(NamedTuple):
    """A whole table in four numbers; see :func:`aggregate`."""

    improvement: Estimate
    iqm_difference: Estimate
    iqm_a: Estimate
    iqm_b: Estimate
    cells: int
    seeds: int


def not_tested(n: int) -> str:
    """The text printed in place of a sign or verdict where ``n`` is below ``MIN_SEEDS``."""
    return f"n = {n}: shown, not tested"


def signs(holm_p: float, gain: bool) -> str:
    """``▲``, ``▲▲`` or ``▲▲▲`` for a gain with a Holm-adjusted p below .05, .01 or .001, as many
    ``▼`` for a loss; else nothing.
    """
    return (UP if gain else DOWN) * sum(holm_p < threshold for threshold in SIGNIFICANCE)


def p_text(p: float) -> str:
    """A p as it is printed: ``0.0312``; ``<0.001`` for all below that."""
    return "<0.001" if p < 0.001 else f"{p:.3g}"


def p_equals(p: float) -> str:
    """``p = 0.0312``, or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p_text(p)}"


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student-t interval of a mean over seeds.

    ``values`` has shape (seeds,). With one seed the half-width is nan, with none the mean is, too.
    """
    x = _finite(values, 1, "values")
    if x.size == 0:
        return Interval(math.nan, math.nan, 0)
    if x.size == 1:
        return Interval(float(x[0]), math.nan, 1)
    return Interval(float(x.mean()), t_quantile(x.size, level) * _standard_error(x), x.size)


def t_quantile(n: int, level: float) -> float:
    """Two-sided Student quantile with ``n - 1`` degrees of freedom, ``n >= 2``."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    # Imported here: training reads a run's status alone, and is not to load scipy for it.
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + level) / 2))


def episode_half_width(scores: ArrayLike) -> float:
    """95 % half-width from the finite list of test episodes, 1.96 s / sqrt(T).

    ``scores`` has shape (seeds, T). They are averaged over seeds, and s is the standard deviation
    of these averages over episodes. All seeds share the test episodes, so the half-width does not
    shrink as seeds are added. It is nan for T = 1.
    """
    return 1.96 * episode_standard_error(scores)


def episode_standard_error(scores: ArrayLike) -> float:
    """s / sqrt(T) of the averages over seeds of ``scores``, shape (seeds, T); nan for T = 1."""
    x = _finite(scores, 2, "scores")
    if x.size == 0:
        raise ValueError(f"scores must hold at least one seed and one episode, got shape {x.shape}")
    return math.nan if x.shape[1] == 1 else _standard_error(x.mean(axis=0))


def paired(a: ArrayLike, b: ArrayLike) -> Paired:
    """Paired 95 % t interval and two-sided p of ``a - b``.

    ``a`` and ``b`` have shape (seeds,); entry i of both is from the same seed. With one seed,
    half-width and p are nan. Where all differences are equal (to twelve digits of the scores) there
    is no spread to test against. If they are all 0, the half-width is 0 and p is 1. The same other
    difference in every seed is far likelier a copied record than evidence: half-width and p are
    nan, so that it never has a sign.
    """
    x, y = _finite(a, 1, "a"), _finite(b, 1, "b")
    if x.shape != y.shape:
        raise ValueError(f"a and b are not paired: {x.size} and {y.size} seeds")
    difference = x - y
    diff, half, n = t_interval(difference)
    if n < 2:
        return Paired(diff, half, math.nan, n)
    rounding = _ROUNDING * max(np.abs(x).max(), np.abs(y).max())
    if np.abs(difference).max() <= rounding:
        return Paired(diff, 0.0, 1.0, n)
    if np.ptp(difference) <= rounding:
        return Paired(diff, math.nan, math.nan, n)
    from scipy.special import stdtr

    t = diff / _standard_error(difference)
    return Paired(diff, half, float(2 * stdtr(n - 1, -abs(t))), n)


def detectable(n: int, family: int = 1) -> float:
    """The true paired difference that ``n`` seeds find with probability ``POWER``, in standard
    deviations of the difference over seeds.

    Found means that p is below 0.05 / ``family``, which Holm asks of the smallest p of a family. p
    is that of :func:`paired`, so the power follows from the noncentral t distribution (Cohen 1988,
    Statistical Power Analysis, chapter 2). A find in the wrong direction has a probability below
    1e-6 and is left out. nan below two seeds.
    """
    if family < 1:
        raise ValueError(f"a family has at least one member, got {family}")
    if n < 2:
        return math.nan
    from scipy.special import nctdtrinc

    critical = t_quantile(n, 1 - (1 - _LEVEL) / family)
    return float(nctdtrinc(n - 1, 1 - POWER, critical)) / math.sqrt(n)


def seeds_needed(difference: float, most: int, family: int = 1) -> int | None:
    """The fewest seeds, from ``MIN_SEEDS`` on, that can detect a ``difference``.

    It is given in standard deviations of the difference over seeds; see :func:`detectable`. None
    if ``most`` seeds do not suffice.
    """
    numbers = range(MIN_SEEDS, most + 1)
    place = bisect.bisect_left(numbers, -abs(difference), key=lambda n: -detectable(n, family))
    return numbers[place] if place < len(numbers) else None


def holm(pvalues: ArrayLike, size: int | None = None) -> NDArray[np.float64]:
    """Holm-adjusted p values, in the order given (Holm 1979, Scand. J. Statist. 6, 65-70).

    ``pvalues`` has shape (family,). nan stays nan. The family has ``size`` members; those that are
    nan or not given count as p = 1. Without ``size``, its members are the p that are numbers.
    """
    p = np.array(pvalues, dtype=np.float64)
    if p.ndim != 1 or np.any((p < 0) | (p > 1)):
        raise ValueError("pvalues must be one row of numbers between 0 and 1, or nan")
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    members = order.size if size is None else max(size, order.size)
    scaled = p[order] * np.arange(members, members - order.size, -1)
    p[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return p


def sign_flip(differences: ArrayLike) -> SignFlip:
    """Exact two-sided sign-flip p of the mean of ``differences``, shape (seeds,), at most 20 seeds.

    p is the share of all 2^n sign patterns whose absolute sum is at least the observed one. It is
    at least 2^(1-n): 0.0625 for five seeds. Without any seed it is nan.
    """
    d = _finite(differences, 1, "differences")
    if d.size > MAX_SIGN_FLIPS:
        raise ValueError(f"exact sign flips are for at most {MAX_SIGN_FLIPS} seeds, got {d.size}")
    if d.size == 0:
        return SignFlip(math.nan, math.nan)
    # A pattern and its opposite have the same absolute sum, so the first sign is fixed.
    sums = d[:1]
    for value in d[1:]:
        sums = np.concatenate([sums + value, sums - value])
    # A pattern that ties with the observed one in exact arithmetic must count in spite of rounding.
    reached = np.abs(sums) >= abs(d.sum()) - _ROUNDING * np.abs(d).sum()
    return SignFlip(float(reached.mean()), 2.0 ** (1 - d.size))


def aggregate(a: ArrayLike, b: ArrayLike, *, seed: int) -> Aggregate:
    """Method A against baseline B across a whole table (Agarwal et al. 2021).

    ``a`` and ``b`` have shape (cells, seeds); higher is better, and column j of both is from the
    same training seed. Returned are the probability of improvement (that a run of A beats a run of
    B, over all pairs of seeds within a cell, a tie as one half), the interquartile mean (IQM) of
    the paired differences and the IQM of each method. The difference of the two IQMs is not taken:
    cells of very different level would drop out of either one.

    Intervals are 95 % percentile bootstrap from ``RESAMPLES`` samples, stratified by cell: every
    cell stays, and one draw of seeds serves all cells and both methods, since runs of one seed
    depend on each other. With five seeds such an interval covers clearly less than 95 %, so it
    illustrates and decides nothing. Below ``MIN_SEEDS`` seeds its ends are nan. ``seed`` fixes the
    resampling.
    """
    x, y = _finite(a, 2, "a"), _finite(b, 2, "b")
    if x.shape != y.shape or x.size == 0:
        raise ValueError(f"a and b must have one shape (cells, seeds), got {x.shape} and {y.shape}")
    cells, n = x.shape
    wins = _wins(x, y).mean(axis=0)
    draws = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))

    def estimate(value: float, resampled: NDArray[np.float64]) -> Estimate:
        if n < MIN_SEEDS:
            return Estimate(value, math.nan, math.nan)
        low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return Estimate(value, float(low), float(high))

    def iqm_estimate(table: NDArray[np.float64]) -> Estimate:
        blocks = table[:, draws].transpose(1, 0, 2).reshape(RESAMPLES, cells * n)
        return estimate(float(_iqm(table.reshape(-1))), _iqm(blocks))

    drawn_wins = wins[draws[:, :, None], draws[:, None, :]].mean(axis=(1, 2))
    improvement = estimate(float(wins.mean()), drawn_wins)
    return Aggregate(improvement, iqm_estimate(x - y), iqm_estimate(x), iqm_estimate(y), cells, n)


def best_set(
    scores_by_method: Mapping[str, ArrayLike],
    higher_is_better: bool = True,
    seeds_by_method: Mapping[str, Sequence[int]] | None = None,
) -> set[str]:
    """The methods of one column to print in bold: the best mean and all not shown to be worse.

    ``scores_by_method`` maps a name to its scores, shape (seeds,); entry i is from the same seed
    for all. A method stays if the 95 % interval of its paired difference to the best reaches 0.

    The set is empty if any method has fewer than ``MIN_SEEDS`` seeds, a score that is not finite,
    or other seeds than the rest. Seeds are compared by their number, and by ``seeds_by_method``
    (name -> its seeds) where given.
    """
    columns = {
        name: np.asarray(scores, dtype=np.float64) for name, scores in scores_by_method.items()
    }
    if any(x.ndim != 1 or x.size < MIN_SEEDS or not np.isfinite(x).all() for x in columns.values()):
        return set()
    if not columns or len({x.size for x in columns.values()}) > 1:
        return set()
    if seeds_by_method is not None and len({tuple(seeds_by_method[name]) for name in columns}) > 1:
        return set()
    sign = 1.0 if higher_is_better else -1.0
    best = max(columns, key=lambda name: sign * columns[name].mean())
    pairs = {name: paired(x, columns[best]) for name, x in columns.items()}
    return {name for name, pair in pairs.items() if abs(pair.diff) <= pair.half} | {best}


def _iqm(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interquartile mean along the last axis: floor(n / 4) values are dropped at either end, so
    fewer than four values give the plain mean.
    """
    n = x.shape[-1]
    return np.asarray(np.sort(x, axis=-1)[..., n // 4 : n - n // 4].mean(axis=-1))


def _wins(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where A's seed i beats B's seed j, 0.5 for a tie: (cells, seeds of A, seeds of B)."""
    return (1 + np.sign(x[:, :, None] - y[:, None, :])) / 2


def _standard_error(x: NDArray[np.float64]) -> float:
    return float(x.std(ddof=1)) / math.sqrt(x.size)


def _finite(values: ArrayLike, ndim: int, name: str) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} must be finite: leave out diverged runs first")
    return x
