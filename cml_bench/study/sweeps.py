"""Sweeps: from an experiment's key ``sweep`` to the settings that are tried. Imports no torch.

A setting is one value for each swept option of a method. For each setting of a method x there are
two entries among the experiment's methods: ``x_tried_3``, whose runs have the seeds of the
selection and are never tested, and ``x_tuned_3``, whose runs have the seeds of the report. Which of
the latter are ever made is known after the selection (:mod:`cml_bench.study.selection`). Until then
``x_tuned`` stands for the first of them, so that all checks of a plan can be made before anything
runs. Each row of a table that shows x gets a row ``x, tuned`` beside it.
"""

import functools
import itertools
import json
import math
import re
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import BaseModel

from cml_bench import seeding
from cml_bench.errors import UserError, unknown
from cml_bench.study.figure_config import Row
from cml_bench.study.schema import Experiment, MethodEntry, Range, Study, Sweep, TableConfig, Word

MOST_SETTINGS = 200  # of a method: a plan compares each with each of the other methods
Setting = dict[str, Word]  # option, such as cml.gamma -> its value
_FIELDS = {"protocol": "protocol_options", "network": "network_options"}
_TUNED = "_tuned"
_TRIES = 1000  # numbers for each random setting that is wanted
# Options of the protocol that say on what a model is scored, and which model is tested.
_SCORED = (
    "val_every",
    "val_tasks",
    "val_fresh",
    "selection",
    "save_last",
    "ensemble_top_k",
)


def tuned_of(method: str) -> str:
    """The key of a method in its selected setting."""
    return f"{method}{_TUNED}"


def tried_entry(method: str, number: int) -> str:
    """The key of a setting with the seeds of the selection; settings are numbered from 1 on."""
    return f"{method}_tried_{number}"


def tuned_entry(method: str, number: int) -> str:
    """The key of a setting with the seeds of the report."""
    return f"{tuned_of(method)}_{number}"


def variants(key: str, keys: Collection[str]) -> list[str]:
    """The keys of all settings that a key ``x_tuned`` may come to mean; any other key itself."""
    if not key.endswith(_TUNED):
        return [key]
    return [k for k in keys if re.fullmatch(rf"{re.escape(key)}_\d+", k)] or [key]


def made_entries(experiment: Experiment) -> set[str]:
    """The keys of all entries that an experiment has by its sweep."""
    return {*entries_of(experiment.sweep)}


def entries_of(sweep: Sweep | None) -> dict[str, tuple[str, Setting]]:
    """Key of an entry that there is by a sweep -> its method and setting."""
    if sweep is None:
        return {}
    return {
        key: (method, setting)
        for method in sweep.methods
        for number, setting in reversed([*enumerate(settings(sweep, method), 1)])
        for key in (
            tried_entry(method, number),
            tuned_entry(method, number),
            tuned_of(method),  # in the end that of the first
        )
    }


def tuned_entries(experiment: Experiment) -> set[str]:
    """Those of them whose runs are made only if their setting is selected."""
    return {key for key in made_entries(experiment) if experiment.methods[key].tested}


def settings(sweep: Sweep, method: str) -> list[Setting]:
    """The settings in which a method is tried.

    A grid has them in the order of its lists, the last option changing first. A value of random
    ones is a function of the sweep's seed, the option's name, its list or range, and a number. The
    numbers are those at which every method of the sweep has a setting that it has not yet had. So
    methods with an option in common are tried at the same values of it, setting by setting.
    """
    options = sweep.methods[method]
    if sweep.draw == "grid":
        listed = [
            [_plain(v) for v in values] for values in options.values() if isinstance(values, tuple)
        ]
        return [dict(zip(options, chosen, strict=True)) for chosen in itertools.product(*listed)]
    return [_at(sweep, method, number) for number in _numbers(sweep)]


def _numbers(sweep: Sweep) -> list[int]:
    """The numbers of random settings; fewer than wanted if there are not so many."""
    wanted = 0 if sweep.draw == "grid" else sweep.draw
    found, seen = list[int](), set[tuple[str, str]]()
    for number in range(_TRIES * wanted):
        if len(found) == wanted:
            break
        # JSON tells true from 1.
        new = {(m, json.dumps(_at(sweep, m, number))) for m in sweep.methods}
        if not new & seen:
            found.append(number)
            seen |= new
    return found


def _at(sweep: Sweep, method: str, number: int) -> Setting:
    return {
        name: _drawn(sweep.seed, name, values, number)
        for name, values in sweep.methods[method].items()
    }


def _plain(value: Word) -> Word:
    """A number that YAML takes for a word, as 1e-3, as a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _drawn(seed: int, option: str, values: tuple[Word, ...] | Range, number: int) -> Word:
    if isinstance(values, tuple):
        turn, place = divmod(number, len(values))
        return _plain(values[_order(seed, option, turn, len(values))[place]])
    part = _part(seed, option, number)
    if values.log:
        return float(f"{values.low * (values.high / values.low) ** part:.3g}")
    return float(f"{values.low + (values.high - values.low) * part:.3g}")


@functools.cache
def _part(seed: int, option: str, number: int) -> float:
    """Where in a range the value of this number is, from 0 to 1."""
    raw = seeding.words(seeding.key("sweep", seed, option), number, 1, 1)
    return float(seeding.uniform(raw)[0, 0])


@functools.cache
def _order(seed: int, option: str, turn: int, length: int) -> tuple[int, ...]:
    """The places of a list in random order; each turn through the list has an order of its own."""
    raw = seeding.words(seeding.key("sweep", seed, option, "turn", turn), 0, 1, length)
    return tuple(seeding.smallest(raw, length)[0].tolist())


# -- the configuration with the entries and rows of its sweeps


def with_sweeps(study: Study, where: str) -> Study:
    """The study with the entries and rows that its sweeps need.

    A study that has them already, as that of a plan, is left as it is. A UserError names the
    experiment and what of its sweep cannot be.
    """
    experiments = {
        name: _expanded(experiment, study, f"{where}, experiment {name!r}, sweep")
        for name, experiment in study.experiments.items()
    }
    swept = {
        name: [*experiment.sweep.methods]
        for name, experiment in study.experiments.items()
        if experiment.sweep
    }
    tables = {
        key: table.model_copy(update={"rows": (*table.rows, *_rows(table, swept))})
        for key, table in study.tables.items()
    }
    return study.model_copy(update={"experiments": experiments, "tables": tables})


def _expanded(experiment: Experiment, study: Study, place: str) -> Experiment:
    sweep = experiment.sweep
    if sweep is None:
        return experiment
    if experiment.splits:
        raise UserError(
            f"{place}: settings are selected over seeds, and this experiment has class splits: put"
            " the sweep into one with seeds."
        )
    _check_methods(experiment, sweep, study, place)
    methods = dict(experiment.methods)
    for method in sweep.methods:
        for key, made in _entries(sweep, method, experiment.methods[method]):
            if methods.setdefault(key, made) != made:
                raise UserError(
                    f"{place}: the experiment has a method called {key!r} already; rename that one."
                )
    return experiment.model_copy(update={"methods": methods})


def _check_methods(experiment: Experiment, sweep: Sweep, study: Study, place: str) -> None:
    for method in sweep.methods:
        if method not in experiment.methods:
            known = ", ".join(k for k in experiment.methods if "_tried_" not in k)
            raise UserError(f"{place} names the method {method!r}; the experiment has: {known}.")
        _check(sweep, method, f"{place} of {method}")
        entry = experiment.methods[method]
        report = entry.seeds or experiment.seeds or study.seeds
        if both := sorted({*report} & {*sweep.seeds}):
            raise UserError(
                f"{place} of {method}: the seed {both[0]} is of the selection and of the report:"
                " give `sweep.seeds` other ones."
            )
    _check_drawn(sweep, place)


def _check(sweep: Sweep, method: str, place: str) -> None:
    options = sweep.methods[method]
    if not options:
        raise UserError(f"{place} names no option: give one with its values.")
    for name, values in options.items():
        if isinstance(values, Range):
            if sweep.draw == "grid":
                raise UserError(
                    f"{place}: {name} has a range, and a grid needs a list of values; for random"
                    " settings set `draw` to their number."
                )
        elif not values or _alike(values):
            raise UserError(f"{place}: {name} needs distinct values, at least one.")
        if name in {f"protocol.{key}" for key in _SCORED}:
            raise UserError(
                f"{place}: {name} is part of how settings are scored, and all must be scored alike:"
                " set it under `protocol_options`."
            )
    lists = [len(values) for values in options.values() if isinstance(values, tuple)]
    number = math.prod(lists) if len(lists) == len(options) else math.inf
    if (tried := number if sweep.draw == "grid" else sweep.draw) > MOST_SETTINGS:
        raise UserError(
            f"{place} has {tried:,} settings, and at most {MOST_SETTINGS:,} can be tried: list"
            " fewer values, or set `draw` to a smaller number."
        )
    if sweep.draw != "grid" and number < sweep.draw:
        raise UserError(
            f"{place} has {number:,} different setting{'s' * (number > 1)}, and {sweep.draw} are to"
            " be drawn: set `draw` to a smaller number, or list more values."
        )


def _check_drawn(sweep: Sweep, place: str) -> None:
    """Checked last: it takes time."""
    if sweep.draw != "grid" and (found := len(_numbers(sweep))) < sweep.draw:
        raise UserError(
            f"{place}: after {found} of {sweep.draw} settings, none was drawn that is new for every"
            " method: set `draw` to a smaller number, or list more values."
        )


def _alike(values: tuple[Word, ...]) -> bool:
    """Whether two of the values mean the same: true is not 1."""
    plain = [_plain(value) for value in values]
    return len({(isinstance(value, bool), value) for value in plain}) < len(plain)


def _entries(sweep: Sweep, method: str, entry: MethodEntry) -> Iterator[tuple[str, MethodEntry]]:
    """The entries of a method's settings; ``x_tuned`` is that of the first."""
    for number, setting in enumerate(settings(sweep, method), 1):
        changes: dict[str, Any] = {}
        for name, value in setting.items():
            put(changes, name, value)
        tuned = MethodEntry.model_validate(
            {"method": entry.method or method, "like": method, "seeds": entry.seeds, **changes}
        )
        yield (
            tried_entry(method, number),
            tuned.model_copy(update={"seeds": sweep.seeds, "tested": False}),
        )
        if number == 1:
            yield tuned_of(method), tuned
        yield tuned_entry(method, number), tuned


def put(entry: dict[str, Any], option: str, value: Any) -> None:
    """Set an option of a method's entry by its dotted name, as ``cml.gamma``."""
    first, _, rest = option.partition(".")
    path = [_FIELDS[first], rest] if rest and first in _FIELDS else ["options", *option.split(".")]
    for part in path[:-1]:
        if not isinstance(entry.get(part), dict):
            entry[part] = {}
        entry = entry[part]
    entry[path[-1]] = value


def _rows(table: TableConfig, swept: dict[str, list[str]]) -> list[Row]:
    """The rows of selected settings that a table lacks, beside its rows as published."""
    if not {*table.experiments} <= swept.keys():
        return []
    methods = [
        m for m in swept[table.experiments[0]] if all(m in swept[e] for e in table.experiments)
    ]
    there = {(row.run, row.reading) for row in table.rows}
    return [
        row.model_copy(
            update={
                "label": f"{row.label}, tuned",
                "run": tuned_of(row.run),
                "against": tuned_of(row.against) if row.against in methods else row.against,
            }
        )
        for row in table.rows
        if row.run in methods and (tuned_of(row.run), row.reading) not in there
    ]


def check_options(study: Study, where: str) -> None:
    """A UserError if a sweep names an option that its method, network or protocol has not.

    It loads the plug-ins.
    """
    from cml_bench import registry
    from cml_bench.spec import Protocol

    for name, experiment in study.experiments.items():
        for key, options in experiment.sweep.methods.items() if experiment.sweep else ():
            method = registry.method(experiment.methods[key].method or key)
            network = registry.networks.get(experiment.network)
            known = {
                "": [*names(method.Options)],
                "network": [f"network.{option}" for option in names(network.Options)],
                "protocol": [f"protocol.{option}" for option in names(Protocol)],
            }
            for option in options:
                first = option.partition(".")[0]
                if option not in (near := known.get(first, known[""])):
                    place = f"{where}, experiment {name!r}, sweep of {key}"
                    raise UserError(f"{place}: {unknown('option', option, near)}")


def names(model: type[BaseModel]) -> Iterator[str]:
    """The dotted names of a model's options."""
    for name, field in model.model_fields.items():
        value = field.get_default()
        if isinstance(value, BaseModel):
            yield from (f"{name}.{inner}" for inner in names(type(value)))
        else:
            yield name
