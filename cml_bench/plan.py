"""From a configuration to runs, jobs, and what every table cell needs.

Resolving options needs the plug-ins, which import torch; that happens inside :func:`resolve` only, in a
process of its own, and its result is cached under the hash of configuration and package source. Importing
this module, and reading a cached plan, import no torch.
"""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cml_bench import places
from cml_bench.config import Experiment, MethodEntry, Study, included, parse, serialised
from cml_bench.errors import UserError
from cml_bench.figure_config import CosineFigure, FigureConfig
from cml_bench.files import DENIED, write_json
from cml_bench.plan_checks import check_names, check_rows, layers, told
from cml_bench.protocols import deviation, protocol, recipe, released_row
from cml_bench.registry import CML
from cml_bench.spec import MOST_INNER_STEPS, Component, Evaluation, RunSpec, canonical

PACKAGE = Path(__file__).parent
KEYS = {"study", "runs", "jobs", "cells", "tables", "figures", "members", "data"}  # of a plan, among others


def resolve(study: Study, where: str) -> dict[str, Any]:
    """The plan: ``runs``, ``jobs``, ``cells``, ``tables``, ``figures`` as plain values.

    Equal specs wanted by several experiments are one run; it gets the most demanding evaluation.
    """
    specs: dict[str, RunSpec] = {}
    wanted: dict[tuple[str, str, int], list[str]] = {}
    jobs: list[dict[str, Any]] = []
    named: set[str] = set()  # runs whose gamma stands in the configuration, or that have none
    for name, experiment in study.experiments.items():
        ids: list[str] = []
        for shot in experiment.shots:
            for seed, split, key, entry in _entries(study, experiment):
                with told(f"{where}, experiment {name!r}") as place:
                    spec = _spec(study, _on_split(experiment, split), key, entry, shot, seed, place)
                    known = specs.get(spec.id)
                    specs[spec.id] = spec if known is None else _most(known, spec)
                if known is None:
                    ids.append(spec.id)
                if "cml" not in spec.options or "gamma" in _merged(experiment, key, entry, "options").get("cml", {}):
                    named.add(spec.id)
                cell = wanted.setdefault((name, key, shot), [])
                if spec.id not in cell:
                    cell.append(spec.id)
        jobs += _jobs(ids, experiment.runs_per_job)
    for job in jobs:
        text = json.dumps([(i, specs[i].evaluation.model_dump(mode="json")) for i in job["runs"]])
        job["id"] = hashlib.sha256(text.encode()).hexdigest()[:12]
        job["data"] = sorted({specs[i].data_id for i in job["runs"]})
        job["gpu"] = any(_gains_by_gpu(specs[i]) for i in job["runs"])
        job["title"] = _job_title([specs[i] for i in job["runs"]])
    members: dict[str, Any] = {}
    for (name, key, shot), ids in wanted.items():
        members.setdefault(name, {}).setdefault(key, {})[str(shot)] = ids
    check_names(study, where)
    check_rows(study, members, specs, where)
    return {
        "members": members,
        "study": study.model_dump(mode="json"),
        "runs": [_run(s, s.id in named) for s in specs.values()],
        "jobs": jobs,
        "data": _data(specs, study),
        "cells": _cells(study, wanted),
        "tables": {key: table.model_dump(mode="json") for key, table in study.tables.items()},
        "figures": {
            key: _figure(figure, bool(study.experiments[figure.experiment].splits), _first(figure, members, specs))
            for key, figure in study.figures.items()
        },
    }


def _first(figure: FigureConfig, members: dict[str, Any], specs: dict[str, RunSpec]) -> RunSpec:
    """A run of the figure's first row: all its rows have one network."""
    return specs[next(iter(members[figure.experiment][figure.runs[0].run].values()))[0]]


def _figure(figure: FigureConfig, splits: bool, spec: RunSpec) -> dict[str, Any]:
    """With the choices that its options make in the caption, and the layer that is meant where none is named."""
    if isinstance(figure, CosineFigure) and not figure.layer:
        figure = figure.model_copy(update={"layer": layers(spec)[-1]})
    caption = f"{figure.caption} {figure.definition('class splits' if splits else 'seeds')}".strip()
    return figure.model_dump(mode="json") | {"caption": caption}


def _run(spec: RunSpec, named: bool) -> dict[str, Any]:
    from cml_bench import registry

    fields = {"id": spec.id, "folder": spec.folder, "title": spec.title}
    method, net = registry.method(spec.method), spec.network and registry.networks.get(spec.network.name)
    told = {"deviates": deviation(spec, method, net), "gamma_named": named}
    return {**fields, **told, "gpu": _gains_by_gpu(spec), "spec": _plain(spec)}


def _gains_by_gpu(spec: RunSpec) -> bool:
    from cml_bench import registry

    return spec.network is not None and not registry.networks.get(spec.network.name).small


def _plain(spec: RunSpec) -> dict[str, Any]:
    return {**canonical(spec), "evaluation": spec.evaluation.model_dump(mode="json")}


def _entries(study: Study, experiment: Experiment) -> list[tuple[int, str, str, MethodEntry]]:
    """Seed by seed (and class split by class split), so that an interrupted study has whole replications."""
    seeds = {key: entry.seeds or experiment.seeds or study.seeds for key, entry in experiment.methods.items()}
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
    study: Study, experiment: Experiment, key: str, entry: MethodEntry, shot: int, seed: int, where: str
) -> RunSpec:
    from cml_bench import registry  # plug-ins import torch

    method = registry.method(entry.method or key)
    data_class = registry.datasets.get(experiment.data)
    data = data_class(
        data_class.Options.read(
            experiment.data_options, f"{where}, data set {experiment.data}", places.instead_of(places.DATA)
        )
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
            raise UserError(f"{where}, method {key}: it works on {method.needs}, and {net.name} takes {net.takes}.")
        mine = _merged(experiment, key, entry, "network_options")
        given = {**own.network, **method.network_defaults, **experiment.network_options, **mine}
        options = net.Options.read(given, f"{where}, network {experiment.network}", places.instead_of(places.NETWORK))
        built = net(options, data.input_shape, data.outputs(experiment.way))
        built.bind(data)
        network = Component(name=experiment.network, options=canonical(options))
        changed = {**experiment.protocol_options, **_merged(experiment, key, entry, "protocol_options")}
        training = protocol(experiment.protocol, changed, f"{where}, protocol_options", *rows)
    else:
        seed, steps, query, built = 0, 0, 1, None
    chosen = method.Options.read(
        {**own.options, **_merged(experiment, key, entry, "options")},
        f"{where}, method {key}",
        places.instead_of(places.METHOD),
    )
    if (inner := getattr(chosen, "inner_steps", 0)) > MOST_INNER_STEPS:
        raise UserError(f"{where}, method {key}: inner_steps can be at most {MOST_INNER_STEPS:,}, not {inner}.")
    learner = method(chosen, built, data.kind) if method.learns else None
    if learner:
        learner.check_task(experiment.way * (shot + min(query, evaluation.query)))
    if not evaluation.inner_steps:
        evaluation = evaluation.model_copy(update={"inner_steps": (learner.inner_steps if learner else 0,)})
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
        raise UserError(f"{a.title} is wanted with {x.query} and with {y.query} test queries; choose one.")
    steps = tuple(sorted({*x.inner_steps, *y.inner_steps}))
    both = Evaluation(tasks=max(x.tasks, y.tasks), query=x.query, inner_steps=steps)
    return a.model_copy(update={"evaluation": both})


def _jobs(ids: list[str], size: int) -> list[dict[str, Any]]:
    return [{"runs": ids[i : i + size]} for i in range(0, len(ids), size)]


def _job_title(specs: list[RunSpec]) -> str:
    """``4 runs: maml, maml+cml on sinusoid, 5-shot, seed 0, 1``; ``... on sbm, split r1, r2, ...`` of class splits."""
    methods = ", ".join(dict.fromkeys(spec.method for spec in specs))
    splits = ", ".join(dict.fromkeys(s.data.options["split"] for s in specs if "split" in s.data.options))
    where = specs[0].data.name + (f", split {splits}" if splits else "")
    shots, seeds = (", ".join(map(str, sorted(v))) for v in ({s.shot for s in specs}, {s.seed for s in specs}))
    return f"{len(specs)} run{'s' * (len(specs) > 1)}: {methods} on {where}, {shots}-shot, seed {seeds}"


def _data(specs: dict[str, RunSpec], study: Study) -> list[dict[str, Any]]:
    from cml_bench import registry

    found = {}
    for spec in specs.values():
        cls = registry.datasets.get(spec.data.name)
        files = cls.edition(study.sources.get(spec.data.name, ()))
        found[spec.data_id] = {
            "data_id": spec.data_id, "key": spec.data_id.replace("/", "-"),  # for file names
            "prepares": cls.has_files, "terms": cls.terms, "store": cls.store or spec.data.name,
            "published": cls.published(),
            "files": [{"name": f.name, "size": f.size, "manual": not f.urls, "page": f.page} for f in files],
            **spec.data.model_dump(mode="json"),
        }  # fmt: skip
    return [found[key] for key in sorted(found)]


def _cells(study: Study, wanted: dict[tuple[str, str, int], list[str]]) -> list[dict[str, Any]]:
    cells = []
    for key, table in study.tables.items():
        for row, group, name in table.places():
            experiment = study.experiments[name]
            for shot in group.shots or experiment.shots:
                cells.append(
                    {
                        "table": key,
                        "row": row.label,
                        "columns": group.title,
                        "shot": shot,
                        "reading": row.reading,
                        "tasks": experiment.evaluation.tasks,
                        "runs": wanted[name, row.run, shot],
                        "against": wanted[name, row.against, shot] if row.against else None,
                    }
                )
    return cells


# -- cache --------------------------------------------------------------------------------------------


def source_hash() -> str:
    """SHA-256 over the package's Python and JSON files."""
    digest = hashlib.sha256()
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.json")]):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def cached(content: dict[str, Any], where: str, results: Path | None = None) -> dict[str, Any]:
    """The plan of a configuration, resolved in a subprocess unless it is cached under ``results/plans``.

    ``plan["path"]`` is that file. It never changes, so a job reads the plan that it was started with, whatever is
    planned beside it. In a folder that one may only read there is no such file, and the plan is there all the same.
    """
    content = included(content, where)
    study = parse(content, where)
    results = Path(results or study.results)
    text = serialised(content, where)
    # The folders too: $SCRATCH may mean another one than when this was planned before.
    folders = ascii((study.results, study.data_dir, study.published, study.sources))
    digest = hashlib.sha256(f"{source_hash()}\n{text}\n{folders}".encode()).hexdigest()[:16]
    path = results / "plans" / f"{study.study}-{digest}.json"
    known = _known(path)
    if known is None:
        try:
            known = _resolved_apart(content, path, where)
        except OSError as error:  # a file in a folder's place, no permission, a full disk
            if error.errno not in DENIED:
                raise UserError(
                    f"{where}: the plan cannot be written to {path.parent} ({error.strerror}). Mend that, or name "
                    "another folder under `results`."
                ) from None
            print(f"the plan cannot be kept in {path.parent} ({error.strerror}): it is made again each time.",
                  file=sys.stderr, flush=True)  # fmt: skip
            with tempfile.TemporaryDirectory() as folder:
                known = _resolved_apart(content, Path(folder) / path.name, where)
    return {**known, "path": str(path)}


def _resolved_apart(content: dict[str, Any], path: Path, where: str) -> dict[str, Any]:
    """Resolve in a process of its own, which is the one that loads torch. Its error is the user's."""
    config = path.with_suffix(".config.json")
    write_json(config, content)
    command = [sys.executable, "-m", "cml_bench", "plan", f"--config={config}", f"--out={path}"]
    environment = {**os.environ, "CML_BENCH_PLAN": str(path)}  # the two paths are expanded already: see paths.py
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).removeprefix("error: ")
        raise UserError(
            said.replace(str(config), where)
            or f"{where}: planning was stopped (exit code {done.returncode}), perhaps for want of memory."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _known(path: Path) -> dict[str, Any] | None:
    """A plan resolved before, unless its file is missing or damaged."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return plan if isinstance(plan, dict) and plan.keys() >= KEYS else None
