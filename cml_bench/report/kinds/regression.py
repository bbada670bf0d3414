"""``regression``: squared errors after numbers of inner steps, as means and medians."""

from typing import TYPE_CHECKING

from cml_bench.registry import tables
from cml_bench.study.table_kind import TableKind

if TYPE_CHECKING:
    from cml_bench.evidence.table import Table
    from cml_bench.report.grids import Grid


@tables.register("regression")
class Regression(TableKind):
    """As the sinusoid table of the paper."""

    data_kind = "regression"
    by_inner_steps = True
    better = -1
    decimals = 3
    unit = "squared error; negative is better"
    gain_unit = "reduction of squared error"

    @staticmethod
    def grid(table: "Table") -> "Grid":
        """A line for each shot and row; inner steps and statistic side by side."""
        from cml_bench.report import grids

        blocks = grids.by_shot(table.columns)
        names = {"mean": "MSE", "median": "median"}
        titles = [f"{names[c.statistic]}, {c.inner}" for c in next(iter(blocks.values()))]
        rows: list[list[str]] = []
        bold: set[tuple[int, int]] = set()
        for shot, columns in blocks.items():
            for row in table.results:
                cells = [row.cells[column] for column in columns]
                bold |= {(len(rows), 3 + j) for j, cell in enumerate(cells) if cell.bold}
                texts = [grids.cell_text(cell, table.kind) for cell in cells]
                rows.append([f"{shot}-shot", row.label, grids.finished(cells), *texts])
        return grids.Grid(table.title, ["", "", "n", *titles], rows, bold)
