"""What meta-training adds: each row minus the untrained network that is adapted as it is.

Both have the same network, the initial values of the same seed (or class split) and the same test
tasks, so they are paired. These differences are Holm families of their own: they decide neither
signs nor bold type. Imports no torch.
"""

import math
from collections.abc import Callable, Iterator, Sequence

from cml_bench.evidence import stats
from cml_bench.evidence.table import Cell, Column, Difference, Raise, Table, TableRow
from cml_bench.evidence.verdict import LOSS, UNDECIDED

# A row's cell minus another; the better sign.
Pair = Callable[[TableRow, Cell, Cell, int], Difference | None]


def raises(table: Table, pair: Pair, whole_columns: float = 1.0) -> list[Raise]:
    """Trained minus untrained of each row that is shown, in the order of rows and columns.

    Those of the meta-learner have a p after Holm's correction over the whole table, which has
    ``whole_columns`` times as many columns; those on one class split are a family of their own.
    Any other row is read by another head than the untrained network, so its difference is not
    tested.
    """
    found, families = [], dict[bool, list[Difference | None]]()
    for row in table.results:
        for column, trained, untrained in _cells(table, row):
            fixed = trained is not row.cells[column]
            d = pair(row, trained, untrained, table.better)
            if row.reading == "meta":
                families.setdefault(fixed, []).append(d)
            elif d is not None:
                d.testable = False
            if d is not None:
                found.append(Raise(row, column, fixed, d))
    for family in families.values():
        size = round(len(family) * whole_columns)
        ps = [d.paired.p if d and d.testable else math.nan for d in family]
        for d, p in zip(family, stats.holm(ps, size), strict=True):
            if d is not None:
                d.holm_p, d.family = float(p), size
    return found


def _cells(table: Table, row: TableRow) -> Iterator[tuple[Column, Cell, Cell]]:
    """The cells of a row and of its untrained network in a column, and those on one class split."""
    floor = next((other for other in table.rows if other.label == row.floor), None)
    for column in table.columns if floor else ():
        if floor and column.statistic == "mean":
            trained, untrained = row.cells[column], floor.cells[column]
            yield column, trained, untrained
            if trained.fixed and untrained.fixed:
                yield column, trained.fixed, untrained.fixed


def sentences(table: Table) -> list[str]:
    """The notes of a table with untrained rows: what the differences are, where training does not
    show, and where an untrained network reaches the paper's number of a trained one.
    """
    if not table.raises:
        return []
    told = [
        "Trained minus untrained is what training adds. Both networks start from the same values"
        " and adapt on the same test tasks. These differences are a Holm family of their own"
        f"{', as are those on one split' * any(one.fixed for one in table.raises)}, and decide no"
        " sign. The untrained network is read by the meta-learner's head. A row that is read"
        " otherwise differs in more than training, so it has no p."
    ]
    own = [one for one in table.raises if one.row.reading == "meta"]
    if hidden := [one for one in own if one.difference.outcome == UNDECIDED]:
        told.append(f"Meta-training itself does not show where it is undecided: {_named(hidden)}.")
    if worse := [one for one in own if one.difference.outcome == LOSS]:
        told.append(f"The untrained network is better where it is a loss: {_named(worse)}.")
    return told + _papers(table)


def _named(found: Sequence[Raise]) -> str:
    """``MAML at 1-shot; MAML at 5-shot``."""
    return "; ".join(f"{one.label} at {one.column.place}" for one in found)


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
