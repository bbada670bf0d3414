"""Tables from records: results with intervals, paired differences and notes. Imports no torch."""

import math
from collections.abc import Callable

import numpy as np

from cml_bench.content import Engine
from cml_bench.errors import UserError
from cml_bench.evidence import floors, paper, stats
from cml_bench.evidence.bold import embolden
from cml_bench.evidence.notes import all_runs, batches, checks, findings, not_run, selected
from cml_bench.evidence.table import Cell, Column, Difference, Table, TableRow, mixture
from cml_bench.evidence.verdict import cell_summary
from cml_bench.records import COLLAPSED, FINISHED, Record, Store
from cml_bench.registry import tables
from cml_bench.spec import Evaluation, RunSpec
from cml_bench.study import likes, provenance
from cml_bench.study.floors import floor_of, key_of
from cml_bench.study.plan import Plan
from cml_bench.study.schema import Experiment, TableConfig

STATISTICS: dict[str, Callable[[np.ndarray], np.floating]] = {"mean": np.mean, "median": np.median}


def build(plan: Plan, store: Store, key: str) -> Table:
    """The table ``key`` of a plan, from the runs that are finished so far.

    A plan with sweeps is to be :func:`cml_bench.study.selection.narrowed` before.
    """
    assert plan.whole or not plan.sweeps, "what is selected is not known in this plan"
    reader = _Reader(plan, store)
    table = _computed(reader, key)
    embolden(plan, table)
    told = []
    if any(_collapsed(cell) or _collapsed(cell.base) for _, _, cell in table.all_cells()):
        told = all_runs(table, _computed(_Reader(plan, store, (FINISHED, COLLAPSED)), key))
    if named := paper.paper_table(table, plan):
        name, source = named
        table.beside = paper.beside(table, source, plan)
        told += paper.sentences(table, name, source)
    table.raises = floors.raises(table, _above_floor, plan.tables[key].whole_columns)
    table.checks = checks(table)
    table.findings = (
        findings(table)
        + batches(plan, table)
        + selected(plan, store, key)
        + likes.sentences(plan, key)
        + provenance.sentences(table.records())
        + floors.sentences(table)
        + told
        + not_run(plan, table)
        + [f"Counted as missing: {problem}" for problem in reader.problems]
    )
    return table


def _computed(reader: "_Reader", key: str) -> Table:
    """The table with its cells and tested differences."""
    config = reader.plan.tables[key]
    columns = _columns(config, reader)
    table = Table(
        key, config.kind, config.title, config.caption, columns, _rows(config, reader, columns)
    )
    _compare(table, config.whole_columns)
    return table


def _collapsed(cell: Cell | None) -> bool:
    return cell is not None and any(r.status == COLLAPSED for r in cell.records.values())


def _rows(config: TableConfig, reader: "_Reader", columns: list[Column]) -> list[TableRow]:
    rows = []
    for row in likes.shown(reader.plan, config):
        cells = {column: reader.cell(config, row.run, row.reading, column) for column in columns}
        if row.against:
            for column in columns:
                cells[column].base = reader.cell(config, row.against, "meta", column)
        for column, cell in cells.items():
            cell.fixed = reader.fixed(config, row.run, row.reading, column)
            if cell.fixed and row.against:
                cell.fixed.base = reader.fixed(config, row.against, "meta", column)
            for one in (cell, cell.fixed):
                if one and one.base:
                    one.untested = likes.reason(reader.plan, row, one.runs, one.base.runs)
        floor = floor_of(config, row)
        rows.append(
            TableRow(
                row.label,
                row.reading,
                _label_of(config, row.against),
                cells,
                row.shown,
                untrained=row.run in map(key_of, config.untrained),
                floor=_label_of(config, key_of(floor)) if floor else None,
            )
        )
    return rows


class _Reader:
    """Makes cells from the runs of a plan. It reads each record once, and keeps in ``problems``
    what is wrong with a file. Means are over the runs whose status is ``counted``.
    """

    def __init__(self, plan: Plan, store: Store, counted: tuple[str, ...] = (FINISHED,)):
        self.plan, self.store, self.counted = plan, store, counted
        self.specs = plan.specs
        self.records: dict[tuple[str, str], Record | None] = {}  # by run id and experiment
        self.problems: dict[str, None] = {}  # in order, each once

    def experiment(self, config: TableConfig, group: str) -> tuple[str, Experiment]:
        """Name and content of the experiment behind a group of columns."""
        name = next(g.experiment for g in config.columns if g.title == group)
        return name, self.plan.study.experiments[name]

    def cell(self, config: TableConfig, run: str, reading: str, column: Column) -> Cell:
        """The cell of a run's reading in a column."""
        return self._cell(self.experiment(config, column.group)[0], run, reading, column)

    def fixed(self, config: TableConfig, run: str, reading: str, column: Column) -> Cell | None:
        """The same cell on one class split, where the columns name an experiment with one."""
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
        scores, problems = _scores(
            records, reading, column, experiment.evaluation.tasks, self.counted
        )
        self.problems.update(dict.fromkeys(problems.values()))
        there = {s: r for s, r in records.items() if s not in problems}
        cell = _cell(ids, there, scores, column)
        specs, by_split = [self.specs[i] for i in ids], bool(experiment.splits)
        cell.names = {_unit(s, experiment): _name(s, by_split) for s in specs}
        return cell

    def _record(self, i: str, name: str, experiment: Experiment) -> Record | None:
        if (i, name) not in self.records:
            record, problem = self.store.usable(self.specs[i])
            asked = _asked(self.specs[i], experiment)
            if (
                record is not None
                and record.status in self.counted
                and (lacks := record.lacks(asked))
            ):
                record, problem = None, f"runs whose results do not suffice: {lacks}."
            self.records[i, name] = record
            self.problems.update({problem: None} if problem else {})
        return self.records[i, name]


def _asked(spec: RunSpec, experiment: Experiment) -> Evaluation:
    """The test results that this study shows. Results of another evaluation are not mixed in."""
    wanted = experiment.evaluation
    steps = wanted.inner_steps or (spec.inner_steps,)
    return wanted.model_copy(update={"query": spec.evaluation.query, "inner_steps": steps})


def _unit(spec: RunSpec, experiment: Experiment) -> int:
    """The number of a replication: the training seed, or the place of the class split in the
    experiment's list.
    """
    splits = experiment.splits
    return splits.index(spec.split) if splits and spec.split else spec.seed


def _name(spec: RunSpec, by_split: bool) -> str:
    """What a replication is called: ``split r4``, ``seed 3``."""
    return f"split {spec.split}" if by_split else f"seed {spec.seed}"


def _columns(config: TableConfig, reader: _Reader) -> list[Column]:
    columns = []
    for group in config.columns:
        name, experiment = reader.experiment(config, group.title)
        shots = sorted(group.shots or experiment.shots)
        if not tables.get(config.kind).by_inner_steps:
            normalised = tables.get(config.kind).by_normalisation
            ways = experiment.evaluation.normalised_with if normalised else (None,)
            columns += [
                Column(shot, group=group.title, normalised_with=how)
                for shot in shots
                for how in ways
            ]
            continue
        members = reader.plan.members[name]
        used = [
            reader.specs[i] for row in config.rows for ids in members[row.run].values() for i in ids
        ]
        every = experiment.evaluation.inner_steps or sorted({spec.inner_steps for spec in used})
        steps = config.inner_steps or every
        columns += [
            Column(shot, k, statistic) for shot in shots for statistic in STATISTICS for k in steps
        ]
    return columns


def _label_of(config: TableConfig, run: str | None) -> str | None:
    """The label of the baseline's row; its key where the table has no such row."""
    return next((row.label for row in config.rows if row.run == run and row.reading == "meta"), run)


def _scores(
    records: dict[int, Record],
    reading: str,
    column: Column,
    tasks: int,
    counted: tuple[str, ...],
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Seed -> scores of its episodes, shape (tasks,); and seed -> problem where the stored series
    is missing or too short.
    """
    scores: dict[int, np.ndarray] = {}
    problems: dict[int, str] = {}
    for seed in sorted(seed for seed, record in records.items() if record.status in counted):
        record = records[seed]
        key = column.series(reading, record.spec.inner_steps)
        try:
            scores[seed] = record.scale * record.episodes(key, tasks)
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
    statuses = [FINISHED if seed in scores else records[seed].status for seed in seeds]
    cell.summary = cell_summary([cell.values.get(seed, math.nan) for seed in seeds], statuses)
    if scores and column.statistic == "mean":
        cell.episode_half = stats.episode_half_width(np.stack(list(scores.values())))
    return cell


def families(
    table: Table, whole_columns: float = 1.0
) -> list[tuple[int, list[tuple[TableRow, Column, Cell]]]]:
    """The Holm families of a table: the size of each, and its compared cells.

    A family has all differences that the whole table is to have (``whole_columns`` times those of a
    part). So a sign of an unfinished table, or of a part, stays when the rest is there.
    """
    found: dict[tuple[bool, str, bool], list[tuple[TableRow, Column, Cell]]] = {}
    for row, column, cell in table.all_cells():
        if cell.base is not None:
            # The meta-learner's differences of a table are one family, the co-learner's another.
            # Means and medians of a regression table answer the same question, so each statistic
            # has its own. Differences over the seeds of one class split have theirs: they are for
            # the paper's alone.
            kind = (row.reading == "meta", column.statistic, cell is row.cells[column].fixed)
            found.setdefault(kind, []).append((row, column, cell))
    return [(round(len(family) * whole_columns), family) for family in found.values()]


def _compare(table: Table, whole_columns: float) -> None:
    """Paired differences, and Holm within each family."""
    for size, family in families(table, whole_columns):
        differences = []
        for row, _, cell in family:
            if cell.base is not None:
                mixed = _mixed(cell, cell.base)
                labels = (row.label, row.against)
                cell.difference = _difference(labels, cell, cell.base, table.better, mixed)
            if cell.difference is not None:
                cell.difference.family = size
                differences.append(cell.difference)
        adjusted = stats.holm(
            [d.paired.p if d.testable else math.nan for d in differences],
            size,
        )
        for difference, p in zip(differences, adjusted, strict=True):
            difference.holm_p = float(p)


def _mixed(cell: Cell, base: Cell) -> str:
    """Why a cell and its baseline are not tested, whatever their runs are; empty: they are."""
    seeds = cell.values.keys() & base.values.keys()
    mixed = cell.untested or mixture([cell, base])
    if any(_rounding(cell.records[seed]) != _rounding(base.records[seed]) for seed in seeds):
        mixed = (
            mixed
            or "pairs made in different ways (path, device, threads, seeds or tasks at once):"
            " not tested"
        )
    return mixed


def _difference(
    labels: tuple[str, str | None], cell: Cell, base: Cell, better: int, mixed: str = ""
) -> Difference | None:
    """Cell minus base over the seeds that both have; ``labels``: of both. ``mixed``: why they are
    not tested.
    """
    seeds = sorted(cell.values.keys() & base.values.keys())
    if not seeds:
        return None
    a, b = ([c.values[seed] for seed in seeds] for c in (cell, base))
    pairs = zip(reversed(labels), (base, cell), strict=True)
    missing = "; ".join(part for label, c in pairs for part in _lost(label, c))
    complete = len(seeds) == cell.wanted == base.wanted and cell.complete and base.complete
    if not missing and cell.names.keys() != base.names.keys():
        missing = f"{labels[0]} and {labels[1]} are to have other runs"
    episodes = math.nan
    if not math.isnan(cell.episode_half):  # a mean, not a median
        # Both have the same test episodes, so what an episode adds to both leaves the difference.
        each = [cell.scores[seed] - base.scores[seed] for seed in seeds]
        episodes = stats.episode_half_width(np.stack(each))
    return Difference(
        stats.paired(a, b),
        np.subtract(a, b),
        better,
        complete and not mixed,
        means=(float(np.mean(b)), float(np.mean(a))),
        episode_half=episodes,
        reason=mixed,
        missing=missing,
    )


_NAMED = 3  # runs of a cell that are named; more are counted


def _lost(label: str | None, cell: Cell) -> list[str]:
    """The runs that a cell's mean is to have and has not: ``split r4 of AMM-GNN collapsed``."""
    by_state: dict[str, list[str]] = {}
    for seed, name in cell.names.items():
        if seed not in cell.values:
            state = cell.records[seed].status if seed in cell.records else "missing"
            by_state.setdefault(state, []).append(name)
    return [
        f"{', '.join(names) if len(names) <= _NAMED else f'{len(names)} runs'} of {label} {state}"
        for state, names in by_state.items()
    ]


def _above_floor(row: TableRow, cell: Cell, untrained: Cell, better: int) -> Difference | None:
    """Trained minus untrained, unless they are of other data or of another precision. Training is
    what they differ in, so rounding may differ.
    """
    if mixture([cell, untrained]):
        return None
    return _difference((row.label, row.floor), cell, untrained, better)


def _rounding(record: Record) -> tuple[Engine, int | None]:
    """What rounding depends on: the engine (but not which GPU of several), and tasks at once."""
    device = record.engine.device.partition(":")[0]
    return record.engine.model_copy(update={"device": device}), record.tasks_at_once
