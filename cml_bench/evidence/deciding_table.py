"""Claims that are decided by rows of tables. Imports no torch."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from cml_bench.errors import UserError, unknown
from cml_bench.evidence.build import build
from cml_bench.evidence.deciding import (
    AS_CLAIMED,
    CONTRARY,
    NOT_RUN,
    NOT_TESTED,
    Cell,
    Deciding,
    Judged,
    Source,
    tested,
)
from cml_bench.evidence.table import Column, Difference, Table, TableRow
from cml_bench.evidence.verdict import GAIN, LOSS, MARGIN, UNDECIDED
from cml_bench.records import Record, Store
from cml_bench.registry import tables
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import Row
from cml_bench.study.plan import Plan
from cml_bench.study.protocols import flat
from cml_bench.study.schema import Key
from cml_bench.study.selection import swept_options
from cml_bench.texts import Line

_ALIKE = ("data", "way", "shot", "query", "steps", "precision")  # of a pair of `over`
_OF_DIFFERENCE = {GAIN: AS_CLAIMED, LOSS: CONTRARY, UNDECIDED: UNDECIDED}


class OfTable(Deciding):
    """Reads rows of a table, each against its baseline."""

    table: Key
    rows: tuple[Line, ...] = Field(min_length=1, description="labels of rows")
    over: tuple[Line, ...] = Field(
        (),
        description=(
            "for each row the label of another one that it is set against, of a meta-learner;"
            " empty: the baselines of the table"
        ),
    )
    columns: tuple[Line, ...] = Field(
        (), description="titles such as `1-shot` or `5-shot, 1 step`; empty: all means"
    )

    def there(self, plan: Plan) -> bool:
        """See :class:`Deciding`."""
        return self.table in (plan.whole or plan).tables

    def check(self, plan: Plan, where: str) -> None:
        """See :class:`Deciding`."""
        whole = plan.whole or plan  # it has the rows of what is not selected yet, too
        if self.table not in whole.tables:
            raise unknown(f"table (in {where})", self.table, whole.tables)
        rows = whole.tables[self.table].rows
        for label in (*self.rows, *self.over):
            if label not in {row.label for row in rows}:
                raise unknown(
                    f"row of table {self.table} (in {where})", label, {row.label for row in rows}
                )
        for label in () if self.over else self.rows:
            if not any(row.against for row in rows if row.label == label):
                raise UserError(
                    f"{where}: row {label!r} of table {self.table} is compared with nothing: name"
                    " the row to compare it with under `over`."
                )
        if self.over and len(self.over) != len(self.rows):
            raise UserError(
                f"{where}: `over` names {len(self.over)} rows for the {len(self.rows)} of `rows`:"
                " name one for each."
            )
        for label in self.over:
            if all(row.reading != "meta" for row in rows if row.label == label):
                raise UserError(
                    f"{where}: row {label!r} of table {self.table} is no meta-learner's: name one"
                    " of a meta-learner under `over`."
                )
        if self.table not in plan.tables:
            return
        titles = [table.place(c) for table in [self._without_runs(plan)] for c in _means(table)]
        for title in self.columns:
            if title not in titles:
                raise unknown(f"column of table {self.table} (in {where})", title, titles)
        if told := self._unlike(plan):
            raise UserError(f"{where}: {told}, so a difference says nothing of the methods alone.")

    def _unlike(self, plan: Plan) -> str:
        """What the runs of a pair of ``over`` differ in, beside the method, the co-learner and
        options that one of the two alone has, or that were selected for it; empty: nothing.
        """
        table, specs = self._without_runs(plan), plan.specs
        keys = {row.label: row.run for row in plan.tables[self.table].rows}
        for row, column in self._places(table) if self.over else ():
            cell = row.cells[column]
            selected = [keys.get(label or "") for label in (row.label, row.against)]
            swept = {name for key in selected for name in swept_options(plan, key)}
            for a, b in zip(cell.runs, cell.base.runs if cell.base else (), strict=False):
                mine, other = _keys(specs[a]), _keys(specs[b])
                for name in [n for n in mine if n not in swept]:
                    if mine[name] != other.get(name, mine[name]):
                        return f"{row.label} and {row.against} differ in {name}"
        return ""

    def _without_runs(self, plan: Plan) -> Table:
        return build(self._compared(plan), Store("nowhere"), self.table)

    def _compared(self, plan: Plan) -> Plan:
        """The plan whose table has the pairs of ``over`` alone; without ``over``, as it is."""
        if not self.over:
            return plan
        table = plan.tables[self.table]
        rows: list[Row] = []
        absent = self._absent(plan)
        for label, other in zip(self.rows, self.over, strict=True):
            if {label, other} & absent:
                continue
            row = next(row for row in table.rows if row.label == label)
            base = next(r for r in table.rows if r.label == other and r.reading == "meta")
            rows += [
                base.model_copy(update={"against": None}),
                row.model_copy(update={"against": base.run}),
            ]
        shown = table.model_copy(update={"rows": tuple(rows), "paper": ""})
        return plan.model_copy(update={"tables": {**plan.tables, self.table: shown}})

    def _absent(self, plan: Plan) -> set[str]:
        """Labels of rows that are not there, since nothing is selected for them yet."""
        rows = plan.tables[self.table].rows if self.table in plan.tables else ()
        return {*self.rows, *self.over} - {row.label for row in rows}

    def cells(self, source: Source) -> list[Cell]:
        """See :class:`Deciding`."""
        absent = self._absent(source.plan)
        pairs = zip(self.rows, self.over or self.rows, strict=True)
        missing = [
            Cell(f"{row}, nothing is selected yet", NOT_RUN)
            for row, other in pairs
            if {row, other} & absent
        ]
        if self.table not in source.plan.tables:
            return missing
        return [*self._cells(self._table(source)), *missing]

    @abstractmethod
    def _cells(self, table: Table) -> list[Cell]:
        """The cells of the rows that are there."""

    def _table(self, source: Source) -> Table:
        if not self.over:
            return source.table(self.table)
        return build(self._compared(source.plan), source.store, self.table)

    def runs(self, plan: Plan) -> list[str]:
        """See :class:`Deciding`."""
        if self.table not in plan.tables:
            return []
        table = self._without_runs(plan)
        ids = []
        for row, column in self._places(table):
            cell = row.cells[column]
            ids += [*cell.runs, *(cell.base.runs if cell.base else ())]
        return list(dict.fromkeys(ids))

    def _places(self, table: Table) -> Iterator[tuple[TableRow, Column]]:
        """The rows that are compared, with each column that is read."""
        for row in table.rows:
            if row.label in self.rows and row.against:
                for column in _means(table):
                    if not self.columns or table.place(column) in self.columns:
                        yield row, column


def _keys(spec: RunSpec) -> dict[str, Any]:
    """What is compared of two runs, by name: what a method alone has is in one of them alone."""
    own = {"cml", "inner_lr", "inner_lr_init"}
    values: dict[str, Any] = {name: getattr(spec, name) for name in _ALIKE}
    values |= flat(spec.protocol.model_dump(mode="json"), "protocol.")
    values |= flat({name: v for name, v in spec.options.items() if name not in own}, "")
    if spec.inner_rate is not None:
        values["inner_lr"] = spec.inner_rate
    if spec.network:
        values |= {"network": spec.network.name, **flat(spec.network.options, "network.")}
    return values


def _means(table: Table) -> list[Column]:
    return [column for column in table.columns if column.statistic == "mean"]


def _name(table: Table, row: TableRow, column: Column) -> str:
    return f"{row.label} − {row.against}, {table.place(column)}"


def _records(row: TableRow, column: Column) -> tuple[Record, ...]:
    cell = row.cells[column]
    return (*cell.records.values(), *(cell.base.records.values() if cell.base else ()))


class _Differences(OfTable):
    """Each cell is a paired difference of the table."""

    def _cells(self, table: Table) -> list[Cell]:
        """See :class:`OfTable`."""
        places = list(self._places(table))
        judged = self._judged([row.cells[column].difference for row, column in places])
        return [
            _cell(table, row, column, one, self._null)
            for (row, column), one in zip(places, judged, strict=True)
        ]

    @property
    def _null(self) -> float:
        """The improvement that a difference is tested against."""
        return 0.0

    def _judged(self, differences: Sequence[Difference | None]) -> list[Judged | None]:
        """Outcome and p of each difference; None where it is not tested."""
        return [
            Judged(_OF_DIFFERENCE[d.outcome], d.holm_p, d.detectable)
            if d and _is_tested(d)
            else None
            for d in differences
        ]


def _is_tested(difference: Difference) -> bool:
    return difference.outcome in _OF_DIFFERENCE


def _cell(table: Table, row: TableRow, column: Column, judged: Judged | None, null: float) -> Cell:
    name, d = _name(table, row, column), row.cells[column].difference
    if d is None:
        return Cell(name, NOT_RUN)
    return Cell(
        name,
        judged.outcome if judged else NOT_TESTED,
        paired=d.paired,
        p=judged.p if judged else math.nan,
        detectable=judged.detectable if judged else math.nan,
        null=d.better * null,
        better=d.better,
        decimals=tables.get(table.kind).decimals,
        unit=table.unit.partition(";")[0],
        reason="" if judged else d.outcome,
        records=_records(row, column),
    )


class Gain(_Differences):
    """Each row is better than its baseline, in each column.

    The outcome of a cell is that of its difference in the table: a gain (as claimed) or a loss (the
    contrary) at 5 % after Holm's correction in the table's family. With ``over``, the family is
    that of the pairs.
    """

    kind: Literal["gain"]


class NoWorse(_Differences):
    """Each row is worse than its baseline by less than a margin, or better, in each column.

    A cell's difference is tested against ``-margin`` instead of 0, with Holm's correction over the
    cells that are read.
    """

    kind: Literal["no_worse"]
    margin: float = Field(MARGIN, gt=0, description="in the unit of the table")

    @property
    def _null(self) -> float:
        return -self.margin

    def _judged(self, differences: Sequence[Difference | None]) -> list[Judged | None]:
        return tested(
            [
                d.better * d.per_seed - self._null if d and _is_tested(d) else None
                for d in differences
            ],
            sign=1,
        )


class NoCost(OfTable):
    """At test each row has as many parameters as its baseline and needs as many FLOPs a task, or
    fewer.

    These are counted, not sampled, so one run of each decides. The FLOPs are those of adapting and
    of the queries.
    """

    kind: Literal["no_cost"]

    def _cells(self, table: Table) -> list[Cell]:
        """See :class:`OfTable`."""
        return [_cost(table, row, column) for row, column in self._places(table)]


def _cost(table: Table, row: TableRow, column: Column) -> Cell:
    name, mine, base = _name(table, row, column), row.cells[column], row.cells[column].base
    shared = sorted(mine.records.keys() & base.records.keys()) if base else []
    if base is None or not shared:
        return Cell(name, NOT_RUN)
    pairs = [
        [_at_test(mine.records[s], row.reading), _at_test(base.records[s], "meta")] for s in shared
    ]
    worst = np.max([np.divide(a, b) for a, b in pairs], axis=0)
    said = f"parameters ×{worst[0]:.4g}, FLOPs ×{worst[1]:.4g}"
    told = not np.isnan(worst).any()
    return Cell(
        name,
        NOT_TESTED if not told else CONTRARY if (worst > 1).any() else AS_CLAIMED,
        reason="" if told else "the records do not say the FLOPs",
        said=said,
        records=_records(row, column),
    )


def _at_test(record: Record, reading: str) -> tuple[float, float]:
    """Parameters, and FLOPs of one task, at test."""
    parameters = record.parameters.test if reading == "meta" else record.parameters.co_at_test
    return parameters, record.flops.adaptation + record.flops.inference
