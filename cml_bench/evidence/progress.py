"""What records say of training: gains over outer steps, and steps to reach an accuracy.

All of it is read from validation curves: each run's score on validation tasks, at the outer steps
at which it was validated, by the heads as they were at that step. Validation tasks are not test
tasks. They are fewer, and the tested model is selected by them. Imports no torch.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cml_bench import readings
from cml_bench.evidence import change as changes
from cml_bench.evidence import stats
from cml_bench.evidence.change import Change
from cml_bench.evidence.table import Cell, Column, Table, TableRow
from cml_bench.records import FINISHED, Record

# The head whose validation score belongs to a reading. Other readings are made at test alone.
_HEADS = {
    readings.META: "meta",
    readings.META_LAST: "meta",
    readings.META_SINGLE: "meta",
    readings.CO: "co",
    readings.CO_LAST: "co",
    readings.CO_SINGLE: "co",
    readings.CO_PAIRED: "co",
}

_NEAR = 1 / 8  # of the training: a step so near to a quarter of it stands for that quarter

ROUND = (30, 40, 50, 60, 70, 80, 90, 95, 99)  # accuracies, %
ROUND_ERRORS = tuple(m * 10.0**k for k in range(1, -7, -1) for m in (5, 2, 1))
LEVELS = 3
"""How many round levels are asked for in each place."""

Curve = dict[int, float]  # outer step -> score


@dataclass
class Course:
    """A row minus its baseline in one place, over the outer steps of training.

    ``gains`` has an entry for each outer step above 0 at which every pair was validated: the paired
    difference over the seeds of ``pairs``, in the table's unit (an improvement has the sign of
    ``better``). ``rises`` are those of the baseline alone: its last score minus that at the step
    ``before``. ``reason`` says why there is nothing, ``left_out`` which pairs have no curve.
    """

    row: TableRow
    column: Column
    better: int
    pairs: dict[int, tuple[Curve, Curve]] = field(default_factory=dict)
    gains: dict[int, stats.Paired] = field(default_factory=dict)
    reason: str = ""
    left_out: tuple[str, ...] = ()
    stopped: int = 0  # pairs that were trained beyond the last common step
    change: Change | None = None
    end_p: float = math.nan

    @property
    def last(self) -> int:
        """The last step at which every pair was validated."""
        return max(self.gains)

    def near(self, share: float) -> int | None:
        """The validated step nearest to a share of the training; the earlier one of two.

        None if the nearest is farther away than an eighth of the training.
        """
        step = min(self.gains, key=lambda s: (abs(s - share * self.last), s))
        return step if abs(step - share * self.last) <= _NEAR * self.last + 1e-9 else None

    def at(self, step: int) -> dict[int, float]:
        """Seed -> improvement over the baseline at this step."""
        return {seed: self.better * (a[step] - b[step]) for seed, (a, b) in self.pairs.items()}

    @property
    def before(self) -> int | None:
        """The step nearest to three quarters of the training; None without one before the end."""
        earlier = [step for step in self.gains if step < self.last]
        return min(earlier, key=lambda s: (abs(s - 0.75 * self.last), s), default=None)

    @property
    def rise(self) -> stats.Paired | None:
        """By how much the baseline improves from the step ``before`` to the end."""
        if (before := self.before) is None:
            return None
        base = [curve for _, curve in self.pairs.values()]
        return stats.paired(
            [self.better * b[self.last] for b in base], [self.better * b[before] for b in base]
        )

    @property
    def outcome(self) -> str:
        """What may be said of speed and end, at 5 % and after Holm's correction."""
        end = self.gains[self.last]
        if end.n < stats.MIN_SEEDS:
            return stats.not_tested(end.n)
        if not self.end_p < 0.05:
            less = self.change is not None and self.change.outcome == changes.SHRINKS
            return "speed: not shown at the end" if less else "no gain shown at the end"
        if end.diff * self.better < 0:
            return "a loss at the end"
        if self.rise is None or self.rise.low > 0 or math.isnan(self.rise.half):
            return "cannot tell: baseline still improves"
        return "end: baseline not shown to improve"


class Reached(NamedTuple):
    """In how many outer steps the runs of a cell reach a level.

    ``median`` counts a run that never reaches it as infinite; ``never`` names those runs by their
    seed or class split.
    ``trained`` is the number of steps that all runs made; None where they differ.
    """

    level: float
    median: float
    reached: int
    total: int
    never: tuple[str, ...]
    trained: int | None


class Arrival(NamedTuple):
    """A row's way to levels in one place: its baseline's final mean, which the baseline (``base``)
    itself is to reach, too, and round levels.
    """

    row: TableRow
    column: Column
    final: Reached | None
    base: Reached | None
    round: dict[float, Reached]


def curve(record: Record, reading: str) -> Curve:
    """Outer step -> validation score of a reading, in percent or as a squared error.

    It is empty if the reading is not validated, or if nothing is stored.
    """
    stored = record.curves
    scores = stored.validation.score(_HEADS[reading]) if reading in _HEADS else []
    if len(scores) != len(stored.step):
        return {}
    found = zip(stored.step, scores, strict=True)
    return {step: record.scale * score for step, score in found if score is not None}


def _names(cell: Cell, units: Iterable[int], table: Table) -> tuple[str, ...]:
    """The seeds or class splits of some of a cell's runs, as a reader knows them."""
    specs = [cell.records[unit].spec for unit in units]
    return tuple(str(spec.split if table.rules.over_splits else spec.seed) for spec in specs)


def where(column: Column) -> str:
    """``5-shot``, or ``Omniglot, 5-shot``: a curve belongs to all columns of a shot and group."""
    return ", ".join(filter(None, (column.group, f"{column.shot}-shot")))


def places(table: Table) -> Iterable[tuple[TableRow, Column, Cell]]:
    """The cells of a table, one for each row, group and shot: further inner steps, statistics and
    evaluations have no curve of their own.
    """
    seen = set()
    for row, column, cell in table.cells():
        if (id(row), where(column)) not in seen:
            seen.add((id(row), where(column)))
            yield row, column, cell


def courses(table: Table) -> list[Course]:
    """The course of each of a table's comparisons, with Holm's correction within its family.

    The families are the meta-learner's comparisons and the co-learner's, as in the table.
    """
    if not table.compares:
        return []
    found = [
        _course(row, column, cell, cell.base, table)
        for row, column, cell in places(table)
        if cell.base is not None
    ]
    for kind in (True, False):
        family = [c for c in found if (c.row.reading == readings.META) is kind]
        ends = [c.gains[c.last] if c.gains else None for c in family]
        for course, p in zip(family, changes.holm(ends), strict=True):
            course.end_p = p
        ps = changes.holm([c.change.paired if c.change else None for c in family])
        for course, p in zip(family, ps, strict=True):
            course.change = course.change and course.change._replace(holm_p=p)
    return found


def _course(row: TableRow, column: Column, cell: Cell, base: Cell, table: Table) -> Course:
    course = Course(row, column, table.better)
    mixed = cell.difference.reason if cell.difference else ""
    seeds = [s for s in sorted(cell.records.keys() & base.records.keys()) if _both(cell, base, s)]
    if row.reading not in _HEADS:
        course.reason = "this reading is made at test alone"
    elif mixed or not seeds:
        course.reason = mixed or "no pair of finished runs"
    elif any(_watched(cell.records[s]) != _watched(base.records[s]) for s in seeds):
        course.reason = "validated on other tasks than the baseline"
    if course.reason:
        return course
    pairs = {
        s: (curve(cell.records[s], row.reading), curve(base.records[s], readings.META))
        for s in seeds
    }
    course.pairs = {s: pair for s, pair in pairs.items() if all(pair)}
    course.left_out = _names(cell, [s for s in seeds if s not in course.pairs], table)
    steps = _common(course.pairs)
    if not steps:
        course.reason = (
            "no step at which all were validated" if course.pairs else "no validation curve stored"
        )
        return course
    for step in steps:
        a, b = zip(*((x[step], y[step]) for x, y in course.pairs.values()), strict=True)
        course.gains[step] = stats.paired(a, b)
    course.stopped = sum(min(max(x), max(y)) > steps[-1] for x, y in course.pairs.values())
    half = course.near(0.5)
    if half is not None and half < course.last:
        course.change = changes.change(course.at(half), course.at(course.last))
    return course


def _both(cell: Cell, base: Cell, seed: int) -> bool:
    return cell.records[seed].status == base.records[seed].status == FINISHED


def _watched(record: Record) -> tuple[object, ...]:
    """What decides on which validation tasks a run was scored at a step."""
    spec, protocol = record.spec, record.spec.protocol
    fresh = (protocol.val_fresh, protocol.val_every if protocol.val_fresh else 0)
    return spec.data_id, spec.way, spec.shot, spec.query, protocol.val_tasks, *fresh


def _common(pairs: Mapping[int, tuple[Curve, Curve]]) -> list[int]:
    """The outer steps above 0 at which every run of every pair has a score."""
    both = [x.keys() & y.keys() for x, y in pairs.values()]
    return sorted(step for step in set.intersection(*map(set, both)) if step > 0) if both else []


def arrivals(table: Table) -> list[Arrival]:
    """How fast each row of a table reaches levels; rows whose reading has no curve are left out.

    The levels are the final mean of the row's baseline (its own where it has none), and in each
    place the ``LEVELS`` best round ones that half of the runs of some row reach. All runs count,
    those too that diverged or collapsed.
    """
    of_place: dict[str, list[tuple[TableRow, Column, Cell]]] = {}
    for row, column, cell in places(table) if table.compares else ():
        if row.shown and any(curve(record, row.reading) for record in cell.records.values()):
            of_place.setdefault(where(column), []).append((row, column, cell))
    found = []
    for entries in of_place.values():
        levels = _round_levels(entries, table)
        for row, column, cell in entries:
            base = cell if cell.base is None else cell.base
            own = row.reading if cell.base is None else readings.META
            level = _final(base, own)
            at_final = None if level is None else reached(cell, row.reading, level, table)
            of_base = None if level is None else reached(base, own, level, table)
            at_round = {v: reached(cell, row.reading, v, table) for v in levels}
            found.append(Arrival(row, column, at_final, of_base if cell.base else None, at_round))
    return found


def _final(cell: Cell, reading: str) -> float | None:
    """The mean over finished runs of the last validation score; None without a curve."""
    curves = [curve(r, reading) for r in cell.records.values() if r.status == FINISHED]
    ends = [c[max(c)] for c in curves if c]
    return statistics.fmean(ends) if ends else None


def reached(cell: Cell, reading: str, level: float, table: Table) -> Reached:
    """The first validated outer step at which each run is at ``level`` or better.

    Runs without a curve count as never there.
    """
    curves = {seed: curve(record, reading) for seed, record in sorted(cell.records.items())}
    first = {
        seed: min((s for s, v in c.items() if table.better * (v - level) >= 0), default=math.inf)
        for seed, c in curves.items()
    }
    never = _names(cell, [seed for seed, step in first.items() if math.isinf(step)], table)
    ends = {max(c, default=0) for c in curves.values()}
    median = statistics.median(first.values()) if first else math.nan
    there = len(first) - len(never)
    return Reached(level, median, there, len(first), never, ends.pop() if len(ends) == 1 else None)


def _round_levels(entries: list[tuple[TableRow, Column, Cell]], table: Table) -> list[float]:
    """The best round levels that half of the runs of some row reach after step 0, from the easiest
    on. An accuracy is above chance.
    """
    way = max(r.spec.way for _, _, cell in entries for r in cell.records.values())
    found = []
    for level in ROUND[::-1] if table.better > 0 else ROUND_ERRORS[::-1]:
        if table.better > 0 and level <= 100 / way:
            continue
        medians = [reached(cell, row.reading, level, table).median for row, _, cell in entries]
        if any(math.isfinite(m) for m in medians) and any(m > 0 for m in medians):
            found.append(float(level))
    return found[:LEVELS][::-1]
