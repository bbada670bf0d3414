"""The blocks of strings that a table shows, in all its forms. Imports no torch."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cml_bench.evidence import stats
from cml_bench.evidence.table import Beside, Cell, Column, Difference, Table
from cml_bench.evidence.verdict import GainVerdict, LevelVerdict
from cml_bench.registry import tables

DASH = "–"


@dataclass
class Grid:
    """A block of strings to print: ``bold`` holds (row, column) positions."""

    heading: str
    header: list[str]
    rows: list[list[str]]
    bold: set[tuple[int, int]]


def columns(grid: Grid, names: list[str]) -> Grid:
    """The grid with these columns in this order."""
    places = [grid.header.index(name) for name in names]
    rows = [[row[place] for place in places] for row in grid.rows]
    bold = {(i, places.index(j)) for i, j in grid.bold if j in places}
    return Grid(grid.heading, [*names], rows, bold)


def number(value: float, kind: str) -> str:
    """Two decimals for percentages, three for errors; a dash for nan."""
    if math.isnan(value):
        return DASH
    return f"{value:.{tables.get(kind).decimals}f}"


def cell_text(cell: Cell, kind: str) -> str:
    """``73.17 ± 1.35 (1.41)``: mean, half-width over seeds, and in brackets that from the test
    episodes.
    """
    if cell.summary is None or math.isnan(cell.summary.mean):
        return f"{DASH}‡" if cell.summary and cell.summary.marked else DASH
    text = number(cell.summary.mean, kind)
    if not math.isnan(cell.summary.half):
        text += f" ± {number(cell.summary.half, kind)}"
    if not math.isnan(cell.episode_half):
        text += f" ({number(cell.episode_half, kind)})"
    text += "‡" if cell.summary.marked else ""
    d = cell.difference
    return text + (f" {d.verdict}" if d and d.testable and d.holm_p < 0.05 else "")


def difference_text(difference: Difference, kind: str) -> str:
    """``+2.10 ± 3.00 (0.41)``, in brackets the half-width from the test episodes; and
    ``, p = 0.0312, detectable 4.20`` where the difference is tested.
    """
    d = difference.paired
    text = signed(d.diff, kind)
    if not math.isnan(d.half):
        text += f" ± {number(d.half, kind)}"
    text += _episodes(difference, kind)
    if not difference.testable:
        return text
    text += f", {stats.p_equals(difference.holm_p)}"
    least = difference.detectable
    return text if math.isnan(least) else f"{text}, detectable {number(least, kind)}"


def _episodes(d: Difference, kind: str) -> str:
    """`` (0.41)``: the half-width from the test episodes."""
    return "" if math.isnan(d.episode_half) else f" ({number(d.episode_half, kind)})"


def grids(table: Table) -> list[Grid]:
    """The blocks of a table that have a line: its results, its paired differences, its cells beside
    the paper's, and what training adds.
    """
    main = table.rules.grid(table)
    more = [_differences(table)] if table.compares else []
    more += [beside_grid(table), _raises(table)]
    return [main, *(grid for grid in more if grid.rows)]


def numbers(values: Iterable[float]) -> str:
    """``5``, or ``0.1, 5``: each of these numbers once; empty without any."""
    return ", ".join(f"{value:g}" for value in sorted(set(values)))


def finished(cells: Iterable[Cell | None]) -> str:
    """The numbers of finished runs that occur in a row."""
    return numbers(cell.summary.finished for cell in cells if cell and cell.summary) or "0"


def bold(table: Table, first: int) -> set[tuple[int, int]]:
    """Positions of the bold cells of a table whose columns begin at ``first`` in the grid."""
    return {
        (i, first + j)
        for i, row in enumerate(table.results)
        for j, column in enumerate(table.columns)
        if row.cells[column].bold
    }


def by_row(table: Table) -> Grid:
    """A line for each row, a column for each of the table's."""
    header = ["", "n", *(column.title(table.kind) for column in table.columns)]
    rows = []
    for row in table.results:
        cells = [row.cells[column] for column in table.columns]
        rows.append([row.label, finished(cells), *(cell_text(cell, table.kind) for cell in cells)])
    return Grid(table.title, header, rows, bold(table, 2))


def by_shot(columns: Iterable[Column]) -> dict[int, list[Column]]:
    """Shot -> its columns, in ascending order of shots."""
    blocks: dict[int, list[Column]] = {}
    for column in sorted(columns, key=lambda column: column.shot):
        blocks.setdefault(column.shot, []).append(column)
    return blocks


def _differences(table: Table) -> Grid:
    """Each compared row minus its baseline."""
    lines = [
        (f"{row.label} − {row.against}", {c: cell.difference for c, cell in row.cells.items()})
        for row in table.rows
    ]
    heading = f"Paired differences ({table.unit}), with 95 % t intervals over {table.replicates}"
    return _wide(table, heading, lines)


def _raises(table: Table) -> Grid:
    """Each row minus its untrained network."""
    lines: dict[str, dict[Column, Difference | None]] = {}
    untested = set()
    for one in table.raises:
        lines.setdefault(one.label, {})[one.column] = one.difference
        untested |= {one.label} if one.row.reading != "meta" else set()
    heading = f"Trained minus untrained ({table.unit}), with 95 % t intervals over"
    return _wide(table, f"{heading} {table.replicates}", [*lines.items()], untested)


def _wide(
    table: Table,
    heading: str,
    lines: Sequence[tuple[str, Mapping[Column, Difference | None]]],
    silent: Container[str] = (),
) -> Grid:
    """A line for each label; its columns are shots. Why a line is not tested stands behind its
    label, unless it is ``silent``.

    In a regression table a line for each shot and label; its columns are inner steps.
    """
    inner = table.rules.by_inner_steps
    columns = [column for column in table.columns if column.statistic == "mean"]
    blocks = [*by_shot(columns).values()] if inner else [columns]
    rows = []
    for block in blocks:
        for label, of_column in lines:
            differences = [of_column.get(column) for column in block]
            if not any(differences):
                continue
            verdicts = dict.fromkeys(d.verdict for d in differences if d and not d.testable)
            if verdicts and label not in silent:
                label += f" ({'; '.join(verdicts)})"
            texts = [difference_text(d, table.kind) if d else DASH for d in differences]
            rows.append([f"{block[0].shot}-shot", label, *texts] if inner else [label, *texts])
    titles = [column.inner if inner else column.title(table.kind) for column in blocks[0]]
    return Grid(heading, [*([""] * (1 + inner)), *titles], rows, set())


def difference_grid(table: Table) -> Grid:
    """A line for each paired difference with its verdict: for the page, which sorts and filters
    lines.
    """
    rows = [
        _line(table, f"{row.label} − {row.against}", table.place(column), d, d.outcome)
        for row, column, d in table.differences()
    ]
    return Grid(f"Paired differences ({table.unit})", ["comparison", *_LINE], rows, set())


def raise_grid(table: Table) -> Grid:
    """A line for each difference to an untrained network, as in :func:`difference_grid`."""
    rows = [
        _line(
            table,
            one.label,
            table.place(one.column),
            one.difference,
            one.difference.outcome if one.row.reading == "meta" else "another head: not tested",
        )
        for one in table.raises
    ]
    return Grid(f"Trained minus untrained ({table.unit})", ["method", *_LINE], rows, set())


_LINE = ["where", "difference", "95 % interval", "n", "p (Holm)", "detectable", "verdict"]


def _line(table: Table, name: str, where: str, d: Difference, outcome: str) -> list[str]:
    p = d.paired
    low, high = (signed(end, table.kind) for end in (p.low, p.high))
    return [
        name,
        where,
        signed(p.diff, table.kind),
        DASH if math.isnan(p.half) else f"{low} to {high}{_episodes(d, table.kind)}",
        str(p.n),
        stats.p_text(d.holm_p) if d.testable else DASH,
        number(d.detectable, table.kind) if d.testable else DASH,
        outcome,
    ]


def beside_grid(table: Table) -> Grid:
    """A line for each cell that the paper has too."""
    header = [
        "",
        "",
        "ours",
        "paper",
        "ours − paper [90 %]",
        "level",
        "gain [95 %]",
        "paper's gain",
        "verdict on the gain",
    ]
    rows = []
    for line in table.beside:
        half = "" if line.paper_half is None else f" ± {line.paper_half:.2f}"
        theirs = f"{line.paper:.2f}{half}{' (c)' if line.copied else ''}"
        rows.append(
            [
                line.label,
                line.column.place,
                cell_text(line.cell, table.kind),
                theirs,
                _interval(line.level.difference, line.level) if line.level else DASH,
                line.told,
                *_gain(line),
            ]
        )
    return Grid("Beside the paper", header, rows, set())


def _gain(line: Beside) -> list[str]:
    """Our gain, the paper's, and the verdict."""
    theirs = DASH if line.paper_gain is None else signed(line.paper_gain)
    if line.gain is None or line.cell.difference is None:
        return [DASH, theirs, line.gain_reason or DASH]
    inside = {True: ", paper's inside", False: ", paper's outside", None: ""}
    verdict = f"{line.gain.verdict}{inside[line.gain.paper_inside]}"
    d = line.cell.difference
    return [_interval(d.paired.diff, line.gain) + _episodes(d, "accuracy"), theirs, verdict]


def _interval(value: float, ends: LevelVerdict | GainVerdict) -> str:
    return f"{signed(value)} [{signed(ends.low)}, {signed(ends.high)}]"


def signed(value: float, kind: str = "accuracy") -> str:
    """``+1.88`` or ``−0.31``; errors with three decimals; a dash for nan."""
    if math.isnan(value):
        return DASH
    return f"{value:+.{tables.get(kind).decimals}f}".replace("-", "−")
