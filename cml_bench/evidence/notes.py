"""What holds in a table and what does not, and what is missing, in sentences. Imports no torch."""

from collections.abc import Iterable

import numpy as np

from cml_bench.evidence import stats
from cml_bench.evidence.table import Difference, Table, TableRow
from cml_bench.study import preflight
from cml_bench.study.plan import Plan
from cml_bench.texts import Prose


def notes(table: Table) -> list[str]:
    """What holds and what does not, and what is missing, in sentences."""
    found = []
    if table.compares:
        found += [sentence for row in table.rows if (sentence := _comparison(table, row))]
        found += [sentence for row in table.rows if (sentence := _aggregate(table, row))]
    both = [one for _, _, cell in table.cells() for one in (cell, cell.fixed) if one]
    unfinished = {cell.summary.note for cell in both if cell.summary and cell.summary.marked}
    found += [
        f"A mean over fewer runs than were started is marked with ‡: {note}."
        for note in sorted(unfinished)
    ]
    return found + _checks(table) + _missing(table)


def _checks(table: Table) -> list[str]:
    """What stars and bold mean where there are any, and the exact sign-flip p of each tested
    difference.
    """
    said = []
    if any(cell.difference and cell.difference.testable for _, _, cell in table.cells()):
        said.append(
            "Stars: Holm-adjusted p of the paired difference below 0.05 (one), 0.01 (two), 0.001"
            " (three); the family "
            "is the meta-learner's differences of this table, or the co-learner's"
            + "; those of the lines on one split are families of their own"
            * (table.kind == "splits")
            + "."
        )
    if any(cell.bold for _, _, cell in table.cells()):
        said.append(
            "Bold: the best of a column, and all whose 95 % interval of the paired difference to it"
            " reaches 0."
        )
    for row in table.rows if table.compares else ():
        flips = {
            c.title(table.kind).removesuffix(", mean"): stats.sign_flip(cell.difference.per_seed)
            for c, cell in row.cells.items()
            if c.statistic == "mean"
            and cell.difference
            and cell.difference.testable
            and len(cell.difference.per_seed) <= stats.MAX_SIGN_FLIPS
        }
        if flips:
            said.append(
                f"{row.label}, exact sign flips as a check that decides nothing: p = "
                f"{'; '.join(f'{flip.p:.3g} ({where})' for where, flip in flips.items())}; "
                f"p cannot be below {_each(flip.smallest for flip in flips.values())} here."
            )
    return said


def _each(limits: Iterable[float]) -> str:
    found = sorted(set(limits))
    return " or ".join(f"{limit:.3g}" for limit in found) + (
        ", by the column's n," if len(found) > 1 else ""
    )


def _missing(table: Table) -> list[str]:
    """How many of the table's runs there are, and which cells lack some."""
    every = [(row, c, one) for row, c, cell in table.cells() for one in (cell, cell.fixed) if one]
    wanted = {i for _, _, cell in every for i in cell.runs}
    there = {record.id for _, _, cell in every for record in cell.records.values()}
    if wanted == there:
        return []
    gaps: dict[tuple[str, str], int] = {}
    for row, c, cell in every:
        gaps[row.label, c.place] = (
            gaps.get((row.label, c.place), 0) + cell.wanted - len(cell.records)
        )
    places = ", ".join(f"{label} at {place} ({n})" for (label, place), n in gaps.items() if n)
    return [
        f"{len(there)} of {len(wanted)} runs are made and evaluated as asked; missing: {places}."
    ]


def not_run(plan: Plan, table: Table) -> list[str]:
    """Why runs of this table cannot be made here."""
    every = [one for _, _, cell in table.cells() for one in (cell, cell.fixed) if one]
    reasons, wanted = preflight.not_run(plan), {i for cell in every for i in cell.runs}
    there = {record.id for cell in every for record in cell.records.values()}
    lost = [reasons[i] for i in wanted - there if i in reasons]
    return [Prose(f"{lost.count(reason)} runs not run: {reason}.") for reason in sorted(set(lost))]


def _comparison(table: Table, row: TableRow) -> str:
    column_of = {
        c: cell.difference
        for c, cell in row.cells.items()
        if cell.difference and c.statistic == "mean"
    }
    if not column_of:
        return ""
    better, side = (
        [c for c, d in column_of.items() if d.wins],
        "below" if table.better < 0 else "above",
    )
    clear = [c for c, d in column_of.items() if d.excludes_zero]
    text = f"{row.label} is {side} {row.against} in {_of(len(better), len(column_of), 'column')}"
    lost = [c for c in column_of if c not in better]
    if lost:
        names = [c.title(table.kind).removesuffix(", mean") for c in lost]
        text += f" (not: {'; '.join(names)})"
    text += (
        "; the 95 % interval of the paired difference leaves out 0 in"
        f" {_of(len(clear), len(column_of), 'column')}"
    )
    text += _against(row, [column_of[c] for c in clear])
    tested = [d for d in column_of.values() if d.testable]
    if tested:
        starred = [d for d in tested if d.holm_p < 0.05]
        verb = "are" if len(starred) > 1 else "is"
        text += (
            f"; after Holm's correction {_of(len(starred), len(tested), 'difference')} {verb}"
            " significant at 5 %"
        )
        text += _against(row, starred)
    untested = sorted({d.paired.n for d in column_of.values() if not d.testable})
    if untested:
        others = "the others: " if tested else ""
        text += f" ({others}{'; '.join(map(stats.not_tested, untested))})"
    return f"{text}."


def _against(row: TableRow, differences: list[Difference]) -> str:
    """Says where what was counted speaks against the row: an interval may leave out 0 on either
    side.
    """
    losses = sum(not d.wins for d in differences)
    return (
        f" ({'' if losses == len(differences) else f'{losses} of them '}against {row.label})"
        if losses
        else ""
    )


def _of(k: int, n: int, noun: str) -> str:
    if n == 1:
        return f"{k} of 1 {noun}"
    if k == n:
        return f"both {noun}s" if n == 2 else f"all {n} {noun}s"
    return f"none of the {n} {noun}s" if k == 0 else f"{k} of {n} {noun}s"


def _aggregate(table: Table, row: TableRow) -> str:
    """Across the table, where at least MIN_SEEDS seeds are there in every column, the same ones:
    they are resampled.
    """
    columns = [c for c in table.columns if c.statistic == "mean" and row.cells[c].difference]
    if len(columns) < 2 or not all(row.cells[c].difference.testable for c in columns):
        return ""
    if (
        len({tuple(sorted(row.cells[c].values)) for c in columns}) > 1
    ):  # Table 3's G-Meta has fewer splits on one graph
        return ""
    a, b = (
        table.better * np.array([[cell.values[s] for s in sorted(cell.values)] for cell in cells])
        for cells in ([row.cells[c] for c in columns], [row.cells[c].base for c in columns])
    )
    whole = stats.aggregate(a, b, seed=0)
    p, d = whole.improvement, whole.iqm_difference
    return (
        f"Across the table, a run of {row.label} beats one of {row.against} with probability"
        f" {p.value:.2f} [{p.low:.2f}, {p.high:.2f}]; interquartile mean of the improvement"
        f" {d.value:.3g} [{d.low:.3g}, {d.high:.3g}] (bootstrap over whole seeds, stratified by"
        " column; illustrates, decides nothing)."
    )
