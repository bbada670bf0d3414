"""A study's learning curves, for its page. Imports no torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from cml_bench import titles
from cml_bench.figures import style
from cml_bench.records import Record
from cml_bench.report import charts
from cml_bench.study.plan import Plan


def sections(plan: Plan, records: dict[str, Record]) -> list[dict[str, Any]]:
    """Each experiment's charts: for each shot, scores in validation and in training."""
    by_experiment, names, order, named = [], labels(plan), style.order(plan), experiments(plan)
    most = max(8, charts.MOST_POINTS // max(1, 2 * len(records)))
    for name, methods in plan.members.items():
        drawn: dict[str, list[charts.Curve]] = {}
        for shot in sorted({shot for by_shot in methods.values() for shot in by_shot}):
            here = [
                (names[name, k], records[i])
                for k in methods
                for i in methods[k].get(shot, ())
                if i in records
            ]
            if curves := charts.curves(here, "validation"):
                drawn[f"{shot}-shot, validation"] = curves
            if curves := charts.curves(here, "train"):
                drawn[f"{shot}-shot, training"] = curves
        there = {curve.method for curves in drawn.values() for curve in curves}
        styles = {names[name, key]: order.index(key) for key in methods}
        styles = {label: number for label, number in styles.items() if label in there}
        kind = next((r.kind for i, r in records.items() if i in _members(methods)), "")
        specs = [
            charts.learning(curves, styles, title, kind, most) for title, curves in drawn.items()
        ]
        if specs:
            by_experiment.append({"name": named[name], "specs": specs})
    return by_experiment


def _members(methods: Mapping[str, Mapping[int, Sequence[str]]]) -> set[str]:
    return {i for by_shot in methods.values() for ids in by_shot.values() for i in ids}


def labels(plan: Plan) -> dict[tuple[str, str], str]:
    """Experiment and run -> its label in the tables, or the title of its key where no table has it.
    The key itself where two runs have one label.
    """
    in_tables: dict[tuple[str, str], str] = {}
    for table in plan.tables.values():
        for group in table.columns:
            for row in sorted(table.rows, key=lambda row: row.reading != "meta"):
                for experiment in filter(None, (group.experiment, group.fixed)):
                    in_tables.setdefault((experiment, row.run), row.label)
    found = {}
    for name, methods in plan.members.items():
        every = [in_tables.get((name, key), titles.of(key)) for key in methods]
        for key, label in zip(methods, every, strict=True):
            found[name, key] = label if every.count(label) == 1 else key
    return found


def experiments(plan: Plan) -> dict[str, str]:
    """Experiment -> the title of the first table, else figure, that shows it. Its key where there
    is none, and beside a title that two experiments have.
    """
    found: dict[str, str] = {}
    for table in plan.tables.values():
        for group in table.columns:
            title = ": ".join(filter(None, (table.title, group.title)))
            found.setdefault(group.experiment, title)
            if group.fixed:
                found.setdefault(group.fixed, f"{title}, one split")
    for figure in plan.figures.values():
        found.setdefault(figure.experiment, figure.title)
    every = [found.get(name, name) for name in plan.members]
    return {
        name: title if every.count(title) == 1 else f"{title} ({name})"
        for name, title in zip(plan.members, every, strict=True)
    }
