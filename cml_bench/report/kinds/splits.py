"""``splits``: accuracies of nodes, with intervals over class splits of a graph."""

from typing import TYPE_CHECKING

from cml_bench.registry import tables
from cml_bench.study.table_kind import TableKind

if TYPE_CHECKING:
    from cml_bench.evidence.table import Table
    from cml_bench.report.grids import Grid


@tables.register("splits")
class Splits(TableKind):
    """As Table 3 of the paper."""

    over_splits = True

    @staticmethod
    def grid(table: "Table") -> "Grid":
        """As accuracies. A second line under a row has the same on one class split, over seeds."""
        from cml_bench.report import grids

        grid = grids.by_row(table)
        rows: list[list[str]] = []
        bold: set[tuple[int, int]] = set()
        for i, (row, line) in enumerate(zip(table.results, grid.rows, strict=True)):
            bold |= {(len(rows), j) for k, j in grid.bold if k == i}
            rows.append(line)
            cells = [row.cells[column].fixed for column in table.columns]
            if any(cells):
                texts = [grids.cell_text(c, table.kind) if c else grids.DASH for c in cells]
                rows.append([f"{row.label}, one split", grids.finished(cells), *texts])
        return grids.Grid(table.title, grid.header, rows, bold)
