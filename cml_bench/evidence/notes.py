"""The notes under a table, as sentences: what holds, what does not, what is missing.

Imports no torch.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from cml_bench.evidence import stats
from cml_bench.evidence.table import Difference, Table, TableRow
from cml_bench.study import preflight
from cml_bench.study.plan import Plan
from cml_bench.texts import Prose


def notes(table: Table) -> list[str]:
    """What holds in a table and what does not, and what is missing: a sentence each."""
    said = []
    if table.compares:
        said += [sentence for row in table.rows if (sentence := _comparison(table, row))]
        said += [sentence for row in table.rows if (sentence := _aggregate(table, row))]
    summaries = [cell.summary for _, _, cell in table.all_cells() if cell.summary]
    said += [
        f"A mean over fewer runs than were started is marked with ‡: {note}."
        for note in sorted({summary.note for summary in summaries if summary.marked})
    ]
    return said + _checks(table) + _missing(table)


def _checks(table: Table) -> list[str]:
    """What stars and bold type mean, where there are any; the exact sign-flip p of each tested
    difference.
    """
    said = []
    if any(cell.difference and cell.difference.testable for _, _, cell in table.cells()):
        said.append(
            "Stars: Holm-adjusted p of the paired difference below 0.05 (one), 0.01 (two), 0.001"
            " (three); the family is the meta-learner's differences of this table, or the"
            " co-learner's"
            + "; those of the lines on one split are families of their own"
            * table.rules.over_splits
            + "."
        )
    if any(cell.bold for _, _, cell in table.cells()):
        said.append(
            "Bold: the best of a column, and all whose 95 % interval of the paired difference to it"
            " reaches 0."
        )
    for row in table.rows if table.compares else ():
        flips = {
            table.place(c): stats.sign_flip(cell.difference.per_seed)
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
    different = sorted(set(limits))
    return " or ".join(f"{limit:.3g}" for limit in different) + (
        ", by the column's n," if len(different) > 1 else ""
    )


def _missing(table: Table) -> list[str]:
    """How many of the table's runs there are, and which cells lack some."""
    wanted, there = _runs(table)
    if wanted == there:
        return []
    gaps: Counter[tuple[str, str]] = Counter()
    for row, column, cell in table.all_cells():
        gaps[row.label, column.place] += cell.wanted - len(cell.records)
    places = ", ".join(f"{label} at {place} ({n})" for (label, place), n in gaps.items() if n)
    return [
        f"{len(there)} of {len(wanted)} runs are made and evaluated as asked; missing: {places}."
    ]


def _runs(table: Table) -> tuple[set[str], set[str]]:
    """Ids of the runs that a table is to have, and of those that are there."""
    cells = [cell for _, _, cell in table.all_cells()]
    there = {record.id for cell in cells for record in cell.records.values()}
    return {i for cell in cells for i in cell.runs}, there


def not_run(plan: Plan, table: Table) -> list[str]:
    """Why runs of this table cannot be made here."""
    reasons, (wanted, there) = preflight.not_run(plan), _runs(table)
    lost = [reasons[i] for i in wanted - there if i in reasons]
    return [Prose(f"{lost.count(reason)} runs not run: {reason}.") for reason in sorted(set(lost))]


def _comparison(table: Table, row: TableRow) -> str:
    """In how many columns a row is ahead of its baseline, and how sure that is; empty where it has
    no difference.
    """
    differences = {
        column: cell.difference
        for column, cell in row.cells.items()
        if cell.difference and column.statistic == "mean"
    }
    if not differences:
        return ""
    side = "below" if table.better < 0 else "above"
    ahead, n = [d for d in differences.values() if d.wins], len(differences)
    text = f"{row.label} is {side} {row.against} in {_of(len(ahead), n, 'column')}"
    behind = [table.place(column) for column, d in differences.items() if not d.wins]
    if behind:
        text += f" (not: {'; '.join(behind)})"
    clear = [d for d in differences.values() if d.excludes_zero]
    text += (
        "; the 95 % interval of the paired difference leaves out 0 in"
        f" {_of(len(clear), n, 'column')}{_against(row, clear)}"
    )
    return f"{text}{_tested(row, [*differences.values()])}."


def _tested(row: TableRow, differences: list[Difference]) -> str:
    """How many of a row's differences are significant, and which are not tested."""
    text = ""
    tested = [d for d in differences if d.testable]
    if tested:
        starred = [d for d in tested if d.holm_p < 0.05]
        verb = "are" if len(starred) > 1 else "is"
        text += (
            f"; after Holm's correction {_of(len(starred), len(tested), 'difference')} {verb}"
            f" significant at 5 %{_against(row, starred)}"
        )
    untested = sorted(
        {d.reason or stats.not_tested(d.paired.n) for d in differences if not d.testable}
    )
    if untested:
        others = "the others: " if tested else ""
        text += f" ({others}{'; '.join(untested)})"
    return text


def _against(row: TableRow, differences: list[Difference]) -> str:
    """How many of these clear differences are losses; empty: none. An interval may leave out 0 on
    either side.
    """
    losses = sum(not d.wins for d in differences)
    return (
        f" ({'' if losses == len(differences) else f'{losses} of them '}against {row.label})"
        if losses
        else ""
    )


def _of(k: int, n: int, noun: str) -> str:
    """``2 of 4 columns``, ``both columns``, ``none of the 3 columns``."""
    if n == 1:
        return f"{k} of 1 {noun}"
    if k == n:
        return f"both {noun}s" if n == 2 else f"all {n} {noun}s"
    return f"none of the {n} {noun}s" if k == 0 else f"{k} of {n} {noun}s"


def _aggregate(table: Table, row: TableRow) -> str:
    """A row against its baseline over the whole table; empty unless every column can be tested
    with the same seeds, since whole seeds are resampled.
    """
    pairs, testable = [], True
    for column in table.columns:
        cell = row.cells[column]
        if column.statistic == "mean" and cell.difference and cell.base:
            pairs.append((cell, cell.base))
            testable &= cell.difference.testable
    # Table 3's G-Meta has fewer class splits on one graph.
    same_seeds = len({tuple(sorted(cell.values)) for cell, _ in pairs}) == 1
    if len(pairs) < 2 or not testable or not same_seeds:
        return ""
    a, b = (
        table.better * np.array([[cell.values[s] for s in sorted(cell.values)] for cell in cells])
        for cells in zip(*pairs, strict=True)
    )
    whole = stats.aggregate(a, b, seed=0)
    p, d = whole.improvement, whole.iqm_difference
    return (
        f"Across the table, a run of {row.label} beats one of {row.against} with probability"
        f" {p.value:.2f} [{p.low:.2f}, {p.high:.2f}]; interquartile mean of the improvement"
        f" {d.value:.3g} [{d.low:.3g}, {d.high:.3g}] (bootstrap over whole seeds, stratified by"
        " column; illustrates, decides nothing)."
    )
