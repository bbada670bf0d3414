"""``accuracy``: accuracies in percent, a column for each number of shots."""

from typing import TYPE_CHECKING

from cml_bench.registry import tables
from cml_bench.study.table_kind import TableKind

if TYPE_CHECKING:
    from cml_bench.evidence.table import Table
    from cml_bench.report.grids import Grid


@tables.register("accuracy")
class Accuracy(TableKind):
    """As Tables 1 and 2 of the paper."""

    @staticmethod
    def grid(table: "Table") -> "Grid":
        """A line for each row."""
        from cml_bench.report.grids import by_row

        return by_row(table)
