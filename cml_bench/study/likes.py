"""Likes with likes: what an entry starts from, and how a row may differ from its baseline.

**The rule.** A row and its ``against`` are compared to learn what the method, or the co-learner,
does. So they may differ in the method's own and the co-learner's keys alone:

* the method, its version, and options that one of the two methods has and the other has not (such
  as ``rho_low`` of Sharp-MAML) or that one of them fixes (``first_order`` of FOMAML);
* options of the network that belong to one of the two methods (``Method.network_defaults``, such as
  ``extra_blocks`` of More-MAML);
* everything under ``cml``.

``inner_lr`` and ``inner_lr_init`` are one key, since both are the size of the first inner step. A
row without outer steps is not trained, so nothing that only training reads (steps, queries in
training, the protocol) makes it unlike. Any other difference is named below the table and in
``plan``, and the difference of the two rows is not tested. This holds for a method's own released
recipe, too: under ``official`` MAML++ has other steps and filters than MAML. Where another key is
the very point of a row (``MAML, five inner steps`` against ``MAML``), the row names it under
``varies``; it is then named below the table, and tested. Imports no torch.
"""

import itertools
import typing
from collections.abc import Mapping
from typing import Any

from cml_bench.errors import UserError, unknown
from cml_bench.readings import CO_UNADAPTED
from cml_bench.registry import CML
from cml_bench.spec import Protocol, RunSpec, canonical
from cml_bench.study.figure_config import FigureConfig, Row
from cml_bench.study.plan import Differences, Members, Plan, Unlike
from cml_bench.study.protocols import flat
from cml_bench.study.schema import Experiment, MethodEntry, Study, TableConfig
from cml_bench.study.selection import sweeps_of, unequal
from cml_bench.study.sweeps import variants

_STARTED = ("options", "network_options", "protocol_options")

# -- what an entry starts from


def inherited(study: Study, where: str) -> Study:
    """The study with each entry's options, and steps, on top of those of the entry it is like.

    That entry is the one that ``like`` names, else x for the key x+cml. An entry of a method x+cml
    under another key is like the entry of x that a table's row sets it against. A UserError for an
    unknown ``like``, for entries that are like each other in a circle, and where tables set an
    entry against several that have different options.
    """
    experiments = {
        name: _inherited(experiment, _baselines(study, name), f"{where}, experiment {name!r}")
        for name, experiment in study.experiments.items()
    }
    return study.model_copy(update={"experiments": experiments})


def _baselines(study: Study, experiment: str) -> dict[str, list[str]]:
    """Key of an entry -> keys of the entries that tables set it against, each once."""
    against: dict[str, dict[str, None]] = {}
    for table in study.tables.values():
        for row in table.rows if experiment in table.experiments else ():
            if row.against:
                against.setdefault(row.run, {})[row.against] = None
    return {run: list(baselines) for run, baselines in against.items()}


def _inherited(experiment: Experiment, against: dict[str, list[str]], place: str) -> Experiment:
    entries, whole = experiment.methods, dict[str, MethodEntry]()

    def of(key: str, behind: tuple[str, ...]) -> MethodEntry:
        if key in behind:
            raise UserError(
                f"{place}: {' is like '.join([*behind, key])}: one of them must state its options"
                " itself."
            )
        if key not in whole:
            starts = [
                _joined(of(start, (*behind, key)), entries[key])
                for start in _starts(key, entries, against.get(key, []), place)
            ]
            if any(start != starts[0] for start in starts):
                named = ", ".join(_starts(key, entries, against.get(key, []), place))
                raise UserError(
                    f"{place}, method {key}: tables set it against {named}, which have different"
                    " options: say from which it starts by `like`."
                )
            whole[key] = starts[0] if starts else entries[key]
        return whole[key]

    return experiment.model_copy(update={"methods": {key: of(key, ()) for key in entries}})


def _starts(
    key: str, entries: Mapping[str, MethodEntry], against: list[str], place: str
) -> list[str]:
    """Keys of the entries that this one starts from; several only if tables name several."""
    entry, plain = entries[key], key.removesuffix(CML)
    if entry.like:
        if entry.like not in entries:
            raise unknown(f"{place}, method {key}: entry under `like`", entry.like, list(entries))
        return [entry.like]
    if plain != key and plain in entries:
        return [plain]
    method = entry.method or key
    if not method.endswith(CML):
        return []
    return [one for one in against if (entries[one].method or one) == method.removesuffix(CML)]


def _joined(start: MethodEntry, entry: MethodEntry) -> MethodEntry:
    changes: dict[str, Any] = {
        field: _over(getattr(start, field), getattr(entry, field)) for field in _STARTED
    }
    if entry.steps is None:
        changes["steps"] = start.steps
    return entry.model_copy(update=changes)


def _over(start: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Nested options: what ``own`` says counts."""
    both = {
        key: _over(start[key], value)
        for key, value in own.items()
        if isinstance(value, dict) and isinstance(start.get(key), dict)
    }
    return {**start, **own, **both}


# -- how two runs differ


def unlike(row: RunSpec, base: RunSpec) -> Differences:
    """Dotted key -> its values in the row and in its baseline, by the rule of this module.

    Seed and class split are not looked at, since pairs are made over them.
    """
    specs = {"row": row, "base": base}
    return _Compared(specs)("row", "base")


def _unlike(
    row: RunSpec, base: RunSpec, a: dict[str, Any], b: dict[str, Any], own: set[str]
) -> Differences:
    trained = row.steps and base.steps
    return {
        key: (a.get(key), b.get(key))
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
        and key not in own
        and (trained or not (key in ("steps", "query") or key.startswith("protocol.")))
        and not (key.startswith("network") and None in (row.network, base.network))
        and not (key == "inner_lr" and None in (row.inner_rate, base.inner_rate))
    }


def unlike_rows(study: Study, members: Members, specs: Mapping[str, RunSpec]) -> Unlike:
    """How any two rows of one table are unlike; see :attr:`Plan.unlike_rows`."""
    found, compared = Unlike(), _Compared(specs)
    for table in study.tables.values():
        rows = itertools.combinations(table.rows, 2)
        # Two readings of one run are alike; of a sweep, both are of the setting that is selected.
        for a, b in ((a, b) for a, b in rows if a.run != b.run):
            for one, two in _firsts(table, a.run, b.run, members):
                if one != two and (differences := compared(one, two)):
                    found.setdefault(one, {})[two] = differences
    return found


class _Compared:
    """:func:`unlike` of two runs by their ids. Keys of a run, and of two methods, are read once."""

    def __init__(self, specs: Mapping[str, RunSpec]):
        self.specs, self.known = specs, dict[str, dict[str, Any]]()
        self.own = dict[tuple[str, str], set[str]]()

    def __call__(self, run: str, base: str) -> Differences:
        row, other = self.specs[run], self.specs[base]
        methods = (row.method, other.method)
        if methods not in self.own:
            self.own[methods] = _own_keys(*methods)
        return _unlike(row, other, self._keys(run), self._keys(base), self.own[methods])

    def _keys(self, run: str) -> dict[str, Any]:
        if run not in self.known:
            self.known[run] = _compared(self.specs[run])
        return self.known[run]


def _compared(spec: RunSpec) -> dict[str, Any]:
    """Every key that is compared, with its value or default."""
    from cml_bench import registry

    method = registry.method(spec.method)
    options = method.Options.read(spec.options, spec.title).model_dump(mode="json")
    rate = {"inner_lr": spec.inner_rate} if spec.inner_rate is not None else {}
    for name in ("cml", "inner_lr", "inner_lr_init"):
        options.pop(name, None)
    network: dict[str, Any] = {}
    if spec.network:
        net = registry.networks.get(spec.network.name)
        given = net.Options.read(spec.network.options, spec.title).model_dump(mode="json")
        network = {"network": spec.network.name, **flat(given, "network.")}
    data = {name: value for name, value in spec.data.options.items() if name != "split"}
    plain = {name: getattr(spec, name) for name in ("way", "shot", "query", "steps", "precision")}
    protocol = Protocol.read(canonical(spec.protocol), spec.title).model_dump(mode="json")
    return {
        **flat(options, ""),
        **rate,
        **network,
        "data": spec.data.name,
        **flat(data, "data."),
        **plain,
        **flat(protocol, "protocol."),
    }


def _own_keys(*names: str) -> set[str]:
    """Keys of options that belong to one of two methods."""
    from cml_bench import registry

    a, b = map(registry.method, names)
    fields, more = a.Options.model_fields, b.Options.model_fields
    fixed = {
        name
        for options in (fields, more)
        for name, field in options.items()
        if typing.get_origin(field.annotation) is typing.Literal
        and len(typing.get_args(field.annotation)) == 1
    }
    of_network = {
        f"network.{name}"
        for name in a.network_defaults.keys() | b.network_defaults.keys()
        if a.network_defaults.get(name) != b.network_defaults.get(name)
    }
    return ((fields.keys() ^ more.keys()) - {"inner_lr"}) | fixed | of_network


def pairs(study: Study, members: Members, specs: Mapping[str, RunSpec], where: str) -> Unlike:
    """How each row of the study's tables is unlike its baseline; see :attr:`Plan.unlike`.

    A UserError if a row's ``varies`` names a key in which its runs and their baseline do not
    differ.
    """
    found, compared = Unlike(), _Compared(specs)
    for key, table in study.tables.items():
        for row in table.rows:
            if row.varies and not row.against:
                raise UserError(
                    f"{where}, {key}, row {row.label!r}: varies says how a row differs from its"
                    " baseline: name one under `against`."
                )
            seen: dict[str, None] = {}
            for run, base in _firsts(table, row.run, row.against, members):
                differences = compared(run, base)
                seen |= dict.fromkeys(differences)
                if differences:
                    found.setdefault(run, {})[base] = differences
            if strange := [name for name in row.varies if name not in seen]:
                known = f"they differ in {', '.join(seen)}" if seen else "they differ in no such"
                raise UserError(
                    f"{where}, {key}, row {row.label!r}: varies names {strange[0]!r}, in which"
                    f" {row.run} and {row.against} do not differ: {known}."
                )
    return found


def _firsts(
    table: TableConfig, run: str, base: str | None, members: Members
) -> list[tuple[str, str]]:
    """First run of two rows in each of their places; before a selection, of all their settings."""
    return [
        (members[name][mine][shot][0], members[name][other][shot][0])
        for name in (table.experiments if base else ())
        for mine in variants(run, members[name])
        for other in variants(base or "", members[name])
        for shot in members[name][mine]
    ]


# -- what is said of it


def reason(plan: Plan, row: Row, runs: tuple[str, ...], base: tuple[str, ...]) -> str:
    """Why a cell of these runs is not tested against its baseline's; empty: it may be."""
    if row.reading in plan.chance.get(runs[0], {}):
        return "at chance by construction: not tested"
    other = [key for key in _between(plan, runs[0], base[0]) if key not in row.varies]
    if other:
        return f"unlike in {', '.join(other)}: not tested"
    return unequal(plan, row.run, row.against)


def alike(plan: Plan, rows: tuple[Row, Row], runs: tuple[str, str]) -> bool:
    """Whether two rows of a table may be set against each other, by the rule of this module.

    ``runs``: the first run of each. What a row names under ``varies`` is its point.
    """
    if unequal(plan, rows[0].run, rows[1].run):
        return False  # the one was chosen among more settings, or the other as published
    one, two = runs
    found = plan.unlike_rows.get(one, {}).get(two, {}) | plan.unlike_rows.get(two, {}).get(one, {})
    return not {*found} - {*rows[0].varies, *rows[1].varies}


def _between(plan: Plan, run: str, base: str) -> Differences:
    return plan.unlike.get(run, {}).get(base, {})


def shown(plan: Plan, table: TableConfig) -> list[Row]:
    """The table's rows without those whose reading is at chance by construction.

    A reading that says so by its name (``co_unadapted``) stays, since the paper has such a row.
    """
    return [row for row in table.rows if not _left_out(plan, table, row)]


def _left_out(plan: Plan, table: TableConfig, row: Row) -> str:
    """Why a row is left out; empty: it is shown."""
    if row.reading == CO_UNADAPTED:
        return ""
    runs = [plan.members[name][row.run] for name in table.experiments]
    reasons = [plan.chance.get(ids[0], {}).get(row.reading) for by in runs for ids in by.values()]
    return next((reason for reason in reasons if reason), "")


def in_figure(
    figure: FigureConfig, members: Members, chance: Mapping[str, Mapping[str, str]], place: str
) -> FigureConfig:
    """The figure without lines whose reading is at chance by construction; its caption says why.

    ``chance`` is that of the plan. A UserError that begins with ``place`` if no line is left.
    """
    why: dict[str, str] = {}
    kept = []
    for row in figure.runs:
        runs = [ids[0] for ids in members[figure.experiment][row.run].values()]
        reasons = [chance.get(run, {}).get(row.reading) for run in runs]
        if reason := next((one for one in reasons if one), ""):
            why[row.label] = reason
        else:
            kept.append(row)
    if not kept:
        raise UserError(f"{place}: no line is left: each is {next(iter(why.values()))}.")
    said = " ".join(f"{label} is left out: {reason}." for label, reason in why.items())
    caption = f"{figure.caption} {said}".strip()
    return figure.model_copy(update={"runs": tuple(kept), "caption": caption}) if why else figure


def sentences(plan: Plan, key: str) -> list[str]:
    """What a table's rows differ in from their baselines, and which rows are left out.

    A sentence each; usually there is none.
    """
    table, said = plan.tables[key], dict[str, None]()
    for row in table.rows:
        if why := _left_out(plan, table, row):
            said[f"{row.label} is left out: {why}."] = None
            continue
        base_row = next((r.label for r in table.rows if r.run == row.against), row.against)
        for run, base in _firsts(table, row.run, row.against, plan.members):
            differences = _between(plan, run, base)
            meant = {name: pair for name, pair in differences.items() if name in row.varies}
            other = {name: pair for name, pair in differences.items() if name not in row.varies}
            if meant:
                how = (
                    "in what was selected for each:"
                    if sweeps_of(plan, row.run)
                    else "on purpose in"
                )
                said[f"{row.label} and {base_row} differ {how} {_named(meant)}."] = None
            if other:
                more = "differ in more than the method and the co-learner"
                said[
                    f"{row.label} and {base_row} {more}: {_named(other)}. They are not tested."
                ] = None
    return [*said]


def _named(differences: Differences) -> str:
    """``inner_lr (0.5 and 0.4), steps (60,000 and 30,000)``."""
    return ", ".join(f"{key} ({_text(a)} and {_text(b)})" for key, (a, b) in differences.items())


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)


def told(plan: Plan) -> list[str]:
    """The sentences of every table, for `plan`."""
    return [f"{key}: {sentence}" for key in plan.tables for sentence in sentences(plan, key)]
