"""What a table is made of: columns, cells, rows, paired differences. Imports no torch.

Accuracies are in percentage points, regression errors in the unit of the squared target. A cell
without a finished run is a dash, so a table can be made while a study still runs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cml_bench.evidence import stats
from cml_bench.evidence.verdict import CellSummary, GainVerdict, LevelVerdict, gain_verdict
from cml_bench.readings import evaluation_key
from cml_bench.records import Record
from cml_bench.registry import tables
from cml_bench.spec import NormalisedWith
from cml_bench.study.table_kind import TableKind

_TOGETHER: dict[NormalisedWith | None, str] = {
    "task": "all queries",
    "support": "the support set and one query",
    "two_classes": "queries of two classes",
    "one_class": "queries of one class",
}


class Column(NamedTuple):
    """One column of results: a shot, and its group of columns where there are several.

    In a regression table also a number of inner steps and a statistic over episodes. In a table of
    kind ``normalised`` also what queries are normalised with.
    """

    shot: int
    steps: int | None = None
    statistic: str = "mean"
    group: str = ""
    normalised_with: NormalisedWith | None = None

    @property
    def place(self) -> str:
        """``5-shot``, ``Omniglot, 5-shot``, or ``5-shot, queries of one class``."""
        together = _TOGETHER.get(self.normalised_with)
        return ", ".join(filter(None, (self.group, f"{self.shot}-shot", together)))

    def series(self, reading: str, own_steps: int) -> str:
        """The key of a reading's stored results that the column shows.

        ``own_steps`` is the method's number of inner steps.
        """
        steps = own_steps if self.steps is None else self.steps
        return evaluation_key(reading, steps, self.normalised_with or "task")

    @property
    def inner(self) -> str:
        """``1 step`` or ``10 steps`` of the inner loop."""
        return f"{self.steps} step{'s' * (self.steps != 1)}"

    def title(self, kind: str) -> str:
        """The place; in a regression table ``5-shot, 1 step, median``."""
        if not tables.get(kind).by_inner_steps:
            return self.place
        return f"{self.shot}-shot, {self.inner}, {self.statistic}"


@dataclass
class Difference:
    """A row minus its baseline, over the seeds that both have.

    ``per_seed`` has shape (seeds,), ``means`` are the baseline's and the row's over the same seeds.
    ``better`` is the sign of an improvement. ``reason`` says why the difference cannot be tested
    although all runs are there, ``missing`` which runs are not there. ``episode_half`` is the
    half-width from the test episodes, nan for a median; ``family`` the number of differences that
    Holm counts.
    """

    paired: stats.Paired
    per_seed: np.ndarray
    better: int
    testable: bool
    means: tuple[float, float] = (math.nan, math.nan)
    episode_half: float = math.nan
    holm_p: float = math.nan
    family: int = 1
    reason: str = ""
    missing: str = ""

    @property
    def wins(self) -> bool:
        """Whether the mean difference is an improvement."""
        return self.paired.diff * self.better > 0

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        return abs(self.paired.diff) > self.paired.half

    @property
    def detectable(self) -> float:
        """The true difference that would be found with 80 % power, given n, the spread over seeds
        and the smallest p of the family under Holm; nan without a p.
        """
        return self.paired.detectable(self.family)

    @property
    def lacks_runs(self) -> bool:
        """Whether runs that are missing are the one reason for no test."""
        return not self.testable and not self.reason and self.paired.n >= stats.MIN_SEEDS

    @property
    def verdict(self) -> str:
        """Signs, or why there are none."""
        if self.reason:
            return self.reason
        if self.lacks_runs:
            return f"{self.missing}: not tested"
        if not self.testable:
            return stats.not_tested(self.paired.n)
        return stats.signs(self.holm_p, self.wins) or "not significant"

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
    """One result: the runs of a row in a column, the value of each, and what follows from them.

    ``runs`` are the ids that it is to have, ``records`` those that are there by their seed, and
    ``names`` what each seed is called. Seeds that finished have a value, and scores of shape
    (episodes,). ``summary`` is None while there is no record. ``base`` is the cell of the baseline,
    and ``untested`` says why the two are not tested, whatever the runs.

    In a table over class splits, a split takes the place of a seed: its number is its place in the
    experiment's list. ``fixed`` is then the same result on one class split, over several seeds.
    """

    runs: tuple[str, ...]
    records: dict[int, Record]
    names: dict[int, str] = field(default_factory=dict)
    values: dict[int, float] = field(default_factory=dict)
    scores: dict[int, np.ndarray] = field(default_factory=dict)
    summary: CellSummary | None = None
    episode_half: float = math.nan
    base: "Cell | None" = None
    untested: str = ""
    fixed: "Cell | None" = None
    difference: Difference | None = None
    bold: bool = False

    @property
    def wanted(self) -> int:
        """How many runs the cell is to have."""
        return len(self.runs)

    @property
    def mean(self) -> float:
        """The mean over finished runs; nan without any."""
        return self.summary.mean if self.summary else math.nan

    @property
    def complete(self) -> bool:
        """Whether every run is there and finished, and there are enough of them to test."""
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
    shown: bool = True  # False: only its paired differences are shown
    untrained: bool = False  # whether it is the row of an untrained network
    floor: str | None = None  # label of the row of its untrained network


@dataclass
class Raise:
    """A row minus its untrained network in one column; ``fixed``: on one class split, over its
    seeds.
    """

    row: TableRow
    column: Column
    fixed: bool
    difference: Difference

    @property
    def label(self) -> str:
        """The row's, as the table has it."""
        return f"{self.row.label}, one split" if self.fixed else self.row.label


@dataclass
class Beside:
    """A cell beside the paper's number and its half-width.

    ``paper_gain`` is the paper's number minus that of its baseline. ``reason`` says why there is no
    verdict at all, ``gain_reason`` why there is one on the level and none on the gain. ``assumed``:
    what the paper does not state, where, and what ours is. ``repacked``: that our data is a
    repacked copy of the published one.
    """

    label: str
    column: Column
    cell: Cell
    paper: float
    paper_half: float | None
    plus_minus: str
    copied: str
    paper_gain: float | None
    reason: str = ""
    level: LevelVerdict | None = None
    gain: GainVerdict | None = None
    gain_reason: str = ""
    assumed: list[str] = field(default_factory=list)
    repacked: str = ""

    @property
    def outcome(self) -> str:
        """The verdict on the level, or why there is none."""
        return self.level.verdict if self.level else self.reason

    @property
    def told(self) -> str:
        """The outcome, with what must be known of the data behind a verdict."""
        return f"{self.outcome} ({self.repacked})" if self.level and self.repacked else self.outcome


@dataclass
class Table:
    """A table with everything computed; see ``report/forms.py`` for its forms."""

    key: str
    kind: str
    title: str
    caption: str
    columns: list[Column]
    rows: list[TableRow]
    findings: list[str] = field(default_factory=list)  # what holds, and what limits it
    checks: list[str] = field(default_factory=list)  # how it was tested
    beside: list[Beside] = field(default_factory=list)
    raises: list[Raise] = field(default_factory=list)  # trained minus untrained

    @property
    def rules(self) -> type[TableKind]:
        """The class of its kind."""
        return tables.get(self.kind)

    @property
    def better(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return self.rules.better

    @property
    def unit(self) -> str:
        """The unit of a difference."""
        return self.rules.unit

    @property
    def replicates(self) -> str:
        """What a mean is taken over."""
        return "class splits" if self.rules.over_splits else "seeds"

    @property
    def compares(self) -> bool:
        """Whether differences are shown. A table of cost leaves them to the table of accuracies
        that has the same rows.
        """
        return self.rules.compares(self)

    @property
    def results(self) -> list[TableRow]:
        """The rows that are shown with their results."""
        return [row for row in self.rows if row.shown]

    @property
    def notes(self) -> list[str]:
        """All sentences below the table: first what holds, then how it was tested."""
        return self.findings + self.checks

    def cells(self) -> Iterator[tuple[TableRow, Column, Cell]]:
        """Every cell with its row and column."""
        for row in self.rows:
            for column, cell in row.cells.items():
                yield row, column, cell

    def all_cells(self) -> Iterator[tuple[TableRow, Column, Cell]]:
        """Every cell, followed by the one on one class split where it has such a cell."""
        for row, column, cell in self.cells():
            yield row, column, cell
            if cell.fixed:
                yield row, column, cell.fixed

    def records(self) -> list[Record]:
        """The record of every run that is there; one of several cells is there as often."""
        return [record for _, _, cell in self.all_cells() for record in cell.records.values()]

    def place(self, column: Column) -> str:
        """The title of a column of means, where nothing but means is shown."""
        return column.title(self.kind).removesuffix(", mean")

    def compared(self, row: TableRow) -> str:
        """A compared row's label; with its baseline where the label is compared with several."""
        alike = [other for other in self.rows if other.label == row.label and other.against]
        return row.label if len(alike) < 2 else f"{row.label} − {row.against}"

    def differences(self) -> Iterator[tuple[TableRow, Column, Difference]]:
        """Every paired difference of means that is shown, with its row and column."""
        for row, column, cell in self.cells() if self.compares else ():
            if cell.difference and column.statistic == "mean":
                yield row, column, cell.difference


def mixture(cells: Sequence[Cell]) -> str:
    """Why cells cannot be compared with each other; empty: they can. The reasons are other data
    under one name, and another precision.
    """
    hashes: dict[str, set[str]] = {}
    precisions = set()
    for record in (record for cell in cells for record in cell.records.values()):
        hashes.setdefault(record.spec.data_id, set()).add(record.data_sha256)
        precisions.add(record.spec.precision)
    if any(len(of_one_name) > 1 for of_one_name in hashes.values()):
        return "runs on different data: not tested"
    return "runs of different precision: not tested" if len(precisions) > 1 else ""
