"""Whether a gain changes: a difference of differences, paired by the seeds that both have.

That a gain is significant in one place and not in another does not show that the two gains differ.
So "the gain shrinks" is a statement of its own, and this is its test. Imports no torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cml_bench.evidence import stats
from cml_bench.evidence.table import Cell

SHRINKS, GROWS, FALLS, RISES, NOT_SHOWN = "shrinks", "grows", "falls", "rises", "not shown"


class Change(NamedTuple):
    """A gain in two places, over the ``paired.n`` seeds that both have.

    Gains are in the unit of the scores, and an improvement is positive. ``paired`` is the first
    gain minus the second with its 95 % t interval and p. ``holm_p`` is that p, adjusted within its
    family; nan where nothing is tested. ``family`` is the number of changes in it.
    """

    first: stats.Interval
    second: stats.Interval
    paired: stats.Paired
    holm_p: float = math.nan
    family: int = 1

    @property
    def detectable(self) -> float:
        """The true change that would be found with 80 % power; nan where nothing is tested."""
        return math.nan if math.isnan(self.holm_p) else self.paired.detectable(self.family)

    @property
    def outcome(self) -> str:
        """What the test shows at 5 %, or that there are too few seeds.

        A first gain above 0 ``shrinks`` or ``grows``; a first difference of at most 0 ``falls`` or
        ``rises``. Anything else is ``not shown``.
        """
        if self.paired.n < stats.MIN_SEEDS:
            return stats.not_tested(self.paired.n)
        if not self.holm_p < 0.05:
            return NOT_SHOWN
        less, more = (SHRINKS, GROWS) if self.first.mean > 0 else (FALLS, RISES)
        return less if self.paired.diff > 0 else more


def gains(cell: Cell, better: int) -> dict[int, float]:
    """Seed -> how much better the cell's run is than that of its baseline, for seeds with both."""
    base = cell.base.values if cell.base else {}
    return {
        seed: better * (value - base[seed]) for seed, value in cell.values.items() if seed in base
    }


def change(first: Mapping[int, float], second: Mapping[int, float]) -> Change:
    """The change from the first gain to the second, each given as seed -> gain."""
    seeds = sorted(first.keys() & second.keys())
    a, b = ([of[seed] for seed in seeds] for of in (first, second))
    return Change(stats.t_interval(a), stats.t_interval(b), stats.paired(a, b))


def adjusted(changes: Sequence[Change], families: Iterable[object]) -> list[Change]:
    """The changes with Holm's correction within each family, which is named for each of them.

    A change of too few seeds is not tested, and counts as a member of its family.
    """
    done, named = list(changes), list(families)
    for family in dict.fromkeys(named):
        members = [i for i, name in enumerate(named) if name == family]
        for i, p in zip(members, holm([done[i].paired for i in members]), strict=True):
            done[i] = done[i]._replace(holm_p=p, family=len(members))
    return done


def holm(family: Sequence[stats.Paired | None]) -> list[float]:
    """Holm-adjusted p of each member; nan where there are fewer than ``MIN_SEEDS`` seeds."""
    ps = [math.nan if d is None or d.n < stats.MIN_SEEDS else d.p for d in family]
    return [float(p) for p in stats.holm(ps, len(ps))]
