"""``normalised``: accuracies by what normalises a query, a column for each shot and way."""

from typing import TYPE_CHECKING

from cml_bench.registry import tables
from cml_bench.study.table_kind import TableKind

if TYPE_CHECKING:
    from cml_bench.evidence.table import Table
    from cml_bench.report.grids import Grid


@tables.register("normalised")
class Normalised(TableKind):
    """Its columns are the ``evaluation.normalised_with`` of its experiments.

    The paper normalises all queries of a task together: the column ``all queries``.
    """

    by_normalisation = True

    @staticmethod
    def grid(table: "Table") -> "Grid":
        """A line for each row."""
        from cml_bench.report.grids import by_row

        return by_row(table)
