"""A resolved study: its runs, the jobs that make them, and what every table and figure needs.

:func:`cached` makes a plan from a configuration. Resolving the options of methods, networks and
data sets needs the plug-ins, which import torch. That happens in a process of its own
(:mod:`cml_bench.study.resolve`), whose result is kept under the hash of configuration and package
source. Importing this module, and reading a plan, import no torch.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer

from cml_bench import plugins
from cml_bench.data import _archives as archives
from cml_bench.errors import UserError
from cml_bench.spec import RunSpec, canonical, explain
from cml_bench.study.config import checked, complete, parse, serialised
from cml_bench.study.figure_config import Figure
from cml_bench.study.schema import Study, TableConfig
from cml_bench.system.files import DENIED, read_json, write_json

PACKAGE = Path(__file__).parent.parent


class PlanPart(BaseModel):
    """Base of a plan and its parts: frozen. Keys of an older or newer version are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Work(PlanPart):
    """How much a run computes: outer steps, and FLOPs of training, validation and test together.

    ``bytes`` are left on disk.
    """

    steps: int
    flops: int
    bytes: int


class PlannedRun(PlanPart):
    """One training. ``deviates``: option -> (value here, official value), where the two differ."""

    id: str
    folder: str
    title: str
    deviates: dict[str, tuple[Any, Any]] = {}
    gamma_named: bool = Field(True, description="the configuration names gamma, or there is none")
    gpu: bool = Field(False, description="the network is large enough to gain by a GPU")
    spec: RunSpec
    work: Work | None = None

    @field_serializer("spec")
    def _plain(self, spec: RunSpec) -> dict[str, Any]:
        return {**canonical(spec), "evaluation": spec.evaluation.model_dump(mode="json")}


class Job(PlanPart):
    """Runs that share a process. ``data``: ids of the data sets that must be prepared before."""

    runs: tuple[str, ...]
    id: str
    data: tuple[str, ...] = ()
    gpu: bool = False
    title: str = ""


class PlannedFile(PlanPart):
    """A published file of a data set. ``manual``: a person must fetch it, from ``page``."""

    name: str
    size: int
    manual: bool
    page: str


class PlannedData(PlanPart):
    """A data set with its options. ``published``: the digests by file name of each published
    edition.
    """

    data_id: str
    key: str = Field(description="the id as a file name")
    prepares: bool
    terms: str
    store: str
    published: list[dict[str, str]]
    files: tuple[PlannedFile, ...]
    name: str
    options: dict[str, Any] = {}


class PlannedCell(PlanPart):
    """What one cell of a table needs. ``runs``, ``against``: ids, one a replication."""

    table: str
    row: str = ""
    columns: str = ""
    shot: int = 0
    reading: str = "meta"
    tasks: int = 0
    runs: tuple[str, ...]
    against: tuple[str, ...] | None

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the runs of the cell and of its baseline."""
        return self.runs + (self.against or ())


class PlannedSetting(PlanPart):
    """A setting of a sweep. ``values``: option -> value. ``tried``: ids of the runs with the seeds
    of the selection; ``tuned``: with those of the report, which are made if it is selected.
    """

    values: dict[str, Any]
    tried: tuple[str, ...]
    tuned: tuple[str, ...]


class PlannedSweep(PlanPart):
    """The settings in which a method of an experiment is tried at a number of shots. ``drawn``: in
    words, how they were chosen.
    """

    experiment: str
    method: str
    shot: int
    drawn: str
    settings: tuple[PlannedSetting, ...]


class PlannedTable(TableConfig):
    """A table, or a part of one: the whole has ``whole_columns`` times as many columns."""

    whole_columns: float = Field(1.0, exclude=True)


Members = dict[
    str, dict[str, dict[int, tuple[str, ...]]]
]  # experiment -> method's key -> shot -> run ids
Differences = dict[str, tuple[Any, Any]]  # dotted key -> values of a row and of its baseline
Unlike = dict[str, dict[str, Differences]]  # first run of a row -> first of its baseline


class Plan(PlanPart):
    """A resolved study. Its JSON is what ``plan --json`` prints and what is cached."""

    members: Members
    study: Study
    runs: tuple[PlannedRun, ...]
    jobs: tuple[Job, ...]
    data: tuple[PlannedData, ...]
    cells: tuple[PlannedCell, ...]
    tables: dict[str, PlannedTable]
    figures: dict[str, Figure]
    modules: dict[str, tuple[str, ...]] = Field({}, description="see study/provenance.py")
    unlike: Unlike = Field({}, description="see study/likes.py")
    unlike_rows: Unlike = Field({}, description="the same of any two rows of one table")
    chance: dict[str, dict[str, str]] = Field(
        {}, description="run id -> reading -> why it cannot depend on the support set"
    )
    sweeps: tuple[PlannedSweep, ...] = Field((), description="see study/selection.py")
    whole: "Plan | None" = Field(
        None,
        exclude=True,
        description="of a plan with what is selected so far: the plan with every setting",
    )
    path: str = Field("", exclude=True, description="the file that holds it")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other parts; its ``specs`` are those of its own runs."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("specs", None)  # what was cached of these runs
        return copied

    @cached_property
    def specs(self) -> dict[str, RunSpec]:
        """Run id -> its specification."""
        return {run.id: run.spec for run in self.runs}

    def used(self) -> set[str]:
        """Ids of all runs that jobs, cells and experiments name."""
        ids = {i for job in self.jobs for i in job.runs} | {
            i for cell in self.cells for i in cell.needs
        }
        return ids | {
            i
            for methods in self.members.values()
            for shots in methods.values()
            for ids_of_shot in shots.values()
            for i in ids_of_shot
        }

    def json_values(self) -> dict[str, Any]:
        """The plan as plain values."""
        return self.model_dump(mode="json")


def read_plan(path: Path) -> Plan:
    """A resolved plan. A UserError for any other file, and for a plan that lacks what a command
    will read.
    """
    content = read_json(path)
    try:
        plan = _checked(content)
    except UserError as error:
        way_out = "make one with `python -m cml_bench plan --config FILE --out PLAN`"
        raise UserError(
            f"{path} is no resolved plan ({str(error).removesuffix('.')}): {way_out}."
        ) from None
    plugins.use(plan.study.plugins, str(path))
    return plan.model_copy(update={"path": str(path)})


def _checked(content: Any) -> Plan:
    """The plan in these plain values, if its parts belong together."""
    if not isinstance(content, dict):
        raise UserError("its parts are of other kinds")
    try:
        plan = Plan.model_validate(content)
    except ValidationError as error:
        raise UserError(_problem(error)) from None
    study = checked(
        {**content["study"], "tables": content["tables"], "figures": content["figures"]}, "study"
    )
    for name, experiment in study.experiments.items():
        for key in experiment.methods:
            shots = plan.members.get(name, {}).get(key, {})
            if missing := [shot for shot in experiment.shots if shot not in shots]:
                raise UserError(f"it has no {name!r} with the runs of {key} at {missing[0]} shots")
    if strange := plan.used() - plan.specs.keys():
        raise UserError(f"there is no run {min(strange)!r}")
    return plan


def _problem(error: ValidationError) -> str:
    """What is wrong with a plan's own keys in a few words; with what a configuration could hold,
    its key too.
    """
    first = error.errors()[0]
    *outer, last = first["loc"]
    if {"spec", "study", "tables", "figures"} & set(outer):
        return explain(error, "plan")
    return f"it has no {last!r}" if first["type"] == "missing" else "its parts are of other kinds"


def cells_of(study: Study, members: Members) -> tuple[PlannedCell, ...]:
    """What every cell of the study's tables needs."""
    return tuple(
        PlannedCell(
            table=key,
            row=row.label,
            columns=group.title,
            shot=shot,
            reading=row.reading,
            tasks=study.experiments[name].evaluation.tasks,
            runs=members[name][row.run][shot],
            against=members[name][row.against][shot] if row.against else None,
        )
        for key, table in study.tables.items()
        for row, group, name in table.places()
        for shot in group.shots or study.experiments[name].shots
    )


# -- cache
# --------------------------------------------------------------------------------------------


def source_hash() -> str:
    """SHA-256 over the package's Python and JSON files, and with plug-ins over theirs."""
    return hash_of([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.json")]) + plugins.source_hash()


def hash_of(paths: Iterable[Path]) -> str:
    """SHA-256 over files of the package, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def cached(content: dict[str, Any], where: str) -> Plan:
    """The plan of a configuration, resolved in a subprocess unless it is in ``results/plans``.

    ``plan.path`` is the file. It never changes, so a job reads the plan that it was started with,
    whatever is planned beside it. Where nothing can be written there is no file, but still a plan.
    """
    content = complete(content, where)
    study = parse(content, where)
    text = serialised(content, where)
    # The folders too: $SCRATCH may mean another one than when this was planned before.
    folders = ascii((study.results, study.data_dir, study.published, study.sources))
    # A plan names the user's own images by their content: see data/image_folder.py.
    folders += "".join(archives.state(path) for path in study.own_folders())
    digest = hashlib.sha256(f"{source_hash()}\n{text}\n{folders}".encode()).hexdigest()[:16]
    path = Path(study.results) / "plans" / f"{study.study}-{digest}.json"
    known = _known(path)
    if known is None:
        try:
            known = _resolved_apart(content, path, where)
        except OSError as error:  # a file in a folder's place, no permission, a full disk
            if error.errno not in DENIED:
                raise UserError(
                    f"{where}: the plan cannot be written to {path.parent} ({error.strerror}). Mend"
                    " that, or name another folder under `results`."
                ) from None
            print(
                f"the plan cannot be kept in {path.parent} ({error.strerror}): it is made again"
                " each time.",
                file=sys.stderr,
                flush=True,
            )
            with tempfile.TemporaryDirectory() as folder:
                known = _resolved_apart(content, Path(folder) / path.name, where)
    return known.model_copy(update={"path": str(path)})


def _resolved_apart(content: dict[str, Any], path: Path, where: str) -> Plan:
    """Resolve in a process of its own, which loads torch. Its error is the user's."""
    config = path.with_suffix(".config.json")
    made = [folder for folder in path.parents if not folder.exists()]
    write_json(config, content)
    command = [sys.executable, "-m", "cml_bench", "plan", f"--config={config}", f"--out={path}"]
    environment = {
        **os.environ,
        "CML_BENCH_PLAN": str(path),
    }  # the two paths are expanded already: see paths.py
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=environment
    )
    if done.returncode:
        config.unlink(missing_ok=True)
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        said = (done.stderr.strip() or done.stdout.strip()).removeprefix("error: ")
        raise UserError(
            said.replace(str(config), where)
            or f"{where}: planning was stopped (exit code {done.returncode}), perhaps for want of"
            " memory."
        )
    return Plan.model_validate_json(path.read_bytes())


def _known(path: Path) -> Plan | None:
    """A plan resolved before, unless its file is missing or damaged."""
    try:
        return Plan.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
