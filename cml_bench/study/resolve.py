"""From a configuration to a plan: runs, jobs, and what every table cell needs.

:func:`resolve` loads the plug-ins, which import torch. Commands that only read a plan go through
:func:`cml_bench.study.plan.cached`, which calls it in a process of its own.
"""

import hashlib
import itertools
import json
from typing import Any

from cml_bench.errors import UserError
from cml_bench.registry import CML
from cml_bench.spec import MOST_INNER_STEPS, Component, Evaluation, RunSpec, canonical
from cml_bench.study import places
from cml_bench.study.checks import check_names, check_rows, layers, told
from cml_bench.study.config import Experiment, MethodEntry, Study
from cml_bench.study.figure_config import CosineFigure, Figure, FigureConfig
from cml_bench.study.plan import (
    Job,
    Members,
    Plan,
    PlannedCell,
    PlannedData,
    PlannedFile,
    PlannedRun,
    PlannedTable,
)
from cml_bench.study.protocols import deviation, protocol, recipe, released_row

Wanted = dict[tuple[str, str, int], list[str]]  # experiment, method's key, shot -> run ids


def resolve(study: Study, where: str) -> Plan:
    """The plan of a study.

    Equal specs wanted by several experiments are one run; it gets the most demanding evaluation.
    """
    found = _Runs()
    jobs = [
        runs for name in study.experiments for runs in _of_experiment(study, name, found, where)
    ]
    members: Members = {}
    for (name, key, shot), ids in found.wanted.items():
        members.setdefault(name, {}).setdefault(key, {})[shot] = tuple(ids)
    check_names(study, where)
    check_rows(study, members, found.specs, where)
    drawn = {}
    for key, figure in study.figures.items():
        of_splits = bool(study.experiments[figure.experiment].splits)
        drawn[key] = _figure(figure, of_splits, _first(figure, members, found.specs))
    return Plan(
        members=members,
        study=study,
        runs=tuple(_run(spec, spec.id in found.named) for spec in found.specs.values()),
        jobs=tuple(_job(runs, found.specs) for runs in jobs),
        data=_data(found.specs, study),
        cells=_cells(study, found.wanted),
        tables={
            key: PlannedTable.model_validate(dict(table)) for key, table in study.tables.items()
        },
        figures=drawn,
    )


class _Runs:
    """The runs found so far. ``named``: ids of those whose gamma stands in the configuration, or
    that have none.
    """

    def __init__(self) -> None:
        self.specs: dict[str, RunSpec] = {}
        self.wanted: Wanted = {}
        self.named: set[str] = set()

    def add(self, spec: RunSpec, place: tuple[str, str, int]) -> bool:
        """Whether the run is new. ``place``: the experiment, key and shot that want it."""
        known = self.specs.get(spec.id)
        self.specs[spec.id] = spec if known is None else _most(known, spec)
        cell = self.wanted.setdefault(place, [])
        if spec.id not in cell:
            cell.append(spec.id)
        return known is None


def _of_experiment(study: Study, name: str, found: _Runs, where: str) -> list[list[str]]:
    """Add an experiment's runs; the new ones, by job."""
    experiment, ids = study.experiments[name], []
    for shot in experiment.shots:
        for seed, split, key, entry in _entries(study, experiment):
            with told(f"{where}, experiment {name!r}") as place:
                spec = _spec(study, _on_split(experiment, split), key, entry, shot, seed, place)
                if found.add(spec, (name, key, shot)):
                    ids.append(spec.id)
            if "cml" not in spec.options or "gamma" in _merged(
                experiment, key, entry, "options"
            ).get("cml", {}):
                found.named.add(spec.id)
    size = experiment.runs_per_job
    return [ids[i : i + size] for i in range(0, len(ids), size)]


def _job(runs: list[str], every: dict[str, RunSpec]) -> Job:
    specs = [every[run] for run in runs]
    text = json.dumps([(spec.id, spec.evaluation.model_dump(mode="json")) for spec in specs])
    return Job(
        runs=tuple(runs),
        id=hashlib.sha256(text.encode()).hexdigest()[:12],
        data=tuple(sorted({spec.data_id for spec in specs})),
        gpu=any(map(_gains_by_gpu, specs)),
        title=_job_title(specs),
    )


def _first(figure: FigureConfig, members: Members, specs: dict[str, RunSpec]) -> RunSpec:
    """A run of the figure's first row: all its rows have one network."""
    return specs[next(iter(members[figure.experiment][figure.runs[0].run].values()))[0]]


def _figure(figure: Figure, splits: bool, spec: RunSpec) -> Figure:
    """With the choices that its options make in the caption, and the layer that is meant where none
    is named.
    """
    if isinstance(figure, CosineFigure) and not figure.layer:
        figure = figure.model_copy(update={"layer": layers(spec)[-1]})
    caption = f"{figure.caption} {figure.definition('class splits' if splits else 'seeds')}".strip()
    return figure.model_copy(update={"caption": caption})


def _run(spec: RunSpec, named: bool) -> PlannedRun:
    from cml_bench import registry

    method, net = (
        registry.method(spec.method),
        spec.network and registry.networks.get(spec.network.name),
    )
    return PlannedRun(
        id=spec.id,
        folder=spec.folder,
        title=spec.title,
        deviates=deviation(spec, method, net),
        gamma_named=named,
        gpu=_gains_by_gpu(spec),
        spec=spec,
    )


def _gains_by_gpu(spec: RunSpec) -> bool:
    from cml_bench import registry

    return spec.network is not None and not registry.networks.get(spec.network.name).small


def _entries(study: Study, experiment: Experiment) -> list[tuple[int, str, str, MethodEntry]]:
    """Seed by seed (and class split by class split), so that an interrupted study has whole
    replications.
    """
    seeds = {
        key: entry.seeds or experiment.seeds or study.seeds
        for key, entry in experiment.methods.items()
    }
    every = sorted({seed for chosen in seeds.values() for seed in chosen})
    return [
        (seed, split, key, entry)
        for seed, split in itertools.product(every, experiment.splits or ("",))
        for key, entry in experiment.methods.items()
        if seed in seeds[key] and split in (entry.splits or experiment.splits or ("",))
    ]


def _on_split(experiment: Experiment, split: str) -> Experiment:
    """The experiment on one of its class splits."""
    options = {**experiment.data_options, **({"split": split} if split else {})}
    return experiment.model_copy(update={"data_options": options})


def _merged(experiment: Experiment, key: str, entry: MethodEntry, field: str) -> dict[str, Any]:
    """The entry's options of one kind; x+cml starts from those of x."""
    base = experiment.methods.get(key.removesuffix(CML)) if key.endswith(CML) else None
    return {**(getattr(base, field) if base else {}), **getattr(entry, field)}


def _spec(
    study: Study,
    experiment: Experiment,
    key: str,
    entry: MethodEntry,
    shot: int,
    seed: int,
    where: str,
) -> RunSpec:
    from cml_bench import registry  # plug-ins import torch

    method = registry.method(entry.method or key)
    data_class = registry.datasets.get(experiment.data)
    place = f"{where}, data set {experiment.data}"
    data = data_class(
        data_class.Options.read(experiment.data_options, place, places.instead_of(places.DATA))
    )
    query = shot if experiment.query == "shot" else experiment.query
    evaluation = experiment.evaluation
    if experiment.evaluation_query == "shot":
        evaluation = evaluation.model_copy(update={"query": shot})
    data.check("train", experiment.way, shot, query)
    data.check("validation", experiment.way, shot, query)
    data.check("test", experiment.way, shot, evaluation.query)
    network, training = None, protocol("matched", {}, where)
    net = registry.networks.get(experiment.network) if method.learns else None
    released = released_row(method, net)
    rows = (released, method.more_recipes)
    own = recipe(experiment.protocol, *rows)
    steps = next(s for s in (entry.steps, experiment.steps, own.steps) if s is not None)
    if method.learns:
        if method.needs not in (None, net.takes):
            raise UserError(
                f"{where}, method {key}: it works on {method.needs}, and {net.name} takes"
                f" {net.takes}."
            )
        mine = _merged(experiment, key, entry, "network_options")
        given = {**own.network, **method.network_defaults, **experiment.network_options, **mine}
        options = net.Options.read(
            given, f"{where}, network {experiment.network}", places.instead_of(places.NETWORK)
        )
        built = net(options, data.input_shape, data.outputs(experiment.way))
        built.bind(data)
        network = Component(name=experiment.network, options=canonical(options))
        changed = {
            **experiment.protocol_options,
            **_merged(experiment, key, entry, "protocol_options"),
        }
        training = protocol(experiment.protocol, changed, f"{where}, protocol_options", *rows)
    else:
        seed, steps, query, built = 0, 0, 1, None
    given = {**own.options, **_merged(experiment, key, entry, "options")}
    chosen = method.Options.read(given, f"{where}, method {key}", places.instead_of(places.METHOD))
    if (inner := getattr(chosen, "inner_steps", 0)) > MOST_INNER_STEPS:
        raise UserError(
            f"{where}, method {key}: inner_steps can be at most {MOST_INNER_STEPS:,}, not {inner}."
        )
    learner = method(chosen, built, data.kind) if method.learns else None
    if learner:
        learner.check_task(experiment.way * (shot + min(query, evaluation.query)))
    if not evaluation.inner_steps:
        evaluation = evaluation.model_copy(
            update={"inner_steps": (learner.inner_steps if learner else 0,)}
        )
    return RunSpec(
        method=method.name,
        version=method.version,
        options=canonical(chosen),
        network=network,
        data=Component(name=experiment.data, options=canonical(data.options)),
        data_id=data.data_id,
        protocol=training,
        way=experiment.way,
        shot=shot,
        query=query,
        steps=steps,
        seed=seed,
        precision=study.precision,
        evaluation=evaluation,
    )


def _most(a: RunSpec, b: RunSpec) -> RunSpec:
    """One run for both, evaluated for both."""
    x, y = a.evaluation, b.evaluation
    if x.query != y.query:
        raise UserError(
            f"{a.title} is wanted with {x.query} and with {y.query} test queries; choose one."
        )
    steps = tuple(sorted({*x.inner_steps, *y.inner_steps}))
    both = Evaluation(tasks=max(x.tasks, y.tasks), query=x.query, inner_steps=steps)
    return a.model_copy(update={"evaluation": both})


def _job_title(specs: list[RunSpec]) -> str:
    """``4 runs: maml, maml+cml on sinusoid, 5-shot, seed 0, 1``; ``... on sbm, split r1, r2, ...``
    of class splits.
    """
    methods = ", ".join(dict.fromkeys(spec.method for spec in specs))
    splits = ", ".join(
        dict.fromkeys(s.data.options["split"] for s in specs if "split" in s.data.options)
    )
    where = specs[0].data.name + (f", split {splits}" if splits else "")
    shots, seeds = (
        ", ".join(map(str, sorted(v))) for v in ({s.shot for s in specs}, {s.seed for s in specs})
    )
    return (
        f"{len(specs)} run{'s' * (len(specs) > 1)}: {methods} on {where}, {shots}-shot, seed"
        f" {seeds}"
    )


def _data(specs: dict[str, RunSpec], study: Study) -> tuple[PlannedData, ...]:
    from cml_bench import registry

    found = {}
    for spec in specs.values():
        cls = registry.datasets.get(spec.data.name)
        found[spec.data_id] = PlannedData(
            data_id=spec.data_id,
            key=spec.data_id.replace("/", "-"),
            prepares=cls.has_files,
            terms=cls.terms,
            store=cls.store or spec.data.name,
            published=cls.published(),
            files=tuple(
                PlannedFile(name=file.name, size=file.size, manual=not file.urls, page=file.page)
                for file in cls.edition(study.sources.get(spec.data.name, ()))
            ),
            name=spec.data.name,
            options=spec.data.options,
        )
    return tuple(found[key] for key in sorted(found))


def _cells(study: Study, wanted: Wanted) -> tuple[PlannedCell, ...]:
    return tuple(
        PlannedCell(
            table=key,
            row=row.label,
            columns=group.title,
            shot=shot,
            reading=row.reading,
            tasks=study.experiments[name].evaluation.tasks,
            runs=tuple(wanted[name, row.run, shot]),
            against=tuple(wanted[name, row.against, shot]) if row.against else None,
        )
        for key, table in study.tables.items()
        for row, group, name in table.places()
        for shot in group.shots or study.experiments[name].shots
    )
