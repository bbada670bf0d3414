"""The notes under a table, as sentences: what holds, what does not, what is missing.

Imports no torch.
"""

import math
from collections import Counter
from collections.abc import Iterable

from cml_bench.evidence import profiles, stats
from cml_bench.evidence.table import Difference, Table, TableRow
from cml_bench.evidence.verdict import GAIN, LOSS, UNDECIDED
from cml_bench.readings import META
from cml_bench.records import Store
from cml_bench.study import preflight, selection
from cml_bench.study.plan import Plan
from cml_bench.study.sweeps import tuned_of
from cml_bench.texts import Prose

_BOOTSTRAP = (
    "Intervals across the table are from a bootstrap over whole seeds, stratified by column. They"
    " illustrate and decide nothing."
)


def findings(table: Table) -> list[str]:
    """What holds in a table and what does not, and what is missing: a sentence each."""
    said = []
    if table.compares:
        said += [sentence for row in table.rows if (sentence := _comparison(table, row))]
    summaries = [cell.summary for _, _, cell in table.all_cells() if cell.summary]
    said += [
        f"‡ marks a mean over fewer runs than were started: {note}."
        for note in sorted({summary.note for summary in summaries if summary.marked})
    ]
    return said + _missing(table)


def checks(table: Table) -> list[str]:
    """How a table was tested: what signs and bold type mean, where there are any; what could be
    found; what other tests say.
    """
    said = []
    if any(cell.difference and cell.difference.testable for _, _, cell in table.cells()):
        said += [_signs(table), *_detectable(table)]
    if any(cell.bold for _, _, cell in table.cells()):
        said.append(
            "Bold is the best of a column among rows that may be compared, and every such row whose"
            " paired difference to the best has a 95 % interval that reaches 0."
        )
    said += _sign_flips(table)
    if whole := [told for row in table.rows if table.compares and (told := _aggregate(table, row))]:
        said += [*whole, _BOOTSTRAP]
    return said


def _sign_flips(table: Table) -> list[str]:
    """One note: the exact sign-flip p of each tested difference, and the smallest there can be."""
    told, smallest = [], []
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
            each = ", ".join(f"{stats.p_equals(f.p)} ({where})" for where, f in flips.items())
            told.append(f"{table.compared(row)} {each}")
            smallest += [f.smallest for f in flips.values()]
    if not told:
        return []
    return [
        "Exact sign flips are a check and decide nothing. The smallest possible p is"
        f" {_each(smallest)}. They give: {'; '.join(told)}."
    ]


def _each(limits: Iterable[float]) -> str:
    different = sorted(set(limits))
    return " or ".join(dict.fromkeys(map(stats.p_text, different))) + (
        ", by a difference's n" if len(different) > 1 else ""
    )


def _signs(table: Table) -> str:
    """What ▲ and ▼ mean, and which differences are a family."""
    one, two, three = stats.SIGNIFICANCE
    families: dict[bool, dict[int, None]] = {}  # by whether it is the meta-learner's
    for row, _, cell in table.cells():
        if cell.difference:
            families.setdefault(row.reading == "meta", {})[cell.difference.family] = None
    names = {True: "meta-learner", False: "co-learner"}
    sizes = " and ".join(
        f"all differences of the {names[meta]} ({' or '.join(map(str, families[meta]))})"
        for meta in sorted(families, reverse=True)
    )
    count = "Two Holm families are" if len(families) > 1 else "One Holm family is"
    return (
        f"{stats.UP} is a gain on the row's own baseline, {stats.DOWN} a loss. One sign means that"
        f" the Holm-adjusted p of the paired difference is below {one:g}, two below {two:g}, three"
        f" below {three:g}. {count} in this table: {sizes}."
        + " Differences on one split are families of their own."
        * table.rules.over_splits
    )


def _detectable(table: Table) -> list[str]:
    """One note: what the number beside each p is."""
    if all(math.isnan(d.detectable) for _, _, d in table.differences() if d.testable):
        return []
    return [
        "Detectable, beside each p: the smallest true difference that is found with"
        f" {100 * stats.POWER:.0f} % power. It follows from n, the spread over {table.replicates}"
        " and 0.05 divided by the number in the family. A smaller one may well end undecided."
    ]


def batches(plan: Plan, table: Table) -> list[str]:
    """One note where the co-learner of a network for images is read: its accuracy is that with all
    queries of a task in a batch. A table with several ways of normalising shows the others.
    """
    here = {run.id: run for run in plan.runs}
    read = [i for row, _, cell in table.cells() if row.reading != "meta" for i in cell.runs]
    several = any(column.normalised_with for column in table.columns)
    # Networks of images are those that gain by a GPU; they alone have batch-norm.
    if several or not any(here[i].gpu for i in read):
        return []
    return [
        "† is read with all queries of a task in one batch, as many of each class. With other"
        " batches it may lose where it gains here (docs/evidence.md, Equal what?)."
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
                f"{row.label} − {row.against} at {table.place(column)}{line} becomes {theirs}"
                f" ({_numbers(w)}), without them: {mine}"
            )
    if not tested:
        return []
    if not changed:
        return ["No gain or loss appears or goes if collapsed runs are counted, too."]
    return [f"What changes if collapsed runs are counted, too: {'; '.join(changed)}."]


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
        f"{len(there)} of {len(wanted)} runs are made and evaluated as asked. Missing: {places}."
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
    """In how many columns a row is ahead of its baseline, and what came of the tests; empty where
    it has no difference.
    """
    differences = {
        table.place(column): cell.difference
        for column, cell in row.cells.items()
        if cell.difference and column.statistic == "mean"
    }
    if not differences:
        return ""
    side = "below" if table.better < 0 else "above"
    ahead = [place for place, d in differences.items() if d.wins]
    text = f"{row.label} is {side} {row.against} in {_columns(len(ahead), len(differences))}"
    if 0 < len(ahead) < len(differences):
        text += f": {'; '.join(ahead)}"
    return f"{text}.{_tested(differences)}"


def _tested(differences: dict[str, Difference]) -> str:
    """How many of a row's differences, by place, have each outcome, and which are not tested."""
    text, tested = "", {place: d for place, d in differences.items() if d.testable}
    parts: list[str] = []
    for outcome, plural in ((GAIN, "gains"), (LOSS, "losses"), (UNDECIDED, UNDECIDED)):
        places = [place for place, d in tested.items() if d.outcome == outcome]
        if not places:
            continue
        count = str(len(places)) if parts else _counted(len(places), len(tested))
        one = outcome if outcome == UNDECIDED else f"a {outcome}"
        told = f"{count} is {one}" if len(places) == 1 else f"{count} are {plural}"
        some = outcome != UNDECIDED and len(places) < len(tested)
        parts.append(f"{told} ({'; '.join(places)})" if some else told)
    if parts:
        text = f" After Holm's correction at 5 %, {', '.join(parts)}."
    untested = [d.verdict for d in differences.values() if not d.testable]
    if untested:
        none = len(untested) == len(differences) > 1
        count = "no difference" if none else _counted(len(untested), len(differences))
        has = "has" if none or len(untested) == 1 else "have"
        why = "; ".join(dict.fromkeys(untested))
        text += f" {count.capitalize()} {has} {'a' if none else 'no'} verdict ({why})."
    return text


def _counted(k: int, n: int) -> str:
    """``the difference``, ``both differences``, ``1 difference``, ``3 differences``."""
    if k == n:
        return {1: "the difference", 2: "both differences"}.get(n, f"all {n} differences")
    return f"{k} difference{'s' * (k > 1)}"


def _columns(k: int, n: int) -> str:
    """``2 of 4 columns``, ``both columns``, ``none of the 3 columns``, ``no column``."""
    if n == 1:
        return "the one column" if k else "no column"
    if k == n:
        return "both columns" if n == 2 else f"all {n} columns"
    return f"none of the {n} columns" if k == 0 else f"{k} of {n} columns"


def _aggregate(table: Table, row: TableRow) -> str:
    """A row against its baseline over the whole table; empty unless every column can be tested
    with the same seeds, since whole seeds are resampled.
    """
    whole = profiles.aggregated(table, row)
    if whole is None:
        return ""
    p, d = whole.improvement, whole.iqm_difference
    told = f"{d.value:.3g} [{d.low:.3g}, {d.high:.3g}]".replace("-", "−")
    return (
        f"Across the table, a run of {row.label} beats one of {row.against} with probability"
        f" {p.value:.2f} [{p.low:.2f}, {p.high:.2f}]. The interquartile mean of the improvement is"
        f" {told}."
    )


def selected(plan: Plan, store: Store, key: str) -> list[str]:
    """How the rows of selected settings in a table came to be, a sentence for each shot."""
    table, said = plan.tables[key], list[str]()
    for one in selection.selections(plan, store):
        if one.chosen is None or one.sweep.experiment not in table.experiments:
            continue
        runs, number = plan.members[one.sweep.experiment], len(one.tried)
        setting, seeds = one.sweep.settings[one.chosen], len(one.sweep.settings[0].tried)
        published = {*runs[one.sweep.method][one.sweep.shot]} & {*setting.tuned}
        edge = " and ".join(f"the {end} {name} of all" for name, end in one.edges().items())
        said += [
            f"{row.label}, {one.sweep.shot}-shot: {selection.text(setting.values)}"
            f"{', as published' if published else ''}, selected by validation tasks among"
            f" {number} setting{'s' * (number > 1)} with {seeds} seed{'s' * (seeds > 1)} each,"
            " which are not those of this table."
            + (f" It has {edge}, so a better setting may lie beyond." if edge else "")
            for row in table.rows
            if row.run == tuned_of(one.sweep.method) and row.reading == META
        ]
    return said
