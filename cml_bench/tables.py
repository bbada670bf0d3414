"""Tables from records: what was run, with intervals, paired differences and words. Imports no torch.

Accuracies are in percentage points, regression errors in the unit of the squared target. A cell that has
no finished run is shown as a dash; nothing waits for the rest of a study.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cml_bench import preflight, stats
from cml_bench.errors import UserError
from cml_bench.records import Record, Store, evaluation_key
from cml_bench.spec import Evaluation, RunSpec
from cml_bench.verdict import FINISHED, CellSummary, cell_summary

STATISTICS = {"mean": np.mean, "median": np.median}


class Column(NamedTuple):
    """One column of results: a shot and, for regression, a number of inner steps and a statistic."""

    shot: int
    steps: int | None = None
    statistic: str = "mean"

    def title(self, kind: str) -> str:
        """``5-shot``, or ``5-shot, 1 step, median``."""
        if kind != "regression":
            return f"{self.shot}-shot"
        return f"{self.shot}-shot, {self.steps} step{'s' * (self.steps != 1)}, {self.statistic}"


@dataclass
class Difference:
    """A row minus its baseline over the seeds that both have. ``better``: the sign of an improvement."""

    paired: stats.Paired
    per_seed: np.ndarray
    better: int
    testable: bool
    holm_p: float = math.nan

    @property
    def wins(self) -> bool:
        """Whether the mean difference is an improvement."""
        return self.paired.diff * self.better > 0

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        return abs(self.paired.diff) > self.paired.half

    @property
    def verdict(self) -> str:
        """Stars, or why there are none."""
        if not self.testable:
            return stats.not_tested(self.paired.n) if self.paired.n < stats.MIN_SEEDS else "runs missing: not tested"
        return stats.stars(self.holm_p) or "not significant"


@dataclass
class Cell:
    """One result: seeds that ran, the value of each, and what follows from them. ``base``: its baseline's cell."""

    runs: list[str]
    records: dict[int, Record]
    values: dict[int, float] = field(default_factory=dict)  # finished seeds only
    summary: CellSummary | None = None
    episode_half: float = math.nan
    base: "Cell | None" = None
    difference: Difference | None = None
    bold: bool = False

    @property
    def wanted(self) -> int:
        """How many runs it is to have."""
        return len(self.runs)

    @property
    def complete(self) -> bool:
        """Whether every run is there and ended well, and they are enough to test."""
        return self.summary is not None and self.summary.testable and len(self.records) == self.wanted


@dataclass
class TableRow:
    """A row's label and its cells by column."""

    label: str
    reading: str
    against: str | None
    cells: dict[Column, Cell]


@dataclass
class Table:
    """A table with everything computed; see ``render.py`` for its forms."""

    key: str
    kind: str
    title: str
    caption: str
    columns: list[Column]
    rows: list[TableRow]
    notes: list[str]

    @property
    def better(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return -1 if self.kind == "regression" else 1

    def cells(self) -> Iterator[tuple[TableRow, Column, Cell]]:
        """Every cell with its row and column."""
        for row in self.rows:
            for column in row.cells:
                yield row, column, row.cells[column]


def build(plan: dict[str, Any], store: Store, key: str) -> Table:
    """The table ``key`` of a plan from whatever runs are finished."""
    config = plan["tables"][key]
    experiment = plan["study"]["experiments"][config["experiment"]]
    members = plan["members"][config["experiment"]]
    specs = {run["id"]: RunSpec.model_validate(run["spec"]) for run in plan["runs"]}
    used = [specs[i] for row in config["rows"] for ids in members[row["run"]].values() for i in ids]
    columns = _columns(config, experiment, used)
    found: dict[str, Record | None] = {}
    damaged: dict[str, None] = {}  # what is wrong with a file: in order, each once

    def cell(run: str, reading: str, column: Column) -> Cell:
        ids = members[run][str(column.shot)]
        for i in ids:
            if i not in found:
                record, problem = store.usable(specs[i])
                found[i] = _usable(record, specs[i], experiment)
                damaged.update({problem: None} if problem else {})
        records = {specs[i].seed: found[i] for i in ids if found[i] is not None}
        scores, problems = _scores(records, reading, column, experiment["evaluation"]["tasks"])
        damaged.update(dict.fromkeys(problems.values()))
        return _cell(ids, {s: r for s, r in records.items() if s not in problems}, scores, column)

    rows = []
    for row in config["rows"]:
        cells = {column: cell(row["run"], row["reading"], column) for column in columns}
        if row["against"]:
            for column in columns:
                cells[column].base = cell(row["against"], "meta", column)
        rows.append(TableRow(row["label"], row["reading"], _label_of(config, row["against"]), cells))
    table = Table(key, config["kind"], config["title"], config["caption"], columns, rows, [])
    _compare(table)
    _embolden(table)
    table.notes = notes(table) + _not_run(plan, table) + [f"Counted as missing: {problem}" for problem in damaged]
    return table


def _usable(record: Record | None, spec: RunSpec, experiment: dict[str, Any]) -> Record | None:
    """The record if its results are on this study's test episodes: another evaluation must not be mixed in."""
    if record is None or record.status != FINISHED:
        return record
    wanted = experiment["evaluation"]
    steps = tuple(wanted["inner_steps"]) or (_own_steps(spec),)
    asked = Evaluation(tasks=wanted["tasks"], query=spec.evaluation.query, inner_steps=steps)
    return record if record.evaluated is not None and record.evaluated.covers(asked) else None


def _own_steps(spec: RunSpec) -> int:
    return spec.options.get("inner_steps", 0)


def _columns(config: dict[str, Any], experiment: dict[str, Any], specs: list[RunSpec]) -> list[Column]:
    shots = sorted(experiment["shots"])
    if config["kind"] != "regression":
        return [Column(shot) for shot in shots]
    every = experiment["evaluation"]["inner_steps"] or sorted({_own_steps(spec) for spec in specs})
    steps = config["inner_steps"] or every
    return [Column(shot, k, statistic) for shot in shots for statistic in STATISTICS for k in steps]


def _label_of(config: dict[str, Any], run: str | None) -> str | None:
    """How the baseline is called: as its own row, or by its key where the table has no such row."""
    return next((row["label"] for row in config["rows"] if row["run"] == run and row["reading"] == "meta"), run)


def _scores(
    records: dict[int, Record], reading: str, column: Column, tasks: int
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """The episodes' scores of each finished seed; and what is wrong, where a stored series is missing or too short."""
    scores, problems = {}, {}
    for seed in sorted(seed for seed, record in records.items() if record.status == FINISHED):
        record = records[seed]
        steps = _own_steps(record.spec) if column.steps is None else column.steps
        scale = 100.0 if record.content["kind"] == "classification" else 1.0
        try:
            scores[seed] = scale * record.episodes(evaluation_key(reading, steps), tasks)
        except UserError as error:
            problems[seed] = str(error)
    return scores, problems


def _cell(ids: list[str], records: dict[int, Record], scores: dict[int, np.ndarray], column: Column) -> Cell:
    cell = Cell(ids, records)
    if not records:
        return cell
    seeds = sorted(records)
    cell.values = {seed: float(STATISTICS[column.statistic](values)) for seed, values in scores.items()}
    statuses = [records[seed].status for seed in seeds]
    cell.summary = cell_summary([cell.values.get(seed, math.nan) for seed in seeds], statuses)
    if scores and column.statistic == "mean":
        cell.episode_half = stats.episode_half_width(np.stack(list(scores.values())))
    return cell


def _compare(table: Table) -> None:
    """Paired differences, and Holm within each family."""
    families: dict[tuple[bool, str], list[Difference]] = {}
    for row, column, cell in table.cells():
        base = cell.base
        seeds = sorted(cell.values.keys() & base.values.keys()) if base is not None else []
        if not seeds:
            continue
        a, b = ([c.values[seed] for seed in seeds] for c in (cell, base))
        complete = len(seeds) == cell.wanted == base.wanted and cell.complete and base.complete
        cell.difference = Difference(stats.paired(a, b), np.subtract(a, b), table.better, complete)
        # One family for the meta-learner's differences of a table, one for the co-learner's; a regression table's
        # means and medians answer the same question, so each statistic is a family of its own.
        families.setdefault((row.reading == "meta", column.statistic), []).append(cell.difference)
    for family in families.values():
        adjusted = stats.holm([d.paired.p if d.testable else math.nan for d in family])
        for difference, p in zip(family, adjusted, strict=True):
            difference.holm_p = float(p)


def _embolden(table: Table) -> None:
    """Bold in columns whose rows are all complete: a row left out could have been the best.

    Rows that have one run by design (an untrained network, say) cannot be tested: they are never bold, and where
    one of them is ahead, the column has no bold at all.
    """
    for column in table.columns:
        cells = [row.cells[column] for row in table.rows]
        rivals = {str(i): cell for i, cell in enumerate(cells) if cell.wanted > 1}
        if not rivals or not all(cell.complete for cell in rivals.values()):
            continue
        best = max(table.better * cell.summary.mean for cell in rivals.values())
        if any(table.better * value > best for cell in cells if cell.wanted == 1 for value in cell.values.values()):
            continue
        scores = {name: list(cell.values.values()) for name, cell in rivals.items()}
        seeds = {name: list(cell.values) for name, cell in rivals.items()}
        for name in stats.best_set(scores, table.better > 0, seeds):
            rivals[name].bold = True


# -- words --------------------------------------------------------------------------------------------


def notes(table: Table) -> list[str]:
    """What holds and what does not, and what is missing, in sentences."""
    found = []
    if table.kind != "cost":  # its accuracies are those of another table, which says all there is to say
        found += [sentence for row in table.rows if (sentence := _comparison(table, row))]
        found += [sentence for row in table.rows if (sentence := _aggregate(table, row))]
    unfinished = {cell.summary.note for _, _, cell in table.cells() if cell.summary and cell.summary.marked}
    found += [f"A mean over fewer runs than were started is marked with ‡: {note}." for note in sorted(unfinished)]
    return found + _checks(table) + _missing(table)


def _checks(table: Table) -> list[str]:
    """What stars and bold mean where there are any, and the exact sign-flip p of each tested difference."""
    said = []
    if any(cell.difference and cell.difference.testable for _, _, cell in table.cells()):
        said.append(
            "Stars: Holm-adjusted p of the paired difference below 0.05 (one), 0.01 (two), 0.001 (three); the family "
            "is the meta-learner's differences of this table, or the co-learner's."
        )
    if any(cell.bold for _, _, cell in table.cells()):
        said.append("Bold: the best of a column, and all whose 95 % interval of the paired difference to it reaches 0.")
    for row in table.rows if table.kind != "cost" else ():
        flips = {
            c.title(table.kind).removesuffix(", mean"): stats.sign_flip(cell.difference.per_seed)
            for c, cell in row.cells.items()
            if c.statistic == "mean" and cell.difference and cell.difference.testable
            and len(cell.difference.per_seed) <= stats.MAX_SIGN_FLIPS
        }  # fmt: skip
        if flips:
            said.append(
                f"{row.label}, exact sign flips as a check that decides nothing: p = "
                f"{'; '.join(f'{flip.p:.3g} ({where})' for where, flip in flips.items())}; "
                f"p cannot be below {max(flip.smallest for flip in flips.values()):.3g} here."
            )
    return said


def _missing(table: Table) -> list[str]:
    """How many of the table's runs there are, and which cells lack some."""
    wanted = {i for _, _, cell in table.cells() for i in cell.runs}
    there = {record.content["id"] for _, _, cell in table.cells() for record in cell.records.values()}
    if wanted == there:
        return []
    gaps = {(row.label, c.shot): cell.wanted - len(cell.records) for row, c, cell in table.cells()}
    places = ", ".join(f"{label} at {shot}-shot ({n})" for (label, shot), n in gaps.items() if n)
    return [f"{len(there)} of {len(wanted)} runs are finished and evaluated as asked; missing: {places}."]


def _not_run(plan: dict[str, Any], table: Table) -> list[str]:
    """Why runs of this table cannot be made here."""
    reasons, wanted = preflight.not_run(plan), {i for _, _, cell in table.cells() for i in cell.runs}
    there = {record.content["id"] for _, _, cell in table.cells() for record in cell.records.values()}
    lost = [reasons[i] for i in wanted - there if i in reasons]
    return [f"{lost.count(reason)} runs not run: {reason}." for reason in sorted(set(lost))]


def _comparison(table: Table, row: TableRow) -> str:
    column_of = {c: cell.difference for c, cell in row.cells.items() if cell.difference and c.statistic == "mean"}
    if not column_of:
        return ""
    better, side = [c for c, d in column_of.items() if d.wins], "below" if table.better < 0 else "above"
    clear = [c for c, d in column_of.items() if d.excludes_zero]
    text = f"{row.label} is {side} {row.against} in {_of(len(better), len(column_of), 'column')}"
    lost = [c for c in column_of if c not in better]
    if lost:
        names = [c.title(table.kind).removesuffix(", mean") for c in lost]
        text += f" (not: {'; '.join(names)})"
    text += f"; the 95 % interval of the paired difference leaves out 0 in {_of(len(clear), len(column_of), 'column')}"
    text += _against(row, [column_of[c] for c in clear])
    tested = [d for d in column_of.values() if d.testable]
    if tested:
        starred = [d for d in tested if d.holm_p < 0.05]
        verb = "are" if len(starred) > 1 else "is"
        text += f"; after Holm's correction {_of(len(starred), len(tested), 'difference')} {verb} significant at 5 %"
        text += _against(row, starred)
    untested = sorted({d.paired.n for d in column_of.values() if not d.testable})
    if untested:
        others = "the others: " if tested else ""
        text += f" ({others}{'; '.join(map(stats.not_tested, untested))})"
    return f"{text}."


def _against(row: TableRow, differences: list[Difference]) -> str:
    """Says where what was counted speaks against the row: an interval may leave out 0 on either side."""
    losses = sum(not d.wins for d in differences)
    return f" ({'' if losses == len(differences) else f'{losses} of them '}against {row.label})" if losses else ""


def _of(k: int, n: int, noun: str) -> str:
    if n == 1:
        return f"{k} of 1 {noun}"
    if k == n:
        return f"both {noun}s" if n == 2 else f"all {n} {noun}s"
    return f"none of the {n} {noun}s" if k == 0 else f"{k} of {n} {noun}s"


def _aggregate(table: Table, row: TableRow) -> str:
    """Across the table, where at least MIN_SEEDS seeds are there in every column."""
    columns = [c for c in table.columns if c.statistic == "mean" and row.cells[c].difference]
    if len(columns) < 2 or not all(row.cells[c].difference.testable for c in columns):
        return ""
    a, b = (
        table.better * np.array([[cell.values[s] for s in sorted(cell.values)] for cell in cells])
        for cells in ([row.cells[c] for c in columns], [row.cells[c].base for c in columns])
    )
    whole = stats.aggregate(a, b, seed=0)
    p, d = whole.improvement, whole.iqm_difference
    return (
        f"Across the table, a run of {row.label} beats one of {row.against} with probability {p.value:.2f} "
        f"[{p.low:.2f}, {p.high:.2f}]; interquartile mean of the improvement {d.value:.3g} [{d.low:.3g}, {d.high:.3g}] "
        "(bootstrap over whole seeds, stratified by column; illustrates, decides nothing)."
    )
