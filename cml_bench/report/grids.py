"""The blocks of strings that a table shows, in all its forms. Imports no torch."""

import math
from dataclasses import dataclass

from cml_bench.evidence.table import Beside, Cell, Column, Difference, Table, TableRow

DASH = "–"


@dataclass
class Grid:
    """A block of strings to print: ``bold`` holds (row, column) positions."""

    heading: str
    header: list[str]
    rows: list[list[str]]
    bold: set[tuple[int, int]]


def number(value: float, kind: str) -> str:
    """Two decimals for percentages, three for errors."""
    if math.isnan(value):
        return DASH
    return f"{value:.3f}" if kind == "regression" else f"{value:.2f}"


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
    mark = "‡" if cell.summary.marked else ""
    return text + mark + (cell.difference.verdict if _starred(cell.difference) else "")


def _starred(difference: Difference | None) -> bool:
    return difference is not None and difference.testable and difference.holm_p < 0.05


def difference_text(difference: Difference, kind: str) -> str:
    """``+2.10 ± 3.00, n = 3: shown, not tested``, or with p values where they are tested."""
    d = difference.paired
    text = signed(d.diff, kind)
    if not math.isnan(d.half):
        text += f" ± {number(d.half, kind)}"
    return f"{text}, p = {difference.holm_p:.3g}" if difference.testable else text


def grids(table: Table) -> list[Grid]:
    """The blocks of a table: its results, and its paired differences."""
    main = {"accuracy": _accuracy, "cost": _cost, "regression": _regression, "splits": _splits}[
        table.kind
    ](table)
    differences = [_differences(table)] if table.compares else []
    return [
        main,
        *(grid for grid in differences if grid.rows),
        *([_beside(table)] if table.published else []),
    ]


def _n(row: TableRow, columns: list[Column]) -> str:
    counts = sorted({row.cells[c].summary.finished for c in columns if row.cells[c].summary})
    return ", ".join(map(str, counts)) or "0"


def _accuracy(table: Table) -> Grid:
    header = ["", "n", *(c.title(table.kind) for c in table.columns)]
    rows = [
        [
            row.label,
            _n(row, table.columns),
            *(cell_text(row.cells[c], table.kind) for c in table.columns),
        ]
        for row in table.results
    ]
    bold = {
        (i, 2 + j)
        for i, row in enumerate(table.results)
        for j, c in enumerate(table.columns)
        if row.cells[c].bold
    }
    return Grid(table.title, header, rows, bold)


def _splits(table: Table) -> Grid:
    """As accuracies; under each row a second line with the same on one class split, over seeds."""
    grid, rows, bold = _accuracy(table), [], set()
    for i, (row, line) in enumerate(zip(table.results, grid.rows, strict=True)):
        bold |= {(len(rows), j) for k, j in grid.bold if k == i}
        rows.append(line)
        cells = [row.cells[c].fixed for c in table.columns]
        if any(cells):
            counts = sorted({cell.summary.finished for cell in cells if cell and cell.summary})
            texts = [cell_text(cell, table.kind) if cell else DASH for cell in cells]
            rows.append([f"{row.label}, one split", ", ".join(map(str, counts)) or "0", *texts])
    return Grid(table.title, grid.header, rows, bold)


def _regression(table: Table) -> Grid:
    """A line for each shot and row; inner steps and statistic side by side."""
    shots = sorted({c.shot for c in table.columns})
    shown = [(c.statistic, c.steps) for c in table.columns if c.shot == shots[0]]
    names = {"mean": "MSE", "median": "median"}
    header = ["", "", "n", *(f"{names[s]}, {k} step{'s' * (k != 1)}" for s, k in shown)]
    rows, bold = [], set()
    for shot in shots:
        columns = [c for c in table.columns if c.shot == shot]
        for row in table.results:
            bold |= {(len(rows), 3 + j) for j, c in enumerate(columns) if row.cells[c].bold}
            texts = [cell_text(row.cells[c], table.kind) for c in columns]
            rows.append([f"{shot}-shot", row.label, _n(row, columns), *texts])
    return Grid(table.title, header, rows, bold)


def costs(table: Table) -> dict[str, dict[str, float]]:
    """Per row: parameters in training and at test, seconds and FLOPs of training relative to its
    baseline's.

    The baseline is the row's own, else the first row; a ratio is taken over the shots and seeds
    that both have, and is nan where there are none or the records do not say.
    """
    found: dict[str, dict[str, float]] = {}
    for row in table.results:
        records = [r for c in table.columns for r in row.cells[c].records.values()]
        if not records:
            continue
        parameters = records[0].parameters
        at_test = parameters.test if row.reading.startswith("meta") else parameters.co_at_test
        pairs = []
        for column in table.columns:
            mine, base = row.cells[column], row.cells[column].base or table.results[0].cells[column]
            shared = sorted(mine.records.keys() & base.records.keys())
            pairs += [(mine.records[seed], base.records[seed]) for seed in shared]
        found[row.label] = {
            "train": parameters.train,
            "test": at_test,
            "relative_seconds": _ratio([(a.seconds.train, b.seconds.train) for a, b in pairs]),
            "relative_flops": _ratio([(a.flops.training, b.flops.training) for a, b in pairs]),
        }
    return found


def _ratio(pairs: list[tuple[float, float]]) -> float:
    base = sum(b for _, b in pairs)
    return sum(a for a, _ in pairs) / base if base else math.nan


def _cost(table: Table) -> Grid:
    found = costs(table)
    header = [
        "",
        "parameters, training",
        "parameters, test",
        *(c.title(table.kind) for c in table.columns),
        "training FLOPs",
        "training time",
    ]
    rows = []
    for row in table.results:
        cost = found.get(row.label)
        counts = [f"{cost['train']:,}", f"{cost['test']:,}"] if cost else [DASH, DASH]
        ratios = [cost[k] if cost else math.nan for k in ("relative_flops", "relative_seconds")]
        relative = [DASH if math.isnan(value) else f"{value:.2f}×" for value in ratios]
        rows.append(
            [
                row.label,
                *counts,
                *(cell_text(row.cells[c], table.kind) for c in table.columns),
                *relative,
            ]
        )
    bold = {
        (i, 3 + j)
        for i, row in enumerate(table.results)
        for j, c in enumerate(table.columns)
        if row.cells[c].bold
    }
    return Grid(table.title, header, rows, bold)


def _differences(table: Table) -> Grid:
    """A line for each compared row (and shot, for regression); its columns are shots, or inner
    steps.
    """
    regression = table.kind == "regression"
    unit = "squared error; negative is better" if regression else "points"
    columns = [c for c in table.columns if c.statistic == "mean"]
    shots = sorted({c.shot for c in columns})
    blocks = [[c for c in columns if c.shot == shot] for shot in shots] if regression else [columns]
    rows = []
    for block in blocks:
        for row in table.rows:
            found = [row.cells[c].difference for c in block]
            if not any(found):
                continue
            verdicts = list(dict.fromkeys(d.verdict for d in found if d and not d.testable))
            label = f"{row.label} − {row.against}" + (
                f" ({'; '.join(verdicts)})" if verdicts else ""
            )
            texts = [difference_text(d, table.kind) if d else DASH for d in found]
            rows.append([f"{block[0].shot}-shot", label, *texts] if regression else [label, *texts])
    titles = (
        [f"{c.steps} step{'s' * (c.steps != 1)}" for c in blocks[0]]
        if regression
        else [c.title(table.kind) for c in columns]
    )
    over = "class splits" if table.kind == "splits" else "seeds"
    heading = f"Paired differences ({unit}), with 95 % t intervals over {over}"
    return Grid(heading, [*([""] * (1 + regression)), *titles], rows, set())


def difference_grid(table: Table) -> Grid:
    """A line for each paired difference, with what may be said of it: for the page, which sorts and
    filters lines.
    """
    rows = []
    for row, column, d in table.differences():
        p = d.paired
        low, high = (
            DASH if math.isnan(end) else signed(end, table.kind) for end in (p.low, p.high)
        )
        rows.append(
            [
                f"{row.label} − {row.against}",
                column.title(table.kind).removesuffix(", mean"),
                signed(p.diff, table.kind),
                DASH if math.isnan(p.half) else f"{low} to {high}",
                str(p.n),
                f"{d.holm_p:.3g}" if d.testable else DASH,
                d.outcome,
            ]
        )
    unit = "squared error; negative is better" if table.kind == "regression" else "points"
    header = ["comparison", "where", "difference", "95 % interval", "n", "p (Holm)", "verdict"]
    return Grid(f"Paired differences ({unit})", header, rows, set())


def _beside(table: Table) -> Grid:
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
    for line in table.published:
        half = "" if line.published_half is None else f" ± {line.published_half:.2f}"
        theirs = f"{line.published:.2f}{half}{' (c)' if line.copied else ''}"
        level, gain = line.level, line.gain
        rows.append(
            [
                line.label,
                line.column.place,
                cell_text(line.cell, table.kind),
                theirs,
                (
                    f"{signed(level.difference)} [{signed(level.low)}, {signed(level.high)}]"
                    if level
                    else DASH
                ),
                level.verdict if level else line.reason,
                (
                    f"{signed(line.cell.difference.paired.diff)} [{signed(gain.low)},"
                    f" {signed(gain.high)}]"
                    if gain
                    else DASH
                ),
                DASH if line.published_gain is None else signed(line.published_gain),
                _gain_words(line) if gain else line.gain_reason or DASH,
            ]
        )
    return Grid("Beside the paper", header, rows, set())


def _gain_words(line: Beside) -> str:
    inside = {True: ", paper's inside", False: ", paper's outside", None: ""}[
        line.gain.paper_inside
    ]
    return f"{line.gain.verdict}{inside}"


def signed(value: float, kind: str = "accuracy") -> str:
    """``+1.88`` or ``−0.31``; errors with three decimals."""
    if math.isnan(value):
        return DASH
    return f"{value:+.{3 if kind == 'regression' else 2}f}".replace("-", "−")
