"""``cost``: parameters, and time and FLOPs of training relative to the baseline's."""

import math
from typing import TYPE_CHECKING

from cml_bench.registry import tables
from cml_bench.study.table_kind import TableKind

if TYPE_CHECKING:
    from cml_bench.evidence.table import Table
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
        from cml_bench.report import grids

        by_row = grids.costs(table)
        header = [
            "",
            "parameters, training",
            "parameters, test",
            *(column.title(table.kind) for column in table.columns),
            "training FLOPs",
            "training time",
        ]
        rows = []
        for row in table.results:
            counts, relative = [grids.DASH] * 2, [grids.DASH] * 2
            if cost := by_row.get(row.label):
                counts = [f"{cost['train']:,}", f"{cost['test']:,}"]
                ratios = (cost["relative_flops"], cost["relative_seconds"])
                relative = [
                    grids.DASH if math.isnan(ratio) else f"{ratio:.2f}×" for ratio in ratios
                ]
            texts = [grids.cell_text(row.cells[column], table.kind) for column in table.columns]
            rows.append([row.label, *counts, *texts, *relative])
        return grids.Grid(table.title, header, rows, grids.bold(table, 3))
