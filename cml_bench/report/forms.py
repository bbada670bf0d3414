"""The forms of a table: text for the terminal, Markdown, LaTeX, CSV. Imports no torch."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from cml_bench import texts
from cml_bench.evidence.table import Cell, Column, Table, TableRow
from cml_bench.report.grids import Grid, difference_grid, grids
from cml_bench.report.kinds.cost import cost_grid

_KEY = (
    "A cell is a mean, or a paired difference, ± the half-width of its 95 % t interval over n"
    " {units}. The half-width from the test episodes is in brackets"
)
CHECKS = "Signs, tests and checks"  # the heading of the second list of notes
_KEY_ONE = '. "One split" is the same over n training seeds on one class split'


def explanation(table: Table) -> texts.Prose:
    """The caption, and how to read a cell."""
    key = _KEY.format(units="class splits" if table.rules.over_splits else "training seeds")
    if any(cell.fixed for _, _, cell in table.cells()):
        key += _KEY_ONE
    return texts.Prose(f"{table.caption} {key}.".strip())


# What can be asked for alone: name -> the block, and what its caption says behind the title.
PARTS: dict[str, tuple[Callable[[Table], Grid], str]] = {
    "results": (lambda table: table.rules.grid(table), ""),
    "differences": (
        difference_grid,
        "Paired differences ({unit}), with 95 % t intervals over n {units}, and in brackets the"
        " half-width from the test episodes; p is adjusted by Holm's procedure, and detectable is"
        " the difference that is found with 80 % power",
    ),
    "cost": (
        cost_grid,
        "Parameters in training and at test, and FLOPs and time of training relative to the row's"
        " baseline, or to the table's first row where it has none",
    ),
}


def part(table: Table, name: str, form: str) -> str:
    """One block of a table: ``name`` of :data:`PARTS`, ``form`` text, markdown or latex. Empty if
    the table has no line of it.
    """
    grid_of, told = PARTS[name]
    grid = grid_of(table)
    if not grid.rows:
        return ""
    if grid.heading != table.title:
        grid.heading = f"{table.title}: {grid.heading[0].lower()}{grid.heading[1:]}"
    if form == "text":
        return "\n".join(lines(grid))
    if form == "markdown":
        return "\n".join(markdown_lines(grid, f"### {texts.markdown(grid.heading)}"))
    told = told.format(unit=table.unit, units=table.replicates)
    about = texts.latex(texts.Prose(f"{told}.")) if told else texts.latex(explanation(table))
    return _latex(table, [grid], about, f"-{name}")


def text(table: Table) -> str:
    """For a terminal."""
    parts = [line for grid in grids(table) for line in lines(grid)]
    return "\n".join([*parts, explanation(table), *table.notes])


def lines(grid: Grid) -> list[str]:
    """A block for a terminal, with its heading."""
    frame = pd.DataFrame(grid.rows, columns=grid.header)
    lines = frame.to_markdown(index=False, tablefmt="simple", disable_numparse=True)
    return [grid.heading, lines, ""]


def markdown(table: Table) -> str:
    """With headings, ready for a README."""
    parts = []
    for place, grid in enumerate(grids(table)):
        heading = texts.markdown(grid.heading)
        parts += markdown_lines(grid, f"### {heading}" if place == 0 else f"{heading}:")
    parts += [texts.paragraph(explanation(table)), ""]
    for heading, notes in (("", table.findings), (CHECKS, table.checks)):
        if notes:
            parts += [f"{heading}:", ""] if heading else []
            parts += [*(f"* {texts.paragraph(note)}" for note in notes), ""]
    return "\n".join(parts)


def markdown_lines(grid: Grid, heading: str) -> list[str]:
    """A block in Markdown below a heading."""
    header, *plain = ([texts.markdown(value) for value in row] for row in (grid.header, *grid.rows))
    rows = [
        [f"**{v}**" if (i, j) in grid.bold else v for j, v in enumerate(row)]
        for i, row in enumerate(plain)
    ]
    frame = pd.DataFrame(rows, columns=header)
    return [heading, "", frame.to_markdown(index=False, disable_numparse=True), ""]


_TEX_WIDTH = 80  # characters of a row that fit a page in small type


def latex(table: Table) -> str:
    """A table environment. It needs the packages booktabs and graphicx, which fits a wide table to
    the page.
    """
    return _latex(table, grids(table), texts.latex(explanation(table)))


def _latex(table: Table, blocks: list[Grid], about: str, suffix: str = "") -> str:
    lines = [r"\begin{table}", r"\centering", r"\small"]
    lines.append(rf"\caption{{{texts.latex(table.title)}. {about}}}")
    lines.append(rf"\label{{tab:{table.key.replace('_', '-')}{suffix}}}")
    for grid in blocks:
        left = 2 if grid.header[1] == "" else 1
        wide = max(len(" ".join(row)) for row in [grid.header, *grid.rows]) > _TEX_WIDTH
        lines += [r"\resizebox{\textwidth}{!}{"] if wide else []
        lines += [
            rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(grid.header) - left)}}}",
            r"\toprule",
        ]
        lines += [texts.latex_row([*map(texts.latex, grid.header)]), r"\midrule"]
        for i, row in enumerate(grid.rows):
            cells = [texts.latex(value) for value in row]
            bold = (
                rf"\textbf{{{cell}}}" if (i, j) in grid.bold else cell
                for j, cell in enumerate(cells)
            )
            lines.append(texts.latex_row([*bold]))
        lines += [r"\bottomrule", r"\end{tabular}" + ("}" if wide else ""), r"\par\medskip"]
    return "\n".join([*lines[:-1], r"\end{table}", ""])


def long_form(table: Table) -> pd.DataFrame:
    """One row a cell, with numbers alone: for further analysis. In a table over class splits, a
    result on one split has a row of its own, with ``one_split`` true.
    """
    return pd.DataFrame(
        [_flat(table, row, column, cell) for row, column, cell in table.all_cells()]
    )


def _flat(table: Table, row: TableRow, column: Column, cell: Cell) -> dict[str, Any]:
    out: dict[str, Any] = {
        "table": table.key,
        "row": row.label,
        "reading": row.reading,
        **({"columns": column.group} if column.group else {}),
        **({"one_split": cell is row.cells[column].fixed} if table.rules.over_splits else {}),
        "shot": column.shot,
        "inner_steps": column.steps,
        **({"normalised_with": how} if (how := column.normalised_with) else {}),
        "statistic": column.statistic,
        "runs_wanted": cell.wanted,
        "runs_finished": len(cell.values),
        "mean": cell.summary.mean if cell.summary else None,
        "half_seeds": cell.summary.half if cell.summary else None,
        "half_episodes": cell.episode_half,
        "against": row.against,
    }
    if cell.difference:
        from cml_bench.evidence.stats import MAX_SIGN_FLIPS, sign_flip

        d = cell.difference
        out |= {
            "diff": d.paired.diff,
            "diff_half": d.paired.half,
            "diff_half_episodes": d.episode_half,
            "pairs": d.paired.n,
            "p": d.paired.p,
            "p_holm": d.holm_p,
            "family": d.family,
            "detectable": d.detectable,
        }
        if len(d.per_seed) <= MAX_SIGN_FLIPS:
            flips = sign_flip(d.per_seed)
            out |= {"sign_flip_p": flips.p, "sign_flip_smallest": flips.smallest}
    out["per_seed"] = " ".join(f"{seed}:{value:.6g}" for seed, value in sorted(cell.values.items()))
    out["runs"] = " ".join(record.id[:8] for record in cell.records.values())
    return out


def csv(table: Table) -> str:
    """:func:`long_form` as CSV. A label that a spreadsheet would take for a formula gets an
    apostrophe in front.
    """
    frame = long_form(table)
    for name in frame.columns.intersection(["row", "columns", "against"]):
        frame[name] = [
            texts.csv(value) if isinstance(value, str) else value for value in frame[name]
        ]
    return frame.to_csv(index=False)
