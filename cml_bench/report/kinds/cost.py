"""``cost``: parameters, and time and FLOPs of training relative to the baseline's."""

import math
from typing import TYPE_CHECKING, NamedTuple

from cml_bench.registry import tables
from cml_bench.study.table_kind import TableKind

if TYPE_CHECKING:
    from cml_bench.evidence.table import Table
    from cml_bench.records import Record
    from cml_bench.report.grids import Grid


@tables.register("cost")
class Cost(TableKind):
    """As Table 5 of the paper."""

    data_kind = None

    @staticmethod
    def compares(table: "Table") -> bool:
        """Not where the table of accuracies with the same rows compares them."""
        return len(table.results) < len(table.rows)

    @staticmethod
    def grid(table: "Table") -> "Grid":
        """A line for each row: parameters, accuracies, and what training costs."""
        from cml_bench.report import grids

        cost = cost_grid(table)
        titles = [column.title(table.kind) for column in table.columns]
        rows = []
        for row, line in zip(table.results, cost.rows, strict=True):
            texts = [grids.cell_text(row.cells[column], table.kind) for column in table.columns]
            rows.append([*line[:3], *texts, *line[3:]])
        header = [*cost.header[:3], *titles, *cost.header[3:]]
        return grids.Grid(table.title, header, rows, grids.bold(table, 3))


def cost_grid(table: "Table") -> "Grid":
    """A line for each row of a table of any kind: parameters, and what training costs relative to
    the row's baseline, or to the first row where it has none.
    """
    from cml_bench.report import grids

    by_row = costs(table)
    header = ["", "parameters, training", "parameters, test", "training FLOPs", "training time"]
    rows = []
    for row in table.results:
        texts = [grids.DASH] * 4
        if cost := by_row.get(row.label):
            ratios = (cost.relative_flops, cost.relative_seconds)
            texts = [f"{cost.train:,}", f"{cost.test:,}"]
            texts += [grids.DASH if math.isnan(ratio) else f"{ratio:.2f}×" for ratio in ratios]
        rows.append([row.label, *texts])
    return grids.Grid("Parameters and cost of training", header, rows, set())


class RowCost(NamedTuple):
    """A row's parameters, and its seconds and FLOPs of training relative to its baseline's."""

    train: int
    test: int
    relative_seconds: float
    relative_flops: float


def costs(table: "Table") -> dict[str, RowCost]:
    """Label of a row -> its cost; without rows that have no run.

    The baseline is the row's own, else the first row. A ratio is taken over the shots and seeds
    that both have. It is nan where there are none, or where the records do not say.
    """
    of_row: dict[str, RowCost] = {}
    for row in table.results:
        records = [r for column in table.columns for r in row.cells[column].records.values()]
        if not records:
            continue
        parameters = records[0].parameters
        at_test = parameters.test if row.reading.startswith("meta") else parameters.co_at_test
        pairs = []
        for column in table.columns:
            mine, base = row.cells[column], row.cells[column].base or table.results[0].cells[column]
            shared = sorted(mine.records.keys() & base.records.keys())
            pairs += [(mine.records[seed], base.records[seed]) for seed in shared]
        of_row[row.label] = RowCost(
            train=parameters.train,
            test=at_test,
            relative_seconds=_ratio([(a.seconds.train, b.seconds.train) for a, b in pairs]),
            relative_flops=_ratio([(_training(a), _training(b)) for a, b in pairs]),
        )
    return of_row


def _training(record: "Record") -> float:
    """FLOPs of a task of each outer step, together."""
    return record.flops.training * record.spec.steps


def _ratio(pairs: list[tuple[float, float]]) -> float:
    base = sum(b for _, b in pairs)
    return sum(a for a, _ in pairs) / base if base else math.nan
