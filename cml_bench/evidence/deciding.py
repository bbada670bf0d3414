"""By what a claim of the paper is decided: cells, and what each kind must do to read them.

A cell is one number with its own outcome. The kinds are in ``deciding_table.py`` and
``deciding_figure.py``. Imports no torch.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from pydantic import Field

from cml_bench.evidence import stats
from cml_bench.evidence.build import build
from cml_bench.evidence.table import Table
from cml_bench.evidence.verdict import UNDECIDED
from cml_bench.records import Record, Store
from cml_bench.spec import Model
from cml_bench.study.figure_config import Arrays, Wanted
from cml_bench.study.plan import Plan
from cml_bench.study.schema import Key

AS_CLAIMED, CONTRARY = "as claimed", "the contrary"
NOT_TESTED, NOT_RUN = "not tested", "not run"
OUTCOMES = (AS_CLAIMED, CONTRARY, UNDECIDED, NOT_TESTED, NOT_RUN)


@dataclass(frozen=True)
class Cell:
    """One number that a claim is decided by.

    ``outcome`` is one of ``OUTCOMES``; ``reason`` says why it is not tested or not run. ``paired``
    is the difference with its 95 % interval, None where there is none, and ``p`` its p after Holm's
    correction, from the test against ``null``, and ``detectable`` the true difference that the test
    would find with 80 % power. ``better`` is the sign that is claimed, ``said`` the
    number in words where it is no difference of means. ``records`` are those behind it.
    """

    name: str
    outcome: str
    paired: stats.Paired | None = None
    p: float = math.nan
    detectable: float = math.nan
    null: float = 0.0
    better: int = 1
    decimals: int = 2
    unit: str = ""
    reason: str = ""
    said: str = ""
    records: tuple[Record, ...] = ()

    @property
    def strength(self) -> float:
        """The claimed difference in units of its half-width; infinite where that is no number."""
        if self.paired is None or not self.paired.half > 0:
            return math.inf if self.outcome == AS_CLAIMED else -math.inf
        return self.better * self.paired.diff / self.paired.half


@dataclass
class Source:
    """A study's plan, the store of its runs, and the arrays of its figures.

    ``drawn`` gives a figure's arrays and, for each shot, the runs of each of its rows. It raises a
    UserError that says why there are none.
    """

    plan: Plan
    store: Store
    drawn: Callable[[str], tuple[Arrays, Wanted]]
    table: Callable[[str], Table] = field(init=False)

    def __post_init__(self) -> None:
        self.table = cache(lambda key: build(self.plan, self.store, key))


class Deciding(Model):
    """What every kind has: the study that it reads, and a check that all it names is there."""

    study: Key = Field(description="a study of the claims' file")

    @abstractmethod
    def there(self, plan: Plan) -> bool:
        """Whether the plan has the table or figure that is named."""

    @abstractmethod
    def check(self, plan: Plan, where: str) -> None:
        """A UserError that begins with ``where`` if the plan lacks what is named."""

    @abstractmethod
    def runs(self, plan: Plan) -> list[str]:
        """Ids of the runs that it reads."""

    @abstractmethod
    def cells(self, source: Source) -> list[Cell]:
        """Its cells, those that are not run as well."""


class Judged(NamedTuple):
    """The outcome of a test, its p after Holm's correction, and the true difference that the test
    would find with 80 % power.
    """

    outcome: str
    p: float
    detectable: float


def tested(samples: Sequence[np.ndarray | None], sign: int) -> list[Judged | None]:
    """Each sample's mean against 0, each of shape (seeds,); None where there is no sample, or too
    small a one. Holm's family has all of them. ``sign`` is that of what is claimed.
    """
    pairs = [
        stats.paired(x, np.zeros_like(x)) if x is not None and len(x) >= stats.MIN_SEEDS else None
        for x in samples
    ]
    adjusted = stats.holm([pair.p if pair else math.nan for pair in pairs], len(samples))
    return [
        Judged(_outcome(pair.diff * sign, float(p)), float(p), pair.detectable(len(samples)))
        if pair
        else None
        for pair, p in zip(pairs, adjusted, strict=True)
    ]


def _outcome(difference: float, p: float) -> str:
    if not p < 0.05:
        return UNDECIDED
    return AS_CLAIMED if difference > 0 else CONTRARY
