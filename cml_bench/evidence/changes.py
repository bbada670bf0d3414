"""The changes of gains between published tables that ``configs/reference/changes.yaml`` asks for.

Each is tested by ``change.py``, with Holm's correction over the whole file: one family for the
meta-learner's gains, one for the co-learner's. Imports no torch.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from cml_bench import readings
from cml_bench.errors import UserError
from cml_bench.evidence import change
from cml_bench.evidence.build import build, mixture
from cml_bench.evidence.change import Change
from cml_bench.evidence.table import Cell, Table, TableRow
from cml_bench.records import Store
from cml_bench.spec import Model, RunSpec, canonical
from cml_bench.study import selection, strict_yaml
from cml_bench.study.figure_config import Positive
from cml_bench.study.plan import Plan
from cml_bench.study.protocols import flat
from cml_bench.texts import Line

FILE = Path("configs/reference/changes.yaml")


class Place(Model):
    """A table of a published study, and how it is named beside the other one.

    ``tuned``: its rows of selected settings, such as ``MAML + CML, tuned``.
    """

    config: str
    table: str
    called: Line
    tuned: bool = False


class Asked(Model):
    """Gains of some rows at some shots, in two places."""

    first: Place
    second: Place
    rows: tuple[Line, ...] = Field(min_length=1)
    shots: tuple[Positive, ...] = Field(min_length=1)


class Changes(Model):
    """The file."""

    changes: tuple[Asked, ...] = Field(min_length=1)


class Tested(NamedTuple):
    """One change with its test. ``unlike``: options in which the runs of the two places differ, as
    ``steps 400 / 1000``.
    """

    row: str
    against: str
    shot: int
    first: str
    second: str
    change: Change
    unlike: tuple[str, ...]
    kind: str


def read(path: Path = FILE) -> Changes:
    """The file's content. A UserError names what is wrong in it."""
    content = strict_yaml.read(path, missing=f"there is no file {path}.")
    return Changes.read(content, str(path))


def tested(
    asked: Changes, plan_of: Callable[[str], Plan], reference: Path, where: str
) -> list[Tested]:
    """All changes that are asked for, from the records under ``reference``/<study>.

    ``plan_of`` gives the plan of a configuration file. A UserError names a table, row or shot that
    is not there, before any change is computed.
    """
    tables: dict[tuple[str, str], tuple[Plan, Table]] = {}
    for place in (p for entry in asked.changes for p in (entry.first, entry.second)):
        if (place.config, place.table) not in tables:
            plan = plan_of(place.config)
            if place.table not in plan.tables:
                raise UserError(
                    f"{where}: {place.config} has no table {place.table!r}: name one of"
                    f" {', '.join(plan.tables)}."
                )
            store = Store(Path(reference) / plan.study.study)
            plan = selection.narrowed(plan, store)
            tables[place.config, place.table] = plan, build(plan, store, place.table)
    found = []
    for entry in asked.changes:
        sides = [tables[p.config, p.table] for p in (entry.first, entry.second)]
        if sides[0][1].kind != sides[1][1].kind:
            raise UserError(
                f"{where}: {entry.first.table} and {entry.second.table} are tables of other kinds,"
                " so their gains cannot be compared: name two of one kind."
            )
        for row in entry.rows:
            found += [_tested(entry, row, shot, sides, where) for shot in entry.shots]
    families = [reading for _, reading in found]
    changed = change.adjusted([line.change for line, _ in found], families)
    return [line._replace(change=c) for (line, _), c in zip(found, changed, strict=True)]


def _tested(
    entry: Asked, label: str, shot: int, sides: list[tuple[Plan, Table]], where: str
) -> tuple[Tested, bool]:
    """One change, not yet adjusted, and whether it is of the meta-learner."""
    places = (entry.first, entry.second)
    labels = [f"{label}, tuned" if place.tuned else label for place in places]
    picked = [
        _cell(table, name, shot, where) for name, (_, table) in zip(labels, sides, strict=True)
    ]
    (row, first), (_, second) = picked
    better = sides[0][1].better
    mixed = mixture([c for cell in (first, second) for c in (cell, cell.base) if c])
    gains = [{} if mixed else change.gains(cell, better) for _, cell in picked]
    changed = change.change(*gains)
    tasks = [{len(s) for s in c.scores.values()} for c in (first, second)]
    plans = [plan for plan, _ in sides]
    unlike = _unlike_pairs(row, plans, (first, second))
    if mixed:
        unlike = (*unlike, mixed)
    if all(tasks) and tasks[0] != tasks[1]:
        unlike = (*unlike, "test tasks")
    line = Tested(
        row.label,
        str(row.against),
        shot,
        entry.first.called,
        entry.second.called,
        changed,
        unlike,
        sides[0][1].kind,
    )
    return line, row.reading == readings.META


def _cell(table: Table, label: str, shot: int, where: str) -> tuple[TableRow, Cell]:
    row = next((r for r in table.rows if r.label == label and r.against), None)
    if row is None:
        compared = ", ".join(dict.fromkeys(r.label for r in table.rows if r.against))
        raise UserError(
            f"{where}: table {table.key} compares no row {label!r}: name one of {compared}."
        )
    columns = [c for c in table.columns if c.shot == shot]
    if len(columns) != 1:
        raise UserError(
            f"{where}: table {table.key} has {len(columns)} columns of {shot} shots, and one is"
            " needed: name other shots, or a table with one column for each."
        )
    return row, row.cells[columns[0]]


def _unlike_pairs(
    row: TableRow, plans: Sequence[Plan], cells: tuple[Cell, Cell]
) -> tuple[str, ...]:
    """What differs between two places in the row's runs and in its baseline's. An option that
    differs in one of the two alone says in which.
    """

    def between(pair: Sequence[Cell | None]) -> tuple[str, ...]:
        runs = [[plan.specs[i] for i in c.runs] for plan, c in zip(plans, pair, strict=True) if c]
        return _unlike(runs[0][0], runs[1][0]) if len(runs) == 2 and all(runs) else ()

    own, base = between(cells), between([cell.base for cell in cells])
    alone = [f"{text} (of {row.against})" for text in base if text not in own]
    return (*(f"{text}{'' if text in base else f' (of {row.label})'}" for text in own), *alone)


def _unlike(a: RunSpec, b: RunSpec) -> tuple[str, ...]:
    """Options in which two runs differ, but for the seed."""
    x, y = (flat({**canonical(spec), "seed": 0}, "") for spec in (a, b))
    keys = [key for key in {**x, **y} if x.get(key) != y.get(key)]
    return tuple(f"{key} {x.get(key, 'default')} / {y.get(key, 'default')}" for key in keys)
