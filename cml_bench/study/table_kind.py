"""What each kind of table must say of itself. Imports no torch.

The kinds are in ``report/kinds``, one file each. Its defaults are those of a table of accuracies.
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from cml_bench.evidence.table import Table
    from cml_bench.report.grids import Grid


class TableKind:
    """A kind of table: which data it is for, what its numbers are, and how it is laid out."""

    name: ClassVar[str]
    data_kind: ClassVar[str | None] = "classification"  # of its data sets; None: any
    over_splits: ClassVar[bool] = False  # intervals are over class splits, not over seeds
    by_inner_steps: ClassVar[bool] = False  # columns are inner steps and statistics, too
    by_normalisation: ClassVar[bool] = False  # columns are what queries are normalised with, too
    better: ClassVar[int] = 1  # -1 where less is better
    decimals: ClassVar[int] = 2
    unit: ClassVar[str] = "points"  # of a difference
    gain_unit: ClassVar[str] = "gain in accuracy, points"  # of the axis of a forest

    @staticmethod
    def compares(table: "Table") -> bool:
        """Whether the table shows differences."""
        return True

    @staticmethod
    def grid(table: "Table") -> "Grid":
        """The block of its results."""
        raise NotImplementedError
