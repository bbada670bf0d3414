"""What a table is made of: columns, cells, rows, paired differences. Imports no torch.

Accuracies are in percentage points, regression errors in the unit of the squared target. A cell
that has no finished run is shown as a dash; nothing waits for the rest of a study.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cml_bench.evidence import stats
from cml_bench.evidence.verdict import CellSummary, GainVerdict, LevelVerdict, gain_verdict
from cml_bench.records import Record


class Column(NamedTuple):
    """One column of results: a shot (of a group) and, for regression, a number of inner steps and a
    statistic.
    """

    shot: int
    steps: int | None = None
    statistic: str = "mean"
    group: str = ""

    @property
    def place(self) -> str:
        """``5-shot``, or ``Omniglot, 5-shot``."""
        return f"{self.group}, {self.shot}-shot" if self.group else f"{self.shot}-shot"

    def title(self, kind: str) -> str:
        """The place, or for regression ``5-shot, 1 step, median``."""
        if kind != "regression":
            return self.place
        return f"{self.shot}-shot, {self.steps} step{'s' * (self.steps != 1)}, {self.statistic}"


@dataclass
class Difference:
    """A row minus its baseline over the seeds that both have. ``better``: the sign of an
    improvement.
    """

    paired: stats.Paired
    per_seed: np.ndarray
    better: int
    testable: bool
    holm_p: float = math.nan
    reason: str = ""  # why it cannot be tested, if not for want of runs

    @property
    def wins(self) -> bool:
        """Whether the mean difference is an improvement."""
        return self.paired.diff * self.better > 0

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        return abs(self.paired.diff) > self.paired.half

    @property
    def verdict(self) -> str:
        """Stars, or why there are none."""
        if self.reason:
            return self.reason
        if not self.testable:
            return (
                stats.not_tested(self.paired.n)
                if self.paired.n < stats.MIN_SEEDS
                else "runs missing: not tested"
            )
        return stats.stars(self.holm_p) or "not significant"

    @property
    def outcome(self) -> str:
        """``gain``, ``loss`` or ``undecided``, or why it is not tested."""
        if self.reason or not self.testable:
            return self.verdict
        return gain_verdict(
            self.paired._replace(diff=self.paired.diff * self.better), self.holm_p
        ).verdict


@dataclass
class Cell:
    """One result: seeds that ran, the value of each, and what follows from them. ``base``: its
    baseline's cell.

    In a table over class splits what is said of seeds holds of splits, by their place in the
    experiment's list.
    """

    runs: tuple[str, ...]
    records: dict[int, Record]
    values: dict[int, float] = field(default_factory=dict)  # finished seeds only
    scores: dict[int, np.ndarray] = field(default_factory=dict)  # of each of them, per episode
    summary: CellSummary | None = None
    episode_half: float = math.nan
    base: "Cell | None" = None
    fixed: "Cell | None" = (
        None  # the same on one class split with several seeds, where this one is over splits
    )
    difference: Difference | None = None
    bold: bool = False

    @property
    def wanted(self) -> int:
        """How many runs it is to have."""
        return len(self.runs)

    @property
    def complete(self) -> bool:
        """Whether every run is there and ended well, and they are enough to test."""
        return (
            self.summary is not None and self.summary.testable and len(self.records) == self.wanted
        )


@dataclass
class TableRow:
    """A row's label and its cells by column."""

    label: str
    reading: str
    against: str | None
    cells: dict[Column, Cell]
    shown: bool = True  # no: for its paired differences only


@dataclass
class Beside:
    """A cell beside the published one; with ``reason`` there is no verdict. ``published_gain``:
    over its baseline.
    """

    label: str
    column: Column
    cell: Cell
    published: float
    published_half: float | None
    plus_minus: str
    copied: str
    published_gain: float | None
    reason: str = ""
    level: LevelVerdict | None = None
    gain: GainVerdict | None = None
    gain_reason: str = ""  # why there is no verdict on the gain, where there is one on the level


@dataclass
class Table:
    """A table with everything computed; see ``report/forms.py`` for its forms."""

    key: str
    kind: str
    title: str
    caption: str
    columns: list[Column]
    rows: list[TableRow]
    notes: list[str]
    published: list[Beside] = field(default_factory=list)

    @property
    def better(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return -1 if self.kind == "regression" else 1

    @property
    def compares(self) -> bool:
        """Whether differences are told: not in a table of cost whose comparisons are those of
        another table.
        """
        return self.kind != "cost" or len(self.results) < len(self.rows)

    @property
    def results(self) -> list[TableRow]:
        """The rows that are shown with their results."""
        return [row for row in self.rows if row.shown]

    def cells(self) -> Iterator[tuple[TableRow, Column, Cell]]:
        """Every cell with its row and column."""
        for row in self.rows:
            for column in row.cells:
                yield row, column, row.cells[column]

    def compared(self, row: TableRow) -> str:
        """A compared row's label; with its baseline where rows of one label are compared with
        several.
        """
        alike = [other for other in self.rows if other.label == row.label and other.against]
        return row.label if len(alike) < 2 else f"{row.label} − {row.against}"

    def differences(self) -> Iterator[tuple[TableRow, Column, Difference]]:
        """Every paired difference of means with its row and column; none where another table tells
        them.
        """
        for row, column, cell in self.cells() if self.compares else ():
            if cell.difference and column.statistic == "mean":
                yield row, column, cell.difference
