"""What meta-training adds: each row minus the untrained network that is adapted as it is.

Both have the same network, the initial values of the same seed (or class split) and the same test
tasks, so they are paired. These differences describe: they are in no family of tests, and decide
neither stars nor bold type. Imports no torch.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cml_bench.evidence import stats
from cml_bench.evidence.table import Cell, Column, Difference, Table, TableRow

# A row's cell minus another; the better sign.
Pair = Callable[[TableRow, Cell, Cell, int], Difference | None]


class Raise(NamedTuple):
    """A row minus its untrained network in one column. ``where`` names the column, and says of a
    difference on one class split that it is one.
    """

    where: str
    difference: Difference


def raises(table: Table, row: TableRow, pair: Pair) -> list[Raise]:
    """Trained minus untrained of a row, in the order of the columns."""
    floor = next((other for other in table.rows if other.label == row.floor), None)
    if floor is None:
        return []
    return [
        Raise(where, difference)
        for column in table.columns
        if column.statistic == "mean"
        for trained, untrained, where in _cells(row, floor, table.place(column), column)
        if (difference := pair(row, trained, untrained, table.better)) is not None
    ]


def sentences(table: Table, pair: Pair) -> list[str]:
    """The notes of a table with untrained rows: a sentence for each row, and where an untrained
    network reaches the paper's number of a trained one.
    """
    by_row = [(row, raises(table, row, pair)) for row in table.results]
    told = [_row(table, row, found) for row, found in by_row if found]
    if not told:
        return []
    return [
        f"Trained minus untrained ({table.unit}) is what training adds. Both networks start from"
        " the same values and adapt on the same test tasks. The differences are paired, with 95 % t"
        f" intervals over {table.replicates}. They are in no family of tests and have no sign. The"
        " untrained network is read by the meta-learner's head.",
        *told,
        *_papers(table),
    ]


def _cells(
    row: TableRow, floor: TableRow, place: str, column: Column
) -> Iterator[tuple[Cell, Cell, str]]:
    """The cells of both rows in a column, and those on one class split."""
    trained, untrained = row.cells[column], floor.cells[column]
    yield trained, untrained, place
    if trained.fixed and untrained.fixed:
        yield trained.fixed, untrained.fixed, f"{place}, one split over seeds"


def _row(table: Table, row: TableRow, found: list[Raise]) -> str:
    """``MAML minus untrained: +46.11 ± 2.10 (1-shot, n = 8).``, and where training does not show.

    Of another head than the meta-learner's, as †, there are the numbers alone: the untrained
    network is read by the meta-learner's head, so the two differ in more than training.
    """
    each = [
        f"{_number(table, one.difference.paired)} ({one.where}, n = {one.difference.paired.n})"
        for one in found
    ]
    text = f"{row.label} minus untrained: {'; '.join(each)}."
    if row.reading != "meta":
        return text
    sure = [one for one in found if not math.isnan(one.difference.paired.half)]
    hidden = [one.where for one in sure if not one.difference.excludes_zero]
    worse = [one.where for one in sure if one.difference.excludes_zero and not one.difference.wins]
    if hidden:
        text += (
            " Meta-training itself does not show where the interval reaches 0:"
            f" {'; '.join(hidden)}."
        )
    if worse:
        text += (
            " The untrained network is better where the interval is on its side of 0:"
            f" {'; '.join(worse)}."
        )
    return text


def _papers(table: Table) -> list[str]:
    """Where an untrained network reaches a number that the paper prints of a trained one."""
    rows = {row.label: row for row in table.results}
    reached = []
    for line in table.beside:
        if floor := rows.get(rows[line.label].floor or ""):
            cell = floor.cells[line.column]
            mean = (cell.fixed or cell).mean
            if mean * table.better >= line.paper * table.better:
                numbers = f"{mean:.2f} and {line.paper:.2f}"
                reached.append(f"{line.label} at {line.column.place} ({numbers})")
    if not reached:
        return []
    return [
        f"Untrained networks reach the paper's number of a trained one in {len(reached)} of"
        f" {len(table.beside)} cells (in brackets: untrained here, and the paper's):"
        f" {'; '.join(reached)}."
    ]


def _number(table: Table, paired: stats.Paired) -> str:
    """``+46.11 ± 2.10``; without a half-width where there is one pair."""
    decimals = table.rules.decimals
    half = "" if math.isnan(paired.half) else f" ± {paired.half:.{decimals}f}"
    return f"{paired.diff:+.{decimals}f}{half}".replace("-", "−")
