"""Tables from records: what was run, with intervals, paired differences and words. Imports no
torch.
"""

import math

import numpy as np

from cml_bench.content import Engine
from cml_bench.errors import UserError
from cml_bench.evidence import paper, stats
from cml_bench.evidence.notes import not_run, notes
from cml_bench.evidence.table import Cell, Column, Difference, Table, TableRow
from cml_bench.evidence.verdict import cell_summary
from cml_bench.records import FINISHED, Record, Store, evaluation_key
from cml_bench.spec import Evaluation, RunSpec
from cml_bench.study.plan import Plan
from cml_bench.study.schema import Experiment, TableConfig

STATISTICS = {"mean": np.mean, "median": np.median}


def build(plan: Plan, store: Store, key: str) -> Table:
    """The table ``key`` of a plan from whatever runs are finished."""
    config = plan.tables[key]
    reader = _Reader(plan, store)
    columns = _columns(config, reader)
    rows = []
    for row in config.rows:
        cells = {column: reader.cell(config, row.run, row.reading, column) for column in columns}
        if row.against:
            for column in columns:
                cells[column].base = reader.cell(config, row.against, "meta", column)
        for column, cell in cells.items():
            cell.fixed = reader.fixed(config, row.run, row.reading, column)
            if cell.fixed and row.against:
                cell.fixed.base = reader.fixed(config, row.against, "meta", column)
        rows.append(
            TableRow(row.label, row.reading, _label_of(config, row.against), cells, row.shown)
        )
    table = Table(key, config.kind, config.title, config.caption, columns, rows, [])
    _compare(table, config.whole_columns)
    _embolden(table)
    told = []
    if found := paper.published_table(table, plan):
        name, source = found
        table.published = paper.beside(table, source, plan)
        told = paper.sentences(table, name, source)
    table.notes = (
        notes(table)
        + told
        + not_run(plan, table)
        + [f"Counted as missing: {what}" for what in reader.damaged]
    )
    return table


class _Reader:
    """Finished runs of a plan as cells; each record is read once, and what is wrong with a file is
    kept.
    """

    def __init__(self, plan: Plan, store: Store):
        self.plan, self.store = plan, store
        self.specs = plan.specs
        self.found: dict[tuple[str, str], Record | None] = {}
        self.damaged: dict[str, None] = {}  # in order, each once

    def experiment(self, config: TableConfig, group: str) -> tuple[str, Experiment]:
        """Name and content of the experiment behind a group of columns."""
        name = next(g.experiment for g in config.columns if g.title == group)
        return name, self.plan.study.experiments[name]

    def cell(self, config: TableConfig, run: str, reading: str, column: Column) -> Cell:
        """The cell of a run's reading in a column."""
        return self._cell(self.experiment(config, column.group)[0], run, reading, column)

    def fixed(self, config: TableConfig, run: str, reading: str, column: Column) -> Cell | None:
        """The same on one class split, where the columns say on which."""
        name = next(g.fixed for g in config.columns if g.title == column.group)
        return self._cell(name, run, reading, column) if name else None

    def _cell(self, name: str, run: str, reading: str, column: Column) -> Cell:
        experiment = self.plan.study.experiments[name]
        ids = self.plan.members[name][run][column.shot]
        records = {
            _unit(self.specs[i], experiment): r
            for i in ids
            if (r := self._record(i, name, experiment)) is not None
        }
        scores, problems = _scores(records, reading, column, experiment.evaluation.tasks)
        self.damaged.update(dict.fromkeys(problems.values()))
        return _cell(ids, {s: r for s, r in records.items() if s not in problems}, scores, column)

    def _record(self, i: str, name: str, experiment: Experiment) -> Record | None:
        if (i, name) not in self.found:
            record, problem = self.store.usable(self.specs[i])
            asked = _asked(self.specs[i], experiment)
            if record is not None and record.status == FINISHED and (lacks := record.lacks(asked)):
                record, problem = None, f"runs whose results do not suffice: {lacks}."
            self.found[i, name] = record
            self.damaged.update({problem: None} if problem else {})
        return self.found[i, name]


def _asked(spec: RunSpec, experiment: Experiment) -> Evaluation:
    """The test results that this study shows of a run: another evaluation must not be mixed in."""
    wanted = experiment.evaluation
    steps = wanted.inner_steps or (_own_steps(spec),)
    return Evaluation(tasks=wanted.tasks, query=spec.evaluation.query, inner_steps=steps)


def _unit(spec: RunSpec, experiment: Experiment) -> int:
    """What is replicated: the training seed, or the place of the class split among the
    experiment's.
    """
    splits = experiment.splits
    return splits.index(spec.data.options["split"]) if splits else spec.seed


def _own_steps(spec: RunSpec) -> int:
    return spec.options.get("inner_steps", 0)


def _columns(config: TableConfig, reader: _Reader) -> list[Column]:
    columns = []
    for group in config.columns:
        name, experiment = reader.experiment(config, group.title)
        shots = sorted(group.shots or experiment.shots)
        if config.kind != "regression":
            columns += [Column(shot, group=group.title) for shot in shots]
            continue
        members = reader.plan.members[name]
        used = [
            reader.specs[i] for row in config.rows for ids in members[row.run].values() for i in ids
        ]
        every = experiment.evaluation.inner_steps or sorted({_own_steps(spec) for spec in used})
        steps = config.inner_steps or every
        columns += [
            Column(shot, k, statistic) for shot in shots for statistic in STATISTICS for k in steps
        ]
    return columns


def _label_of(config: TableConfig, run: str | None) -> str | None:
    """How the baseline is called: as its own row, or by its key where the table has no such row."""
    return next((row.label for row in config.rows if row.run == run and row.reading == "meta"), run)


def _scores(
    records: dict[int, Record], reading: str, column: Column, tasks: int
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """The episodes' scores of each finished seed; and what is wrong, where a stored series is
    missing or too short.
    """
    scores, problems = {}, {}
    for seed in sorted(seed for seed, record in records.items() if record.status == FINISHED):
        record = records[seed]
        steps = _own_steps(record.spec) if column.steps is None else column.steps
        try:
            scores[seed] = record.scale * record.episodes(evaluation_key(reading, steps), tasks)
        except UserError as error:
            problems[seed] = str(error)
    return scores, problems


def _cell(
    ids: tuple[str, ...], records: dict[int, Record], scores: dict[int, np.ndarray], column: Column
) -> Cell:
    cell = Cell(ids, records)
    if not records:
        return cell
    seeds = sorted(records)
    cell.scores = scores
    cell.values = {
        seed: float(STATISTICS[column.statistic](values)) for seed, values in scores.items()
    }
    statuses = [records[seed].status for seed in seeds]
    cell.summary = cell_summary([cell.values.get(seed, math.nan) for seed in seeds], statuses)
    if scores and column.statistic == "mean":
        cell.episode_half = stats.episode_half_width(np.stack(list(scores.values())))
    return cell


def _compare(table: Table, whole_columns: float) -> None:
    """Paired differences, and Holm within each family.

    A family is all differences that the whole table is to have (``whole_columns`` times those of a
    part), so that the rest never takes back a star of an unfinished table or of a part of one.
    """
    families: dict[tuple[bool, str, bool], list[Difference | None]] = {}
    both = (
        (row, c, one)
        for row, c, cell in table.cells()
        for one in (cell, cell.fixed)
        if one and one.base
    )
    for row, column, cell in both:
        cell.difference = _difference(cell, cell.base, table.better)
        # One family for the meta-learner's differences of a table, one for the co-learner's; a
        # regression table's means and medians answer the same question, so each statistic is a
        # family of its own; and so are the differences over the seeds of one class split, which are
        # held against the paper alone.
        kind = (row.reading == "meta", column.statistic, cell is row.cells[column].fixed)
        families.setdefault(kind, []).append(cell.difference)
    for family in families.values():
        found = [d for d in family if d is not None]
        adjusted = stats.holm(
            [d.paired.p if d.testable else math.nan for d in found],
            round(len(family) * whole_columns),
        )
        for difference, p in zip(found, adjusted, strict=True):
            difference.holm_p = float(p)


def _difference(cell: Cell, base: Cell, better: int) -> Difference | None:
    seeds = sorted(cell.values.keys() & base.values.keys())
    if not seeds:
        return None
    a, b = ([c.values[seed] for seed in seeds] for c in (cell, base))
    complete = len(seeds) == cell.wanted == base.wanted and cell.complete and base.complete
    mixed = mixture([cell, base])
    if any(_rounding(cell.records[seed]) != _rounding(base.records[seed]) for seed in seeds):
        mixed = (
            mixed
            or "pairs made in different ways (path, device, threads, seeds or tasks at once):"
            " not tested"
        )
    return Difference(
        stats.paired(a, b), np.subtract(a, b), better, complete and not mixed, reason=mixed
    )


def _rounding(record: Record) -> tuple[Engine, int | None]:
    """What rounding depends on: the engine (but not which GPU of several), and tasks at once."""
    device = record.engine.device.partition(":")[0]
    return record.engine.model_copy(update={"device": device}), record.tasks_at_once


def mixture(cells: list[Cell]) -> str:
    """Empty, or why cells cannot be held against each other: other data under one name, or another
    precision.
    """
    hashes: dict[str, set[str]] = {}
    precisions = set()
    for record in (record for cell in cells for record in cell.records.values()):
        hashes.setdefault(record.spec.data_id, set()).add(record.data_sha256)
        precisions.add(record.spec.precision)
    if any(len(found) > 1 for found in hashes.values()):
        return "runs on different data: not tested"
    return "runs of different precision: not tested" if len(precisions) > 1 else ""


def _embolden(table: Table) -> None:
    """Bold in columns whose rows are all complete: a row left out could have been the best.

    Rows that have one run by design (an untrained network, say) cannot be tested: they are never
    bold, and where one of them is ahead, the column has no bold at all.
    """
    for column in table.columns:
        cells = [row.cells[column] for row in table.results]
        rivals = {str(i): cell for i, cell in enumerate(cells) if cell.wanted > 1}
        if (
            not rivals
            or not all(cell.complete for cell in rivals.values())
            or mixture(list(rivals.values()))
        ):
            continue
        best = max(table.better * cell.summary.mean for cell in rivals.values())
        if any(
            table.better * value > best
            for cell in cells
            if cell.wanted == 1
            for value in cell.values.values()
        ):
            continue
        scores = {name: list(cell.values.values()) for name, cell in rivals.items()}
        seeds = {name: list(cell.values) for name, cell in rivals.items()}
        for name in stats.best_set(scores, table.better > 0, seeds):
            rivals[name].bold = True
