"""What may be said about a cell: whether it may be compared with the paper, and the result.

Only decisions are made here, in percentage points of accuracy unless said otherwise. Each rule
stands here once and serves every table.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from cml_bench.evidence import stats
from cml_bench.records import COLLAPSED, DIVERGED, FINISHED, STATUSES

REPRODUCED, DIFFERS, CANNOT_TELL = "reproduced", "differs", "cannot tell"
GAIN, LOSS, UNDECIDED = "gain", "loss", "undecided"

MARGIN = 1.0
"""Points by which a reproduced level may differ from the paper's."""

NOT_STATED = "setting not stated in the paper"

_UNIT_CHECK = 0.01


@dataclass(frozen=True)
class CellSummary:
    """One cell: mean and 95 % t half-width over its ``finished`` runs out of ``total``.

    ``note`` says which runs are missing, or that there are too few to test; it may be empty.
    """

    mean: float
    half: float
    finished: int
    total: int
    note: str

    @property
    def marked(self) -> bool:
        """Whether runs are missing from the mean, so that the cell needs a mark."""
        return self.finished < self.total

    @property
    def testable(self) -> bool:
        """Whether the cell may carry a sign, bold type or a verdict."""
        return not self.marked and self.finished >= stats.MIN_SEEDS


def cell_summary(values: ArrayLike, statuses: Sequence[str]) -> CellSummary:
    """Summary of one cell from one value and one status per seed, both of shape (seeds,).

    Values of runs that diverged or collapsed are left out, whatever they are (nan included). With
    no finished run, mean and half-width are nan. ``note`` is ``4 of 5 finished (1 diverged)``, or
    says that too few seeds ran to test, or is empty.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.shape != (len(statuses),):
        raise ValueError(f"one status per value, got {len(statuses)} statuses for shape {x.shape}")
    counts = _count(statuses)
    mean, half, n = stats.t_interval(x[[status == FINISHED for status in statuses]])
    if n < x.size:
        note = f"{n} of {x.size} finished ({_name_failures(counts)})"
    else:
        note = stats.not_tested(n) if n < stats.MIN_SEEDS else ""
    return CellSummary(mean, half, n, x.size, note)


@dataclass(frozen=True)
class Setting:
    """What must be the same on both sides. None means that it does not apply (ours), or that the
    paper does not state it (theirs).
    """

    data: str
    split: str | None
    image_size: int | None
    backbone: str | None
    steps: int | None
    way: int
    shot: int


@dataclass(frozen=True)
class Claim:
    """One of our cells beside one of the paper's.

    ``statuses``, ``data_hashes``, ``precisions`` and ``data_differs`` have one entry per seed that
    ran. ``data_differs`` says how a user's own copy is not, or may not be, the published data; an
    entry is empty where the data is the published one. ``other_option`` names an option that the
    paper's row is made with and ours is not. ``not_stated`` names what the paper leaves open and
    the configuration had to assume: it is no reason against a comparison, but no level is judged
    (:func:`level_verdict`). ``gamma_fixed_beforehand``: the configuration named
    gamma before any result was seen, or there is no co-learner.
    """

    protocol: str
    ours: Setting
    paper: Setting
    gamma_fixed_beforehand: bool
    statuses: tuple[str, ...]
    data_hashes: tuple[str, ...]
    precisions: tuple[str, ...]
    other_option: str = ""
    data_differs: tuple[str, ...] = ()
    not_stated: tuple[str, ...] = ()

    @property
    def finished(self) -> int:
        return _count(self.statuses)[FINISHED]


def comparable(claim: Claim) -> str | None:
    """None if the claim may be judged, else ``not comparable: `` and the first reason.

    The reasons in order: an option that is not the paper's; protocol; data, split, image size,
    backbone, steps, way, shot; loss weight gamma; number of finished seeds; diverged or collapsed
    seeds; data that is not the published one; more than one data hash; more than one precision.
    """
    reason = (
        claim.other_option
        or _other_protocol(claim)
        or _other_setting(claim)
        or _other_runs(claim)
        or next((text for text in claim.data_differs if text), None)
        or _not_one("data hash", claim.data_hashes)
        or _not_one("precision", claim.precisions)
    )
    return f"not comparable: {reason}" if reason else None


@dataclass(frozen=True)
class LevelVerdict:
    """Ours minus the paper's number, its 90 % half-width (both in points) and the verdict on it."""

    verdict: str
    difference: float
    half: float
    n: int

    @property
    def low(self) -> float:
        return self.difference - self.half

    @property
    def high(self) -> float:
        return self.difference + self.half


def level_verdict(
    values_per_seed: ArrayLike,
    scores: ArrayLike,
    paper: float,
    not_stated: Sequence[str] = (),
) -> LevelVerdict:
    """Whether our level is the paper's, from the 90 % interval of (ours - paper).

    ``values_per_seed``, shape (seeds,), are the means over episodes of ``scores``, shape (seeds,
    T). ``paper`` is the paper's number, taken as fixed. All are in percentage points. The
    half-width is sqrt((t s / sqrt n)^2 + (1.645 s_ep / sqrt T)^2), with t the two-sided 90 %
    Student quantile, s over seeds and s_ep over episodes after averaging over seeds. Coverage is
    90 % where one term dominates and up to 92 % where the terms are alike. It is higher where seeds
    differ much on single episodes, since both terms hold that part; it is never lower.

    An interval inside +-``MARGIN`` is ``reproduced``, one wholly outside ``differs``, and any other
    ``cannot tell``, so a wide interval is never a reproduction. Below ``MIN_SEEDS`` seeds the
    verdict says so instead. Where settings are ``not_stated`` in the paper, it names them instead:
    the difference is shown, but whether it is one of the method or of the setting cannot be known.

    Raises ``ValueError`` if values and scores disagree, as they do when their units are mixed.
    """
    mean, half_seeds, n = stats.t_interval(values_per_seed, level=0.90)
    episode_error = stats.episode_standard_error(scores)
    means = np.asarray(scores, dtype=np.float64).mean(axis=1)
    if means.shape != (n,) or np.abs(means - np.asarray(values_per_seed)).max() > _UNIT_CHECK:
        raise ValueError("values_per_seed are not the means of scores: other seeds or another unit")
    if not math.isfinite(paper):
        raise ValueError(f"need a finite number of the paper, got {paper}")
    half = math.hypot(half_seeds, 1.645 * episode_error)
    difference = mean - paper
    if not_stated:
        verdict = f"{NOT_STATED}: {'; '.join(not_stated)}"
    else:
        verdict = _judge_level(difference, half, n)
    return LevelVerdict(verdict, difference, half, n)


@dataclass(frozen=True)
class GainVerdict:
    """The verdict on a paired difference, its 95 % interval, and whether that holds the paper's."""

    verdict: str
    low: float
    high: float
    paper_inside: bool | None


def gain_verdict(
    paired: stats.Paired, holm_p: float, paper_gain: float | None = None
) -> GainVerdict:
    """Whether a method gains on its baseline: ``gain`` or ``loss`` at Holm p < 0.05, else
    ``undecided``.

    ``paired`` is method minus baseline of a score where higher is better (negate errors first).
    ``holm_p`` is its p, adjusted within the table's family. The interval is the unadjusted one, so
    it may leave out 0 where the verdict is ``undecided``. ``paper_inside`` is None without a gain
    of the paper or without an interval. Below ``MIN_SEEDS`` seeds the verdict says so instead.
    """
    if paired.n < stats.MIN_SEEDS:
        verdict = stats.not_tested(paired.n)
    elif holm_p < 0.05:
        verdict = GAIN if paired.diff > 0 else LOSS
    else:
        verdict = UNDECIDED
    inside = None
    if paper_gain is not None and math.isfinite(paired.half):
        inside = paired.low <= paper_gain <= paired.high
    return GainVerdict(verdict, paired.low, paired.high, inside)


def _judge_level(difference: float, half: float, n: int) -> str:
    if n < stats.MIN_SEEDS:
        return stats.not_tested(n)
    if abs(difference) + half <= MARGIN:
        return REPRODUCED
    # A half-width of nan (a single episode) fails both comparisons and ends as "cannot tell".
    return DIFFERS if abs(difference) - half > MARGIN else CANNOT_TELL


def _other_protocol(claim: Claim) -> str | None:
    return None if claim.protocol == "official" else f"not the official protocol: {claim.protocol}"


def _other_setting(claim: Claim) -> str | None:
    for field in fields(Setting):
        ours, paper = getattr(claim.ours, field.name), getattr(claim.paper, field.name)
        if ours != paper:
            stated = "not stated in the paper" if paper is None else f"the paper {paper}"
            return f"{field.name.replace('_', ' ')} {ours}, {stated}"
    return None


def _other_runs(claim: Claim) -> str | None:
    if not claim.gamma_fixed_beforehand:
        return "gamma was not fixed beforehand"
    if claim.finished < stats.MIN_SEEDS:
        return f"{claim.finished} finished seeds, {stats.MIN_SEEDS} needed"
    failures = _name_failures(_count(claim.statuses))
    return f"{failures} of {len(claim.statuses)} seeds" if failures else None


def _not_one(what: str, entries: Sequence[str]) -> str | None:
    different = sorted(set(entries))
    if not different:
        return f"no {what} recorded"
    shown = ", ".join(entry[:12] for entry in different)
    return f"more than one {what}: {shown}" if len(different) > 1 else None


def _count(statuses: Sequence[str]) -> Counter[str]:
    unknown = set(statuses) - set(STATUSES)
    if unknown:
        raise ValueError(f"unknown status {sorted(unknown)}, expected one of {STATUSES}")
    return Counter(statuses)


def _name_failures(counts: Counter[str]) -> str:
    return ", ".join(
        f"{counts[status]} {status}" for status in (DIVERGED, COLLAPSED) if counts[status]
    )
