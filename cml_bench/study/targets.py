"""Parts of a study by name: ``table2``, ``table2_cifar_fs``, ``table1_n3``,
``table2_cifar_fs_1shot_n3``.

``_DATA`` keeps the columns on one data set, ``_Kshot`` those of K shots, ``_nK`` the first K seeds.
The name of a data set (``cifar_fs``, ``cifar_fs_1shot``, ``cifar_fs_n3``) means every table that
has it, and ``nK`` every table with K seeds. Imports no torch.
"""

import re
from collections.abc import Sequence, Set
from typing import NamedTuple

from cml_bench.errors import UserError, unknown
from cml_bench.registry import tables
from cml_bench.study.plan import Plan, PlannedCell, PlannedTable
from cml_bench.study.schema import ColumnGroup, TableConfig

_PART = re.compile(r"(figure\d+)[a-z]")


def _data_of(plan: Plan, table: TableConfig) -> list[str]:
    """Names of the data sets behind a table's columns, in their order."""
    return list(
        dict.fromkeys(plan.study.experiments[group.experiment].data for group in table.columns)
    )


def _most_seeds(plan: Plan, table: TableConfig) -> int:
    members = [plan.members[group.experiment] for group in table.columns]
    return max(
        len(ids) for methods in members for shots in methods.values() for ids in shots.values()
    )


def _columns(plan: Plan, shown: Sequence[ColumnGroup]) -> int:
    return sum(
        len(group.shots or plan.study.experiments[group.experiment].shots) for group in shown
    )


class TablePart(NamedTuple):
    """A part of a table: its columns on one data set, of one number of shots, of the first seeds.

    An empty name and 0 mean all.
    """

    table: str
    data: str = ""
    shot: int = 0
    seeds: int = 0

    @property
    def suffix(self) -> str:
        """The end of its name, behind the data set."""
        return (f"_{self.shot}shot" if self.shot else "") + (
            f"_n{self.seeds}" if self.seeds else ""
        )

    @property
    def name(self) -> str:
        """``table2_cifar_fs_1shot_n3``."""
        return self.table + (f"_{self.data}" if self.data else "") + self.suffix


def _columns_of(plan: Plan, part: TablePart) -> tuple[ColumnGroup, ...]:
    """The part's groups of columns; a part of one number of shots has these alone."""
    columns = []
    for group in plan.tables[part.table].columns:
        experiment = plan.study.experiments[group.experiment]
        if not part.data or experiment.data == part.data:
            shots = group.shots or experiment.shots
            if not part.shot:
                columns.append(group)
            elif part.shot in shots:
                columns.append(group.model_copy(update={"shots": (part.shot,)}))
    return tuple(columns)


def _shots_of(plan: Plan, part: TablePart) -> list[int]:
    experiments = plan.study.experiments
    return sorted(
        {
            shot
            for g in _columns_of(plan, part)
            for shot in g.shots or experiments[g.experiment].shots
        }
    )


def parts(plan: Plan) -> dict[str, TablePart]:
    """Name -> part, for every part of every table and for whole tables."""
    every = {}
    for key, table in plan.tables.items():
        data = _data_of(plan, table)
        for name in ["", *(data if len(data) > 1 else [])]:
            shots = _shots_of(plan, TablePart(key, name))
            for shot in [0, *(shots if len(shots) > 1 else [])]:
                for n in [0, *range(1, _most_seeds(plan, table) + 1)]:
                    part = TablePart(key, name, shot, n)
                    if part.name not in plan.tables or part.name == key:
                        every[part.name] = part
    return every


def groups(plan: Plan) -> dict[str, list[str]]:
    """Names that mean several tables -> the parts that they mean.

    A name that a table, a part or a figure has is not among them.
    """
    members: dict[str, list[str]] = {}
    known = parts(plan)
    for name, part in known.items():
        data = _data_of(plan, plan.tables[part.table])
        if part.seeds and not part.data and not part.shot:
            members.setdefault(f"n{part.seeds}", []).append(name)
        for each in [part.data] if part.data else data if len(data) == 1 else []:
            members.setdefault(each + part.suffix, []).append(name)
    taken = {*known, *plan.figures}
    return {name: tables for name, tables in members.items() if name not in taken}


def restrict(plan: Plan, name: str) -> Plan:
    """The plan with one table, the part ``name``. A UserError for an unknown name."""
    if name in plan.tables:
        return plan
    known = parts(plan)
    if name not in known:
        raise UserError(
            f"{unknown('table', name, plan.tables)} Parts of them are TABLE_DATA (one data set),"
            " TABLE_Kshot (one number of shots), TABLE_nK (the first K seeds), and these together,"
            " in this order: TABLE_DATA_Kshot_nK."
        )
    part = known[name]
    table, columns, n = plan.tables[part.table], _columns_of(plan, part), part.seeds
    unit = "class split" if tables.get(table.kind).over_splits else "seed"
    told = [part.data] * bool(part.data) + [f"{part.shot}-shot"] * bool(part.shot)
    told += [f"the first {n} {unit}{'s' * (n > 1)}"] * bool(n)
    members = {
        experiment: {
            run: {shot: ids[: n or None] for shot, ids in shots.items()}
            for run, shots in methods.items()
        }
        for experiment, methods in plan.members.items()
    }
    share = _columns(plan, table.columns) / _columns(plan, columns)
    title = f"{table.title} ({', '.join(told)})"
    shown = table.model_copy(update={"whole_columns": share, "columns": columns, "title": title})
    titles = {group.title for group in columns}
    cells = tuple(
        _first(cell, n).model_copy(update={"table": name})
        for cell in plan.cells
        if cell.table == part.table and cell.columns in titles and part.shot in (0, cell.shot)
    )
    return plan.model_copy(update={"tables": {name: shown}, "members": members, "cells": cells})


def _first(cell: PlannedCell, n: int) -> PlannedCell:
    """The cell with its first ``n`` runs, and its baseline's. 0 means all."""
    against = cell.against and cell.against[: n or None]
    return cell.model_copy(update={"runs": cell.runs[: n or None], "against": against})


def figure_groups(plan: Plan) -> dict[str, list[str]]:
    """``figure3`` -> its parts ``figure3a``, ``figure3b``, ..., in their order."""
    members: dict[str, list[str]] = {}
    for key in plan.figures:
        if match := _PART.match(key):
            members.setdefault(match[1], []).append(key)
    return {
        name: keys for name, keys in members.items() if name not in {*plan.figures, *parts(plan)}
    }


def expand_figures(plan: Plan, names: list[str]) -> list[str]:
    """Names of figures, where a name of several is replaced by theirs. Without names: all."""
    several = figure_groups(plan)
    return [key for name in names for key in several.get(name, [name])] or list(plan.figures)


def expand(plan: Plan, names: list[str]) -> list[str]:
    """Names of tables and parts, where a name of several is replaced by theirs. Without names: all
    tables.
    """
    several = groups(plan)
    return [part for name in names for part in several.get(name, [name])] or list(plan.tables)


def focused(plan: Plan, tables: Sequence[str], figures: Sequence[str]) -> Plan:
    """The plan of these tables, parts of tables and figures alone: their runs, jobs and data."""
    kept: dict[str, PlannedTable] = {}
    cells: list[PlannedCell] = []
    for name in tables:
        part = restrict(plan, name)
        kept[name] = part.tables[name]
        cells += [cell for cell in part.cells if cell.table == name]
    drawn = {key: plan.figures[key] for key in figures}
    runs = {run for cell in cells for run in cell.needs}
    runs |= {run for key in drawn for run in runs_of_figure(plan, key)}
    return with_runs(plan, runs).model_copy(
        update={"tables": kept, "cells": tuple(cells), "figures": drawn}
    )


def with_runs(plan: Plan, runs: Set[str]) -> Plan:
    """The plan with these runs alone, with their jobs and data, and without tables and figures."""
    own = tuple(run for run in plan.runs if run.id in runs)
    used = {run.spec.data_id for run in own}
    return plan.model_copy(
        update={
            "runs": own,
            "jobs": tuple(job for job in plan.jobs if runs & {*job.runs}),
            "data": tuple(item for item in plan.data if item.data_id in used),
            "tables": {},
            "cells": (),
            "figures": {},
            "sweeps": (),
            "whole": None,
        }
    )


def runs_of_figure(plan: Plan, key: str) -> list[str]:
    """The ids of the runs that a figure shows."""
    figure = plan.figures[key]
    methods = plan.members[figure.experiment]
    shown = [methods[row.run] for row in figure.runs]
    return [run for shots in shown for shot in figure.shots or shots for run in shots[shot]]
