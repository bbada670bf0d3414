"""The notes under a table, as sentences: what holds, what does not, what is missing.

Imports no torch.
"""

import math
from collections import Counter
from collections.abc import Iterable

from cml_bench.evidence import profiles, stats
from cml_bench.evidence.table import Difference, Table, TableRow
from cml_bench.evidence.verdict import GAIN, LOSS
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
    """What signs and bold type mean, where there are any; what could be found; the exact sign-flip
    p of each tested difference.
    """
    said = []
    if any(cell.difference and cell.difference.testable for _, _, cell in table.cells()):
        said += [_signs(table), *_detectable(table)]
    if any(cell.bold for _, _, cell in table.cells()):
        said.append(
            "Bold: the best of a column among rows that may be compared, and all whose 95 %"
            " interval of the paired difference to it reaches 0."
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
            each = "; ".join(f"{stats.p_equals(f.p)} ({where})" for where, f in flips.items())
            said.append(
                f"{row.label}, exact sign flips as a check that decides nothing: {each};"
                f" the smallest possible p here: {_each(f.smallest for f in flips.values())}."
            )
    return said


def _each(limits: Iterable[float]) -> str:
    different = sorted(set(limits))
    return " or ".join(dict.fromkeys(map(stats.p_text, different))) + (
        ", by the column's n" if len(different) > 1 else ""
    )


def _signs(table: Table) -> str:
    """What ▲ and ▼ mean, and which differences are a family."""
    one, two, three = stats.SIGNIFICANCE
    families: dict[bool, dict[int, None]] = {}  # by whether it is the meta-learner's
    for row, _, cell in table.cells():
        if cell.difference:
            families.setdefault(row.reading == "meta", {})[cell.difference.family] = None
    names = {True: "the meta-learner", False: "the co-learner"}
    sizes = ", or ".join(
        f"all differences of {names[meta]} in this table ({' or '.join(map(str, families[meta]))})"
        for meta in sorted(families, reverse=True)
    )
    return (
        f"{stats.UP} a gain, {stats.DOWN} a loss against its own baseline: Holm-adjusted p of the"
        f" paired difference below {one:g} (one sign), {two:g} (two), {three:g} (three); a family"
        f" is {sizes}, whatever the rows contrast"
        + "; those of the lines on one split are families of their own" * table.rules.over_splits
        + "."
    )


def _detectable(table: Table) -> list[str]:
    """One note: the true difference that each comparison would have found."""
    by_row: dict[str, list[str]] = {}
    for row, column, d in table.differences():
        if d.testable and not math.isnan(d.detectable):
            told = f"{d.detectable:.3g} ({table.place(column)})"
            by_row.setdefault(table.compared(row), []).append(told)
    if not by_row:
        return []
    each = "; ".join(f"{label} {', '.join(told)}" for label, told in by_row.items())
    return [
        f"A true difference is found with {100 * stats.POWER:.0f} % power, given n, the spread over"
        f" {table.replicates} and 0.05 divided by the number in the family, from this size on:"
        f" {each}. A smaller one may well end undecided."
    ]


def all_runs(table: Table, whole: Table) -> list[str]:
    """Where the analysis of ``whole``, which counts collapsed runs too, gives another conclusion.

    Both tables have the same rows and columns. Empty where nothing can be tested even so.
    """
    pairs = zip(table.all_cells(), whole.all_cells(), strict=True)
    changed, tested = [], False
    for (row, column, cell), (_, _, other) in pairs:
        d, w = cell.difference, other.difference
        if w is None or not table.compares or column.statistic != "mean":
            continue
        tested |= w.testable
        mine, theirs = ((x.outcome if x else "no run finished") for x in (d, w))
        if {mine, theirs} & {GAIN, LOSS} and mine != theirs:
            line = ", one split" * (cell is row.cells[column].fixed)
            changed.append(
                f"{row.label} − {row.against} at {table.place(column)}{line}: {theirs},"
                f" {_numbers(w)}, instead of: {mine}"
            )
    if not tested:
        return []
    if not changed:
        return ["With all runs included, also collapsed ones, no gain or loss appears or goes."]
    return [f"With all runs included, also collapsed ones: {'; '.join(changed)}."]


def _numbers(d: Difference) -> str:
    """``−19.7 ± 9.01 (0.4), p < 0.001, n = 10``."""
    text = f"{d.paired.diff:+.3g} ± {d.paired.half:.3g}".replace("-", "−")
    text += "" if math.isnan(d.episode_half) else f" ({d.episode_half:.2g})"
    text += f", {stats.p_equals(d.holm_p)}" if d.testable else ""
    return f"{text}, n = {d.paired.n}"


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
    untested = dict.fromkeys(d.verdict for d in differences if not d.testable)
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
    whole = profiles.aggregated(table, row)
    if whole is None:
        return ""
    p, d = whole.improvement, whole.iqm_difference
    return (
        f"Across the table, a run of {row.label} beats one of {row.against} with probability"
        f" {p.value:.2f} [{p.low:.2f}, {p.high:.2f}]; interquartile mean of the improvement"
        f" {d.value:.3g} [{d.low:.3g}, {d.high:.3g}] (bootstrap over whole seeds, stratified by"
        " column; illustrates, decides nothing)."
    )
