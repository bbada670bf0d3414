"""What was run and what came of it, as sentences: the page's abstract and its provenance.

verdict.py decides what may be said of a number; here outcomes are counted. Imports no torch.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable

from cml_bench import titles
from cml_bench.data import references
from cml_bench.evidence.table import Cell, Table, TableRow
from cml_bench.evidence.verdict import CANNOT_TELL, DIFFERS, GAIN, LOSS, REPRODUCED, UNDECIDED
from cml_bench.figures.outcomes import NOT_TESTED, look
from cml_bench.readings import META
from cml_bench.records import FINISHED, Record
from cml_bench.registry import CML
from cml_bench.report import learning
from cml_bench.report.grids import DASH, numbers
from cml_bench.spec import Protocol, RunSpec
from cml_bench.study.plan import Plan
from cml_bench.study.provenance import commit_of
from cml_bench.study.status import STATES, State
from cml_bench.texts import Prose

NOT_JUDGED = "not judged"
DIFFERENCES = (GAIN, LOSS, UNDECIDED, NOT_TESTED)
LEVELS = (REPRODUCED, DIFFERS, CANNOT_TELL, NOT_JUDGED)
CONTRASTS = {
    "CML": "tested without the co-learner, against its own method",
    "CML†": "tested with the co-learner, against its own method",
    "Other contrasts": "methods and controls against another row",
}
"""What a paired difference is of, and what that means."""
_PLURAL = {GAIN: "gains", LOSS: "losses", DIFFERS: "differ"}


def tally(tables: Iterable[Table]) -> dict[str, int]:
    """How many differences of these tables, and levels beside the paper's, have each outcome."""
    counts = dict.fromkeys((*DIFFERENCES, *LEVELS), 0)
    for table in tables:
        for _, _, difference in table.differences():
            counts[look(difference.outcome).name] += 1
        for line in table.beside:
            counts[line.outcome if line.outcome in LEVELS else NOT_JUDGED] += 1
    return counts


def contrasts(plan: Plan, tables: Iterable[Table]) -> dict[str, dict[str, int]]:
    """Which of :data:`CONTRASTS` the tables have, and how many differences of each outcome."""
    found = {name: dict.fromkeys(DIFFERENCES, 0) for name in CONTRASTS}
    for table in tables:
        for row, column, difference in table.differences():
            found[_contrast(plan, row, row.cells[column])][look(difference.outcome).name] += 1
    return {name: counts for name, counts in found.items() if any(counts.values())}


def _contrast(plan: Plan, row: TableRow, cell: Cell) -> str:
    """A frozen co-learner is a control, so it is not counted as CML."""
    run, base = (plan.specs[one.runs[0]] for one in (cell, cell.base) if one)
    cml, co, other = CONTRASTS
    if run.method != base.method + CML or run.frozen:
        return other
    return cml if row.reading == META else co


def sentences(plan: Plan, tables: list[Table], states: dict[str, State]) -> list[str]:
    """The abstract: what came of the comparisons, what was run and how, what is missing."""
    counts = tally(tables)
    said = [
        _differences(plan, tables, counts),
        _levels(tables, counts),
        _what(plan),
        *_runs(states),
    ]
    return [sentence for sentence in said if sentence]


def _differences(plan: Plan, tables: list[Table], counts: dict[str, int]) -> str:
    tested = sum(counts[name] for name in (GAIN, LOSS, UNDECIDED))
    text = ""
    if tested:
        text = f"{tested} paired difference{'s were' if tested > 1 else ' was'} tested."
        for name, of in contrasts(plan, tables).items():
            if any(of[outcome] for outcome in (GAIN, LOSS, UNDECIDED)):
                told = ", ".join(counted(of[o], o) for o in (GAIN, LOSS, UNDECIDED))
                text += f" {name}: {told}."
    why = Counter(
        "runs missing: not tested" if d.lacks_runs else d.outcome  # each line names its runs
        for t in tables
        for _, _, d in t.differences()
        if d.outcome not in DIFFERENCES
    )
    if why:
        text += f" {counts[NOT_TESTED]}{' more' if tested else ' paired'} "
        text += f"difference{'s have' if counts[NOT_TESTED] > 1 else ' has'} no verdict{_why(why)}."
    return text.strip()


def _levels(tables: list[Table], counts: dict[str, int]) -> str:
    every = sum(counts[name] for name in LEVELS)
    if not every:
        return ""
    told = ", ".join(counted(counts[name], name) for name in LEVELS)
    reasons = Counter(
        line.outcome for t in tables for line in t.beside if line.outcome not in LEVELS
    )
    return f"{every} level{'s' * (every > 1)} beside the paper's: {told}{_why(reasons)}."


def _why(reasons: Counter[str]) -> str:
    """`` (reason)``; of several with their counts, ``: 6 (reason), 2 (reason)``."""
    if len(reasons) < 2:
        return "".join(f" ({reason})" for reason in reasons)
    return ": " + ", ".join(f"{k} ({reason})" for reason, k in reasons.most_common())


def counted(count: int, name: str) -> str:
    """``1 loss``, ``3 losses``."""
    return f"{count} {name if count == 1 else _PLURAL.get(name, name)}"


def _what(plan: Plan) -> str:
    """Data, methods, protocols, gammas and numbers of repetitions, each once."""
    specs, experiments = plan.specs.values(), plan.study.experiments.values()
    gammas = {spec.gamma for spec in specs if spec.gamma is not None}
    seeds = {len(e.seeds or plan.study.seeds) for e in experiments if not e.splits}
    splits = {len(e.splits) for e in experiments if e.splits}
    protocols = [e.protocol for e in experiments]
    n = [
        f"n = {_numbers(sizes)} {unit}"
        for sizes, unit in ((seeds, "training seeds"), (splits, "class splits"))
        if sizes
    ]
    return (
        f"Methods: {_once(titles.of(spec.method) for spec in specs)}; data:"
        f" {_once(titles.of(spec.data.name) for spec in specs)}; protocol: {_once(protocols)};"
        f" {f'γ = {_numbers(gammas)}; ' if gammas else ''}{', '.join(n)}."
    )


def _once(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _runs(states: dict[str, State]) -> list[str]:
    counts = Counter(state.state for state in states.values())
    others = ", ".join(f"{counts[name]} {name}" for name in STATES[1:] if counts[name])
    text = (
        f"{counts[FINISHED]} of {len(states)} runs are finished{f' ({others})' if others else ''}."
    )
    reasons = sorted({state.more for state in states.values() if state.state == "not run"})
    return [text, *(Prose(f"Not run: {reason}.") for reason in reasons)]


# -- the recipes


def facts(plan: Plan) -> list[str]:
    """How the study was run, one sentence an experiment."""
    study, specs = plan.study, plan.specs
    said, labels, named = [], learning.labels(plan), learning.experiments(plan)
    for name, experiment in study.experiments.items():
        members = plan.members[name].items()
        mine = [
            (labels[name, key], specs[run])
            for key, shots in members
            for ids in shots.values()
            for run in ids
        ]
        text = f"{named[name]}: {titles.of(experiment.data)}, {titles.of(experiment.network)},"
        text += f" {experiment.way}-way, "
        text += f"{', '.join(map(str, experiment.shots))} shots"
        text += f", class splits {', '.join(experiment.splits)}" if experiment.splits else ""
        text += f", training seeds {_numbers({spec.seed for _, spec in mine})}"
        if recipes := _recipes(mine):
            text += (
                f", {_queries(experiment.query)} per class in training; protocol"
                f" {experiment.protocol}: "
            )
            text += "; ".join(recipes)
        query = experiment.evaluation_query or experiment.evaluation.query
        said.append(
            f"{text}; {experiment.evaluation.tasks} test tasks with {_queries(query)} per class."
        )
    said.append(
        "Batch-norm, where there is any, is transductive: all queries of a task are normalised"
        " together, at test too."
    )
    if not any(table.paper for table in plan.tables.values()):
        differ = all(experiment.protocol != "official" for experiment in study.experiments.values())
        why = ": data, budget or protocol differ from the paper's" if differ else ""
        said.append(f"No number here is set beside one of the paper{why}.")
    return said


def _optimiser(protocol: Protocol) -> str:
    """``Adam 0.001``, ``SGD 0.1 with momentum 0.9``."""
    name = "Adam" if protocol.outer_optimizer == "adam" else "SGD"
    momentum = f" with momentum {protocol.outer_momentum:g}" if protocol.outer_momentum else ""
    return f"{name} {protocol.outer_lr:g}{momentum}"


def _recipes(runs: list[tuple[str, RunSpec]]) -> list[str]:
    """How the methods are trained: ``MAML, BOIL: 30,000 outer steps of 4 tasks, …``.

    Methods of one recipe share a sentence. ``runs`` are names of rows and their runs. A row that
    has another name than its method is explained.
    """
    groups: dict[str, list[tuple[str, RunSpec]]] = {}
    for key, spec in runs:
        if spec.network is not None:  # something is trained
            p = spec.protocol
            text = (
                f"{spec.steps:,} outer steps of {_tasks(p.meta_batch)}, {_optimiser(p)},"
                f" validation every {p.val_every:,} steps on {_tasks(p.val_tasks)}, selection"
                f" {p.selection}"
                if spec.steps
                else "no outer step"
            )
            groups.setdefault(text, []).append((_named(key, spec), spec))
    sentences = []
    for text, group in groups.items():
        same = [spec for _, spec in group]
        rates = {spec.inner_rate for spec in same if spec.inner_rate is not None}
        gammas = {spec.gamma for spec in same if spec.gamma is not None}
        gamma = f", γ = {_numbers(gammas)}" if gammas else ""
        sentences.append(
            f"{_once(name for name, _ in group)}: {text}, inner step {_numbers(rates)}{gamma}"
        )
    return sentences


def _named(label: str, spec: RunSpec) -> str:
    """``MAML``, or ``A control (MAML + CML, co-learner frozen)``."""
    method = titles.of(spec.method)
    told = [method] * (label != method)
    told += ["co-learner frozen"] * spec.frozen
    told += [f"Gaussian gradient noise {spec.protocol.gradient_noise:g}"] * bool(
        spec.protocol.gradient_noise
    )
    return f"{label} ({', '.join(told)})" if told else label


def _tasks(count: int) -> str:
    return f"{count} task{'s' * (count != 1)}"


def _queries(query: int | str) -> str:
    return "as many queries as support points" if query == "shot" else f"{query} queries"


def _numbers(values: Iterable[float]) -> str:
    return numbers(values) or DASH


# -- provenance


def plan_id(plan: Plan) -> str:
    """16 digits that name a study: SHA-256 of its runs' ids and of the cells of its tables, without
    paths and titles.
    """
    text = json.dumps(
        [sorted(plan.specs), [cell.model_dump(mode="json") for cell in plan.cells]], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def provenance(plan: Plan, records: list[Record]) -> list[tuple[str, str]]:
    """Versions, machines, data hashes and time, each with all the values that occur."""

    def values(of: Callable[[Record], str]) -> str:
        return "; ".join(sorted({of(record) for record in records})) or DASH

    created = [record.created for record in records]
    return [
        ("study", f"{plan.study.study}, plan {plan_id(plan)}"),
        ("cml_bench", values(lambda r: r.versions.cml_bench)),
        ("commit", values(commit_of)),
        ("torch", values(lambda r: r.versions.torch)),
        ("numpy", values(lambda r: r.versions.numpy)),
        ("python", values(lambda r: r.versions.python)),
        ("machine", values(lambda r: r.machine.title)),
        ("engine", values(_engine)),
        ("data", values(_data)),
        ("made", f"{min(created, default=DASH)} to {max(created, default=DASH)}"),
        ("computing time", computing_time(records)),
    ]


def _engine(record: Record) -> str:
    engine = record.engine
    return f"{engine.device}, {engine.threads} thread, {engine.path} path"


def _data(record: Record) -> str:
    text = f"{record.spec.data_id}: SHA-256 {record.data_sha256[:16]}…"
    if not record.data_differs:
        return text
    copy = references.repacked(record.spec.data_id, record.data_unordered_sha256)
    return f"{text} ({copy or record.data_differs})"


def computing_time(records: list[Record]) -> str:
    """The time of all runs and its parts: ``600 s in all: train 80.0 %, …``."""
    seconds: dict[str, float] = {}
    for record in records:
        for name, value in record.seconds.parts().items():
            seconds[name] = seconds.get(name, 0.0) + value
    total = sum(seconds.values())
    shares = (
        ", ".join(f"{name} {100 * value / total:.1f} %" for name, value in seconds.items())
        if total
        else DASH
    )
    return f"{total:,.0f} s in all: {shares}"
