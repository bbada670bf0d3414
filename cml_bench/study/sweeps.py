"""Sweeps: from an experiment's key ``sweep`` to the settings that are tried. Imports no torch.

A setting is one value for each swept option of a method. For each setting of a method x there are
two entries among the experiment's methods: ``x_tried_3``, whose runs have the seeds of the
selection and are never tested, and ``x_tuned_3``, whose runs have the seeds of the report. Which of
the latter are ever made is known after the selection (:mod:`cml_bench.study.selection`). Until then
``x_tuned`` stands for the first of them, so that all checks of a plan can be made before anything
runs. Each row of a table that shows x gets a row ``x, tuned`` beside it.
"""

import itertools
import re
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import BaseModel

from cml_bench import seeding
from cml_bench.errors import UserError, unknown
from cml_bench.study.figure_config import Row
from cml_bench.study.schema import Experiment, MethodEntry, Range, Study, Sweep, TableConfig, Word

MOST_SETTINGS = 1000
Setting = dict[str, Word]  # option, such as cml.gamma -> its value
_FIELDS = {"protocol": "protocol_options", "network": "network_options"}
_TUNED = "_tuned"


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
    if (sweep := experiment.sweep) is None:
        return set()
    return {key for m in sweep.methods for key, _ in _entries(sweep, m, experiment.methods[m])}


def tuned_entries(experiment: Experiment) -> set[str]:
    """Those of them whose runs are made only if their setting is selected."""
    return {key for key in made_entries(experiment) if experiment.methods[key].tested}


def settings(sweep: Sweep, method: str) -> list[Setting]:
    """The settings in which a method is tried.

    A grid has them in the order of its lists, the last option changing first. Random ones are a
    function of the sweep's seed, the option's name and their number: so methods with an option in
    common are tried at the same values of it.
    """
    options = sweep.methods[method]
    if sweep.draw == "grid":
        listed = [
            [_plain(v) for v in values] for values in options.values() if isinstance(values, tuple)
        ]
        return [dict(zip(options, chosen, strict=True)) for chosen in itertools.product(*listed)]
    found: list[Setting] = []
    for number in range(100 * sweep.draw):
        if len(found) == sweep.draw:
            break
        setting = {
            name: _drawn(sweep.seed, name, values, number) for name, values in options.items()
        }
        if setting not in found:
            found.append(setting)
    return found


def _plain(value: Word) -> Word:
    """A number that YAML takes for a word, as 1e-3, as a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _drawn(seed: int, option: str, values: tuple[Word, ...] | Range, number: int) -> Word:
    raw = seeding.words(seeding.key("sweep", seed, option), number, 1, 1)
    part = float(seeding.uniform(raw)[0, 0])
    if isinstance(values, tuple):
        return _plain(values[int(part * len(values))])
    if values.log:
        return float(f"{values.low * (values.high / values.low) ** part:.3g}")
    return float(f"{values.low + (values.high - values.low) * part:.3g}")


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
    methods = dict(experiment.methods)
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
        for key, made in _entries(sweep, method, entry):
            if methods.setdefault(key, made) != made:
                raise UserError(
                    f"{place}: the experiment has a method called {key!r} already; rename that one."
                )
    return experiment.model_copy(update={"methods": methods})


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
    number = len(settings(sweep, method))
    if sweep.draw != "grid" and number < sweep.draw:
        raise UserError(
            f"{place} has {number} different settings, and {sweep.draw} are to be drawn: set `draw`"
            " to a smaller number, or list more values."
        )
    if number > MOST_SETTINGS:
        raise UserError(
            f"{place} has {number:,} settings, and at most {MOST_SETTINGS:,} can be tried: list"
            " fewer values, or set `draw` to a number."
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
                    place = f"{where}, experiment {name!r}, sweep of {key}: option"
                    raise unknown(place, option, near)


def names(model: type[BaseModel]) -> Iterator[str]:
    """The dotted names of a model's options."""
    for name, field in model.model_fields.items():
        value = field.get_default()
        if isinstance(value, BaseModel):
            yield from (f"{name}.{inner}" for inner in names(type(value)))
        else:
            yield name
