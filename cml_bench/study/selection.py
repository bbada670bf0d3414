"""Which setting of a sweep is selected: by validation tasks alone, from records. Imports no torch.

**The rule.** A run's score is that of the model which would be tested: its meta head on validation
tasks, at the outer step that was selected within the run. A setting's score is the mean over the
seeds of the selection. Of each method, at each number of shots, the setting with the best score is
selected; of equal ones the one that the sweep names first. A setting with a diverged run cannot be
selected. As long as a run of any setting is missing, nothing is. Test results are never read: the
runs of the selection have none, unless another study asks for them.

The selection is a function of the plan and of records, so there is no file of it that could be out
of date. A plan (:func:`cml_bench.study.resolve.resolve`) has the runs of the report in every
setting. :func:`narrowed` leaves those that are selected.
"""

import itertools
import math
import re
import statistics
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from cml_bench.records import DIVERGED, Record, Store
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import Row
from cml_bench.study.plan import (
    Members,
    Plan,
    PlannedSetting,
    PlannedSweep,
    PlannedTable,
    cells_of,
)
from cml_bench.study.schema import Experiment, Study
from cml_bench.study.sweeps import made_entries, settings, tried_entry, tuned_entry, tuned_of

RULE = (
    "the setting with the best mean score on validation tasks over the seeds of the selection; of"
    " equal ones the first"
)
_DIGITS = 9  # of a mean: beyond them rounding, not a run, would decide
_NAMED = 3


def planned(study: Study, members: Members) -> tuple[PlannedSweep, ...]:
    """The sweeps of a study's experiments, with the ids of their runs."""
    found = []
    for name, experiment in study.experiments.items():
        if (sweep := experiment.sweep) is None:
            continue
        for method, shot in itertools.product(sweep.methods, experiment.shots):
            tried = tuple(
                PlannedSetting(
                    values=values,
                    tried=members[name][tried_entry(method, number)][shot],
                    tuned=members[name][tuned_entry(method, number)][shot],
                )
                for number, values in enumerate(settings(sweep, method), 1)
            )
            number = _settings(len(tried))
            told = f"a grid of {number}"
            if sweep.draw != "grid":
                told = f"{number} drawn at random with seed {sweep.seed}"
            found.append(
                PlannedSweep(experiment=name, method=method, shot=shot, drawn=told, settings=tried)
            )
    return tuple(found)


def _settings(number: int) -> str:
    return f"{number} setting{'s' * (number > 1)}"


def titles(sweeps: Collection[PlannedSweep]) -> dict[str, str]:
    """Run id -> the setting that a run is of, for its title."""
    return {
        run: text(setting.values)
        for sweep in sweeps
        for setting in sweep.settings
        for run in (*setting.tried, *setting.tuned)
    }


# -- the selection


class Tried(NamedTuple):
    """A setting and what its runs say of it.

    ``scores``: seed -> score on validation tasks, in percent, or as a squared error. ``diverged``,
    ``missing``: names of runs. ``seconds``: of all its runs, of a GPU or of one core.
    """

    values: dict[str, Any]
    scores: dict[int, float]
    diverged: tuple[str, ...]
    missing: tuple[str, ...]
    seconds: float

    @property
    def mean(self) -> float:
        """The score of the setting; nan if it has none."""
        whole = self.scores and not self.diverged and not self.missing
        return statistics.fmean(self.scores.values()) if whole else math.nan

    @property
    def sd(self) -> float:
        """The standard deviation over seeds; nan with fewer than two."""
        return statistics.stdev(self.scores.values()) if len(self.scores) > 1 else math.nan


class Selected(NamedTuple):
    """A sweep, its settings in their order, and the place of the selected one; None: ``reason``.

    ``better``: 1 where a higher score is better, -1 where a lower one is. ``device``: what the runs
    were made on, such as ``cpu``.
    """

    sweep: PlannedSweep
    tried: tuple[Tried, ...]
    chosen: int | None
    reason: str
    better: int
    kind: str
    device: str

    @property
    def equal(self) -> int:
        """How many settings have the score of the selected one, which is among them."""
        if self.chosen is None:
            return 0
        best = round(self.tried[self.chosen].mean, _DIGITS)
        return sum(round(one.mean, _DIGITS) == best for one in self.tried)

    def edges(self) -> dict[str, str]:
        """Option -> ``smallest`` or ``largest``: its selected value is that of all tried ones."""
        if self.chosen is None:
            return {}
        found = {}
        for name, value in self.tried[self.chosen].values.items():
            every = {one.values[name] for one in self.tried}
            numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in every)
            if numbers and len(every) > 1 and value in (ends := (min(every), max(every))):
                found[name] = ("smallest", "largest")[ends.index(value)]
        return found


def selections(plan: Plan, store: Store) -> list[Selected]:
    """What the records say of each sweep of a plan."""
    specs = (plan.whole or plan).specs
    found = []
    for sweep in plan.sweeps:
        records: dict[str, Record] = {}
        for run in (run for setting in sweep.settings for run in setting.tried):
            record, _ = store.usable(specs[run])
            if record is not None:
                records[run] = record
        found.append(select(sweep, records, specs))
    return found


def select(
    sweep: PlannedSweep, records: Mapping[str, Record], specs: Mapping[str, RunSpec]
) -> Selected:
    """The setting that the records of a sweep select, by the rule of this module."""
    tried = tuple(_tried(setting, records, specs) for setting in sweep.settings)
    kinds = {record.kind for record in records.values()}
    kind = next(iter(kinds), "classification")
    better = -1 if kind == "regression" else 1
    device = ", ".join(sorted({r.engine.device.partition(":")[0] for r in records.values()}))
    chosen, reason = None, _reason(tried, records)
    if not reason:
        fit = [number for number, one in enumerate(tried) if not math.isnan(one.mean)]
        # max() keeps the first of equal ones.
        chosen = max(fit, key=lambda number: better * round(tried[number].mean, _DIGITS))
    return Selected(sweep, tried, chosen, reason, better, kind, device)


def _tried(
    setting: PlannedSetting, records: Mapping[str, Record], specs: Mapping[str, RunSpec]
) -> Tried:
    there = [records[run] for run in setting.tried if run in records]
    scores = {r.spec.seed: value for r in there if (value := _score(r)) is not None}
    return Tried(
        setting.values,
        scores,
        tuple(r.spec.title for r in there if r.status == DIVERGED or _score(r) is None),
        tuple(
            f"{text(setting.values)}, seed {specs[run].seed}"
            for run in setting.tried
            if run not in records
        ),
        sum(_seconds(record) for record in there),
    )


def _seconds(record: Record) -> float:
    """Of a GPU, or of one core."""
    engine, seconds = record.engine, sum(record.seconds.parts().values())
    return seconds if engine.device.startswith("cuda") else seconds * engine.threads


def _score(record: Record) -> float | None:
    """The validation score of the model that is tested; None if there is none that is finite."""
    curves = record.curves
    by_step = dict(zip(curves.step, curves.validation.score("meta"), strict=False))
    score = by_step.get(record.selected.get("best_meta", -1))
    return None if score is None else record.scale * score


def _reason(tried: tuple[Tried, ...], records: Mapping[str, Record]) -> str:
    """Why nothing can be selected; empty: it can."""
    missing = [run for one in tried for run in one.missing]
    if missing:
        named = "; ".join(missing[:_NAMED]) + "; …" * (len(missing) > _NAMED)
        told = f"{len(missing)} of {len(missing) + len(records)} runs are not finished"
        return f"{told} ({named})" if records else told
    if len({record.data_sha256 for record in records.values()}) > 1:
        return "its runs are of different data"
    if all(one.diverged for one in tried):
        return "every setting has a run that diverged"
    return ""


# -- the plan with what is selected


def narrowed(plan: Plan, store: Store) -> Plan:
    """The plan with the runs of the selected settings alone, among those of the report.

    The runs of the selection are no member of an experiment there: ``sweeps`` alone names them. An
    experiment of which nothing is selected yet has none of the report's, and no row or line that
    shows them.
    """
    plan = plan.whole or plan
    if not plan.sweeps:
        return plan
    chosen: dict[str, dict[str, dict[int, PlannedSetting | None]]] = {}
    for one in selections(plan, store):
        setting = None if one.chosen is None else one.sweep.settings[one.chosen]
        of_method = chosen.setdefault(one.sweep.experiment, {}).setdefault(one.sweep.method, {})
        of_method[one.sweep.shot] = setting
    members, experiments = dict(plan.members), dict(plan.study.experiments)
    absent: dict[str, set[str]] = {}  # experiment -> keys that mean nothing yet
    for name, methods in chosen.items():
        unknown = made_entries(plan.study.experiments[name])
        members[name] = {k: runs for k, runs in plan.members[name].items() if k not in unknown}
        ready = all(setting for by_shot in methods.values() for setting in by_shot.values())
        for method, by_shot in methods.items() if ready else ():
            members[name][tuned_of(method)] = {
                shot: setting.tuned for shot, setting in by_shot.items() if setting
            }
        absent[name] = unknown - members[name].keys()
        experiments[name] = _without(plan.study.experiments[name], absent[name])
    tables = {
        key: table.model_copy(update={"rows": rows})
        for key, table in plan.tables.items()
        if (rows := _rows(plan, table, absent))
    }
    figures = {
        key: figure.model_copy(update={"runs": runs})
        for key, figure in plan.figures.items()
        if (runs := tuple(r for r in figure.runs if r.run not in absent.get(figure.experiment, ())))
    }
    study = plan.study.model_copy(
        update={"experiments": experiments, "tables": tables, "figures": figures}
    )
    tried = {run for one in plan.sweeps for setting in one.settings for run in setting.tried}
    return _of(plan, members, tried).model_copy(
        update={
            "study": study,
            "tables": tables,
            "figures": figures,
            "cells": cells_of(study, members),
            "whole": plan,
        }
    )


def _without(experiment: Experiment, keys: Collection[str]) -> Experiment:
    methods = {key: entry for key, entry in experiment.methods.items() if key not in keys}
    return experiment.model_copy(update={"methods": methods})


def _rows(plan: Plan, table: PlannedTable, absent: Mapping[str, set[str]]) -> tuple[Row, ...]:
    """The table's rows that have runs. What was selected for a row is what it varies in."""
    gone = {key for name in table.experiments for key in absent.get(name, ())}
    rows = []
    for row in table.rows:
        if {row.run, row.against} & gone:
            continue
        swept = [*swept_options(plan, row.run), *swept_options(plan, row.against)]
        rows.append(row.model_copy(update={"varies": tuple(dict.fromkeys((*row.varies, *swept)))}))
    return tuple(rows)


def _of(plan: Plan, members: Members, more: Collection[str]) -> Plan:
    """The plan with the runs of these members and ``more``, with their jobs and data."""
    by_shot = itertools.chain.from_iterable(keys.values() for keys in members.values())
    ids = itertools.chain.from_iterable(shots.values() for shots in by_shot)
    used = {*more, *itertools.chain.from_iterable(ids)}
    runs = tuple(run for run in plan.runs if run.id in used)
    data = {run.spec.data_id for run in runs}
    return plan.model_copy(
        update={
            "members": members,
            "runs": runs,
            "jobs": tuple(job for job in plan.jobs if used & {*job.runs}),
            "data": tuple(item for item in plan.data if item.data_id in data),
        }
    )


def text(values: Mapping[str, Any]) -> str:
    """``inner_lr 0.1, protocol.outer_lr 0.001``."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def budget(sweep: PlannedSweep) -> str:
    """``sweep of maml in omniglot, 1-shot: a grid of 9 settings, 3 seeds each, 27 runs``."""
    number, seeds = len(sweep.settings), len(sweep.settings[0].tried)
    return (
        f"sweep of {sweep.method} in {sweep.experiment}, {sweep.shot}-shot: {sweep.drawn}, {seeds}"
        f" seed{'s' * (seeds > 1)} each, {number * seeds} run{'s' * (number * seeds > 1)}"
    )


def outcome(one: Selected) -> str:
    """``selected: inner_lr 0.1``, or why nothing is."""
    if one.chosen is None:
        return f"nothing is selected: {one.reason}"
    return f"selected: {text(one.tried[one.chosen].values)}"


def content(plan: Plan, found: Collection[Selected]) -> dict[str, Any]:
    """All settings and the selected ones as plain values, for a file."""
    return {
        "study": plan.study.study,
        "rule": RULE,
        "sweeps": [
            {
                "experiment": one.sweep.experiment,
                "method": one.sweep.method,
                "shot": one.sweep.shot,
                "selected": None if one.chosen is None else one.tried[one.chosen].values,
                "reason": one.reason,
                "settings": [
                    {
                        "values": tried.values,
                        "validation": {str(seed): score for seed, score in tried.scores.items()},
                        "mean": None if math.isnan(tried.mean) else tried.mean,
                        "diverged": list(tried.diverged),
                        "seconds": round(tried.seconds, 3),
                    }
                    for tried in one.tried
                ],
            }
            for one in found
        ],
    }


# -- what rows of selected settings are


def sweeps_of(plan: Plan, key: str | None) -> list[PlannedSweep]:
    """The sweeps of which a key of a row, such as ``maml_tuned``, shows what is selected."""
    return [sweep for sweep in plan.sweeps if tuned_of(sweep.method) == key]


def swept_options(plan: Plan, key: str | None) -> list[str]:
    """The options in which such a row may differ from others, by their names in study/likes.py."""
    options = [name for sweep in sweeps_of(plan, key) for name in sweep.settings[0].values]
    return [re.sub(r"^inner_lr_init$", "inner_lr", name) for name in dict.fromkeys(options)]


def unequal(plan: Plan, key: str, against: str | None) -> str:
    """Why a row and its baseline may not be compared for what was tried for each; empty: they may.

    Each must have been tried in as many settings, with as many seeds.
    """
    mine, other = (
        {(s.experiment, s.shot): (len(s.settings), len(s.settings[0].tried)) for s in of}
        for of in (sweeps_of(plan, key), sweeps_of(plan, against))
    )
    for place in mine.keys() | other.keys():
        one, two = mine.get(place, (1, 0)), other.get(place, (1, 0))
        if one != two:
            return f"unequal budgets ({_budget(*one)} and {_budget(*two)}): not tested"
    return ""


def _budget(number: int, seeds: int) -> str:
    if not seeds:
        return "one setting as published"
    return f"{_settings(number)} with {seeds} seed{'s' * (seeds > 1)}"
