"""Which cells of a table are in bold type. Imports no torch."""

from collections.abc import Sequence

from cml_bench.evidence import stats
from cml_bench.evidence.table import Cell, Column, Table, TableRow, mixture
from cml_bench.study import likes
from cml_bench.study.figure_config import Row
from cml_bench.study.plan import Plan

_Row = tuple[Row, TableRow]


def embolden(plan: Plan, table: Table) -> None:
    """Set the best cells of each column in bold, among rows that may be compared with each other
    (``likes.alike``), where all of these are complete.

    A row that is like no other one is never bold. A row that has one run by design (such as an
    untrained network) cannot be tested. It is never bold, and where it is ahead of all that it is
    like, none of them is. The rows of the key ``untrained`` do not count.
    """
    every = zip(likes.shown(plan, plan.tables[table.key]), table.rows, strict=True)
    rows = [(config, row) for config, row in every if row.shown and not row.untrained]
    for column in table.columns:
        for group in _groups(plan, rows, column):
            if len(group) > 1:
                _best([row.cells[column] for _, row in group], table.better)


def _groups(plan: Plan, rows: Sequence[_Row], column: Column) -> list[list[_Row]]:
    """The rows in groups of which all may be compared; a row is in the first one that it fits."""
    groups: list[list[_Row]] = []
    for row in rows:
        for group in groups:
            if all(_alike(plan, row, other, column) for other in group):
                group.append(row)
                break
        else:
            groups.append([row])
    return groups


def _alike(plan: Plan, a: _Row, b: _Row, column: Column) -> bool:
    runs = (a[1].cells[column].runs[0], b[1].cells[column].runs[0])
    return likes.alike(plan, (a[0], b[0]), runs)


def _best(cells: Sequence[Cell], better: int) -> None:
    rivals = {str(i): cell for i, cell in enumerate(cells) if cell.wanted > 1}
    if (
        not rivals
        or not all(cell.complete for cell in rivals.values())
        or mixture(list(rivals.values()))
    ):
        return
    best = max(better * cell.mean for cell in rivals.values())
    alone = (value for cell in cells if cell.wanted == 1 for value in cell.values.values())
    if any(better * value > best for value in alone):
        return
    scores = {name: list(cell.values.values()) for name, cell in rivals.items()}
    seeds = {name: list(cell.values) for name, cell in rivals.items()}
    for name in stats.best_set(scores, better > 0, seeds):
        rivals[name].bold = True
