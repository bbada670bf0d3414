"""From a configuration to a plan: runs, jobs, and what every table cell needs.

:func:`resolve` loads the plug-ins, which import torch. Commands that only read a plan go through
:func:`cml_bench.study.plan.cached`, which calls it in a process of its own.
"""

import hashlib
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cml_bench.errors import UserError
from cml_bench.readings import by_chance
from cml_bench.spec import (
    MOST_INNER_STEPS,
    Component,
    Evaluation,
    Options,
    Protocol,
    RunSpec,
    canonical,
)
from cml_bench.study import places, selection, sweeps
from cml_bench.study.checks import check_names, check_rows, layers, told
from cml_bench.study.figure_config import FigureConfig
from cml_bench.study.likes import in_figure, inherited, pairs, unlike_rows
from cml_bench.study.plan import (
    Job,
    Members,
    Plan,
    PlannedData,
    PlannedFile,
    PlannedRun,
    PlannedTable,
    cells_of,
)
from cml_bench.study.protocols import Recipe, deviation, protocol, recipe, released_row
from cml_bench.study.provenance import by_kind
from cml_bench.study.schema import Experiment, MethodEntry, Study

if TYPE_CHECKING:
    from cml_bench.data.base import DataSet
    from cml_bench.methods.base import Method
    from cml_bench.networks.base import Network

RunsOfCells = dict[tuple[str, str, int], list[str]]  # experiment, method's key, shot -> run ids


def resolve(study: Study, where: str) -> Plan:
    """The plan of a study.

    Equal specs wanted by several experiments are one run; it gets the most demanding evaluation.
    """
    sweeps.check_options(study, where)
    every, whole = _Runs(), inherited(study, where)
    jobs = [job for name in study.experiments for job in _of_experiment(whole, name, every, where)]
    members: Members = {}
    for (name, key, shot), ids in every.wanted.items():
        members.setdefault(name, {}).setdefault(key, {})[shot] = tuple(ids)
    check_names(study, where)
    check_rows(study, members, every.specs, where)
    every.check_starts(study)
    drawn, chance = {}, by_chance(every.learners)
    swept = selection.planned(study, members)
    settings = selection.titles(swept)
    for key, asked in study.figures.items():
        figure = in_figure(asked, members, chance, f"{where}, {key}")
        of_splits = bool(study.experiments[figure.experiment].splits)
        drawn[key] = _figure(figure, of_splits, _first(figure, members, every.specs))
    return Plan(
        members=members,
        study=study,
        runs=tuple(
            _run(run, spec, run in every.named, settings.get(run, ""))
            for run, spec in every.specs.items()
        ),
        jobs=tuple(_job(runs, every.specs) for runs in jobs),
        data=_data(every.specs, study),
        cells=cells_of(study, members),
        tables={
            key: PlannedTable.model_validate(dict(table)) for key, table in study.tables.items()
        },
        figures=drawn,
        modules=by_kind(every.specs.values()),
        unlike=pairs(study, members, every.specs, where),
        unlike_rows=unlike_rows(study, members, every.specs),
        chance=chance,
        sweeps=swept,
    )


class _Runs:
    """``named``: ids of runs that have no gamma, or whose gamma is in the configuration."""

    def __init__(self) -> None:
        self.specs: dict[str, RunSpec] = {}
        self.wanted: RunsOfCells = {}
        self.named: set[str] = set()
        self.learners: dict[str, Method | None] = {}

    def add(self, spec: RunSpec, learner: "Method | None", place: tuple[str, str, int]) -> str:
        """Add a run and give its id. ``place``: the experiment, key and shot that want it."""
        run = spec.id
        self.specs[run] = _most(self.specs[run], spec) if run in self.specs else spec
        self.learners.setdefault(run, learner)
        cell = self.wanted.setdefault(place, [])
        if run not in cell:
            cell.append(run)
        return run

    def check_starts(self, study: Study) -> None:
        """A UserError for a run whose parameters cannot be initialised."""
        for run, learner in self.learners.items():
            try:
                if learner:
                    learner.check_start()
            except UserError as error:
                title = self.specs[run].title
                raise UserError(f"study {study.study}, {title}: {error}") from None


def _of_experiment(study: Study, name: str, runs: _Runs, where: str) -> list[list[str]]:
    """Add an experiment's runs; the new ones, by job."""
    experiment, new = study.experiments[name], dict[str, list[str]]()
    settings, of_sweep = sweeps.tuned_entries(experiment), sweeps.entries_of(experiment.sweep)
    first: dict[tuple[int, str, str], tuple[RunSpec, Method | None]] = {}  # of a cell's seeds
    for shot in experiment.shots:
        for seed, split, key, entry in _entries(study, experiment):
            home, title = f"{where}, experiment {name!r}", key
            if key in of_sweep:
                title, values = of_sweep[key]
                home += f", sweep of {title}, setting {selection.text(values)}"
            with told(home) as place:
                row = _Row(study, _on_split(experiment, split), title, entry, shot, place)
                known = len(runs.specs)
                if (shot, split, key) not in first:
                    first[shot, split, key] = _spec(row, seed)
                spec, learner = first[shot, split, key]
                spec = spec.model_copy(update={"seed": seed}) if learner else spec
                run = runs.add(spec, learner, (name, key, shot))
            if len(runs.specs) > known:
                # The runs of a setting are made if it is selected, so they have jobs of their own.
                # So have those of the selection: a sweep leaves all other jobs as they are.
                lot = f"{key} {shot}" if key in settings else "" if entry.tested else "tried"
                new.setdefault(lot, []).append(run)
            options = runs.specs[run].options
            if "cml" not in options or "gamma" in row.entry.options.get("cml", {}):
                runs.named.add(run)
    size = experiment.runs_per_job
    return [lot[i : i + size] for lot in new.values() for i in range(0, len(lot), size)]


def _job(runs: list[str], every: dict[str, RunSpec]) -> Job:
    specs = [every[run] for run in runs]
    wanted = [spec.evaluation.model_dump(mode="json") for spec in specs]
    text = json.dumps(list(zip(runs, wanted, strict=True)))
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


def _figure(figure: FigureConfig, splits: bool, spec: RunSpec) -> FigureConfig:
    """With what depends on its network, and with its options' choices in the caption."""
    figure = figure.resolved(layers(spec))
    caption = f"{figure.caption} {figure.definition('class splits' if splits else 'seeds')}".strip()
    return figure.model_copy(update={"caption": caption})


def _run(run: str, spec: RunSpec, named: bool, setting: str) -> PlannedRun:
    from cml_bench import registry

    method = registry.method(spec.method)
    net = registry.networks.get(spec.network.name) if spec.network else None
    return PlannedRun(
        id=run,
        folder=spec.folder,
        title=f"{spec.title} ({setting})" if setting else spec.title,
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


class _Row(NamedTuple):
    """What one run is resolved from: a method's entry of an experiment, at a number of shots."""

    study: Study
    experiment: Experiment
    key: str
    entry: MethodEntry
    shot: int
    where: str

    @property
    def query(self) -> int:
        """Query examples per class in training and validation."""
        return self.shot if self.experiment.query == "shot" else self.experiment.query

    @property
    def evaluation(self) -> Evaluation:
        """As the experiment says; no inner steps: the method's own number."""
        changed = {"query": self.shot} if self.experiment.evaluation_query == "shot" else {}
        return self.experiment.evaluation.model_copy(update=changed)


def _spec(row: _Row, seed: int) -> tuple[RunSpec, "Method | None"]:
    """The run, and its method on an uninitialised network; None if the method learns nothing."""
    from cml_bench import registry  # plug-ins import torch

    method, data = registry.method(row.entry.method or row.key), _data_set(row)
    net = registry.networks.get(row.experiment.network) if method.learns else None
    own = recipe(row.experiment.protocol, released_row(method, net), method.more_recipes)
    network = _network(row, method, net, own, data) if net else None
    training = _training(row, method, net, own)
    chosen = _method_options(row, method, own)
    learner = method(chosen, network, data.kind) if network else None
    spec = RunSpec(
        method=method.name,
        version=method.version,
        options=canonical(chosen),
        network=Component.of(row.experiment.network, learner.network.options) if learner else None,
        data=Component.of(row.experiment.data, data.options),
        data_id=data.data_id,
        protocol=training.protocol,
        way=row.experiment.way,
        shot=row.shot,
        query=training.query,
        steps=training.steps,
        seed=seed if learner else 0,
        precision=row.study.precision,
        evaluation=_evaluation(row, learner),
    )
    if learner:
        least = min(spec.query, spec.evaluation.query)
        learner.check_task(spec.way * (spec.shot + least))
    return spec, learner


class _Training(NamedTuple):
    """How a run is trained. Where nothing is learned: not at all, under one protocol for all."""

    protocol: Protocol
    steps: int
    query: int


def _training(
    row: _Row, method: "type[Method]", net: "type[Network] | None", own: Recipe
) -> _Training:
    if net is None:
        return _Training(protocol("matched", {}, row.where), 0, 1)
    experiment = row.experiment
    changed = {**experiment.protocol_options, **row.entry.protocol_options}
    place = f"{row.where}, protocol_options"
    rows = (released_row(method, net), method.more_recipes)
    steps = next(s for s in (row.entry.steps, experiment.steps, own.steps) if s is not None)
    return _Training(protocol(experiment.protocol, changed, place, *rows), steps, row.query)


def _evaluation(row: _Row, learner: "Method | None") -> Evaluation:
    """The experiment's, by default after the inner steps of the method's training."""
    if not row.entry.tested:
        return Evaluation(tasks=0, query=row.evaluation.query)
    if row.evaluation.inner_steps:
        return row.evaluation
    usual = learner.inner_steps if learner else 0
    return row.evaluation.model_copy(update={"inner_steps": (usual,)})


def _data_set(row: _Row) -> "DataSet":
    """The experiment's data set, not opened; a UserError where it has no such episodes."""
    from cml_bench import registry

    cls, place = registry.datasets.get(row.experiment.data), f"data set {row.experiment.data}"
    options, belongs = row.experiment.data_options, places.instead_of(places.DATA)
    data = cls(cls.Options.read(options, f"{row.where}, {place}", belongs))
    data.look(Path(row.study.data_dir))
    data.check("train", row.experiment.way, row.shot, row.query)
    data.check("validation", row.experiment.way, row.shot, row.query)
    data.check("test", row.experiment.way, row.shot, row.evaluation.query)
    data.check_evaluation(row.evaluation)
    return data


def _network(
    row: _Row, method: "type[Method]", net: "type[Network]", own: Recipe, data: "DataSet"
) -> "Network":
    """The network, bound to the data set; a UserError where the two do not fit."""
    if method.needs not in (None, net.takes):
        raise UserError(
            f"{row.where}, method {row.key}: it works on {method.needs}, and {net.name} takes"
            f" {net.takes}."
        )
    usual = {**own.network, **method.network_defaults}
    given = {**usual, **row.experiment.network_options, **row.entry.network_options}
    place = f"{row.where}, network {row.experiment.network}"
    options = net.Options.read(given, place, places.instead_of(places.NETWORK))
    built = net(options, data.input_shape, data.outputs(row.experiment.way))
    built.bind(data)
    return built


def _method_options(row: _Row, method: "type[Method]", own: Recipe) -> Options:
    place, given = f"{row.where}, method {row.key}", {**own.options, **row.entry.options}
    chosen: Options = method.Options.read(given, place, places.instead_of(places.METHOD))
    if (inner := getattr(chosen, "inner_steps", 0)) > MOST_INNER_STEPS:
        raise UserError(f"{place}: inner_steps can be at most {MOST_INNER_STEPS:,}, not {inner}.")
    return chosen


def _most(a: RunSpec, b: RunSpec) -> RunSpec:
    """One run for both, evaluated for both."""
    x, y = a.evaluation, b.evaluation
    if x.query != y.query and x.tasks and y.tasks:
        raise UserError(
            f"{a.title} is wanted with {x.query} and with {y.query} test queries; choose one."
        )
    return a.model_copy(update={"evaluation": x.joined(y)})


def _job_title(specs: list[RunSpec]) -> str:
    """``4 runs: maml, maml+cml on sinusoid, 5-shot, seed 0, 1``; with the class splits, if any."""
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

    planned = {}
    for spec in {spec.data_id: spec for spec in specs.values()}.values():
        cls = registry.datasets.get(spec.data.name)
        planned[spec.data_id] = PlannedData(
            data_id=spec.data_id,
            key=spec.data_id.replace("/", "-"),
            prepares=cls.has_files,
            terms=cls.terms,
            store=cls.store or spec.data.name,
            published=cls.edition_digests(),
            files=tuple(
                PlannedFile(name=file.name, size=file.size, manual=not file.urls, page=file.page)
                for file in cls.edition(study.sources.get(spec.data.name, ()))
            ),
            name=spec.data.name,
            options={**spec.data.options, **spec.data.paths},
        )
    return tuple(planned[key] for key in sorted(planned))
