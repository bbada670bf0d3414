"""Parts of a study by name: ``table2``, ``table2_cifar_fs``, ``table1_n3``, ``table2_cifar_fs_n3``. Imports no torch.

``_DATA`` keeps the columns on one data set, ``_nK`` the first K seeds. A data set's own name (``cifar_fs``,
``cifar_fs_n3``) is every table that has it, ``nK`` every table with so many seeds.
"""

import re
from collections.abc import Sequence

from cml_bench.errors import UserError, unknown
from cml_bench.study.config import ColumnGroup, TableConfig
from cml_bench.study.plan import Plan, PlannedCell

_PART = re.compile(r"(figure\d+)[a-z]")


def _data_of(plan: Plan, table: TableConfig) -> list[str]:
    """Names of the data sets behind a table's columns, in their order."""
    return list(dict.fromkeys(plan.study.experiments[group.experiment].data for group in table.columns))


def _most_seeds(plan: Plan, table: TableConfig) -> int:
    members = [plan.members[group.experiment] for group in table.columns]
    return max(len(ids) for methods in members for shots in methods.values() for ids in shots.values())


def _columns(plan: Plan, shown: Sequence[ColumnGroup]) -> int:
    return sum(len(group.shots or plan.study.experiments[group.experiment].shots) for group in shown)


def parts(plan: Plan) -> dict[str, tuple[str, str, int]]:
    """Name of every part of every table -> (table, data set or "", number of seeds or 0), whole tables included."""
    found = {}
    for key, table in plan.tables.items():
        data = _data_of(plan, table)
        for name in ["", *(data if len(data) > 1 else [])]:
            for n in [0, *range(1, _most_seeds(plan, table) + 1)]:
                whole = key + (f"_{name}" if name else "") + (f"_n{n}" if n else "")
                if whole not in plan.tables or whole == key:
                    found[whole] = (key, name, n)
    return found


def groups(plan: Plan) -> dict[str, list[str]]:
    """Names that mean several tables -> the parts that they mean; names of tables and figures come first."""
    found: dict[str, list[str]] = {}
    for part, (key, name, n) in parts(plan).items():
        data = _data_of(plan, plan.tables[key])
        suffix = f"_n{n}" if n else ""
        if n and not name:
            found.setdefault(f"n{n}", []).append(part)
        for each in [name] if name else data if len(data) == 1 else []:
            found.setdefault(each + suffix, []).append(part)
    taken = {*parts(plan), *plan.figures}
    return {name: tables for name, tables in found.items() if name not in taken}


def restrict(plan: Plan, name: str) -> Plan:
    """The plan with one table, the part ``name``. A UserError for an unknown name."""
    if name in plan.tables:
        return plan
    known = parts(plan)
    if name not in known:
        raise UserError(
            f"{unknown('table', name, plan.tables)} Parts of them are TABLE_DATA (one data set), TABLE_nK (the "
            "first K seeds) and TABLE_DATA_nK."
        )
    key, data, n = known[name]
    table, experiments = plan.tables[key], plan.study.experiments
    columns = tuple(g for g in table.columns if not data or experiments[g.experiment].data == data)
    unit = "class split" if table.kind == "splits" else "seed"
    told = [data] * bool(data) + [f"the first {n} {unit}{'s' * (n > 1)}"] * bool(n)
    members = {
        experiment: {run: {shot: ids[: n or None] for shot, ids in shots.items()} for run, shots in methods.items()}
        for experiment, methods in plan.members.items()
    }
    share = _columns(plan, table.columns) / _columns(plan, columns)
    title = f"{table.title} ({', '.join(told)})"
    part = table.model_copy(update={"whole_columns": share, "columns": columns, "title": title})
    titles = {group.title for group in columns}
    cells = tuple(
        _first(cell, n).model_copy(update={"table": name})
        for cell in plan.cells
        if cell.table == key and cell.columns in titles
    )
    return plan.model_copy(update={"tables": {name: part}, "members": members, "cells": cells})


def _first(cell: PlannedCell, n: int) -> PlannedCell:
    """The cell with the first ``n`` runs on both sides; 0: all."""
    against = cell.against and cell.against[: n or None]
    return cell.model_copy(update={"runs": cell.runs[: n or None], "against": against})


def figure_groups(plan: Plan) -> dict[str, list[str]]:
    """``figure3`` -> its parts ``figure3a``, ``figure3b``, ..., in their order."""
    found: dict[str, list[str]] = {}
    for key in plan.figures:
        if match := _PART.match(key):
            found.setdefault(match[1], []).append(key)
    return {name: keys for name, keys in found.items() if name not in {*plan.figures, *parts(plan)}}


def expand_figures(plan: Plan, names: list[str]) -> list[str]:
    """Names of figures, those that mean several replaced by these; none: every figure of the study."""
    several = figure_groups(plan)
    return [key for name in names for key in several.get(name, [name])] or list(plan.figures)


def expand(plan: Plan, names: list[str]) -> list[str]:
    """Names of tables and their parts, those that mean several replaced by these; none: every table of the study."""
    several = groups(plan)
    return [part for name in names for part in several.get(name, [name])] or list(plan.tables)
