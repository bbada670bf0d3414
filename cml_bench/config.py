"""Configuration files: what a user may write, and the errors for everything else. Imports no torch."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, model_validator

from cml_bench.errors import UserError
from cml_bench.spec import MOST_EXAMPLES, MOST_SEED, MOST_STEPS, NAME, Evaluation, Model


def _counted(value: Any) -> Any:
    """``seeds: 5`` means 0..4."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value > MAX_SEEDS:
        raise ValueError(f"there can be at most {MAX_SEEDS:,} seeds")
    return tuple(range(value))


Key = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]  # of studies, experiments, tables, figures: files and targets
MethodKey = Annotated[str, Field(pattern=NAME)]
TARGETS = ("all", "fetch", "train", "trained", "table", "figure", "report")  # rules of the workflow
FOLDERS = ("runs", "plans", "done", "logs", "reference")  # of the results folder, where a study has one too
MAX_SEEDS = 1000
Positive = Annotated[int, Field(ge=1, le=MOST_EXAMPLES)]
Steps = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_counted), Field(max_length=MAX_SEEDS)]
Folder = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]


class LocalCopy(Model):
    """A user's own copy of a published file, perhaps repacked: on this machine or on a mirror, and its SHA-256."""

    path: Folder | None = Field(None, description="where it is on this machine")
    url: str | None = Field(None, pattern=r"^https?://[^\s/]+/\S+$", description="where a mirror has it")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path (a file on this machine) or url (of a mirror)")
        return self


class MethodEntry(Model):
    """One row's training: its options, and what differs from the experiment."""

    method: str = Field("", description="empty: the entry's own key")
    options: dict[str, Any] = Field({}, description="the entry x+cml starts from the options of the entry x")
    network_options: dict[str, Any] = Field({}, description="what of the network differs in this row")
    protocol_options: dict[str, Any] = Field({}, description="what of the protocol differs in this row")
    steps: Steps | None = None
    seeds: Seeds | None = None


class Experiment(Model):
    """A data set, a network, episode sizes and a budget, shared by several methods."""

    data: str
    data_options: dict[str, Any] = {}
    network: str
    network_options: dict[str, Any] = {}
    way: Positive = 5
    shots: tuple[Positive, ...] = Field(min_length=1)
    query: Positive | Literal["shot"] = 15
    steps: Steps | None = Field(None, description="outer steps; none: the preset's number for each method")
    seeds: Seeds | None = Field(None, description="none: the study's")
    protocol: str = "matched"
    protocol_options: dict[str, Any] = {}
    evaluation: Evaluation = Evaluation()
    evaluation_query: Literal["shot"] | None = Field(None, description="shot: as many as support points")
    methods: dict[MethodKey, MethodEntry] = Field(min_length=1)
    runs_per_job: int = Field(1, ge=1, description="short runs share a process: starting one costs seconds")


class Row(Model):
    """One row of a table."""

    label: str
    run: str = Field(description="a key of the experiment's methods")
    reading: str = Field("meta", description="which result of the run: see the documentation of readings")
    against: str | None = Field(None, description="the baseline's key, for the paired difference")


class TableConfig(Model):
    """One table: rows of an experiment; columns are its shots (and inner steps for regression)."""

    kind: Literal["accuracy", "cost", "regression"]
    experiment: str
    title: str
    caption: str = ""
    inner_steps: tuple[int, ...] = Field((), description="columns of a regression table; empty: all that are evaluated")
    rows: tuple[Row, ...] = Field(min_length=1)


class FigureConfig(Model):
    """One figure: adapted curves of an experiment's methods on test tasks."""

    kind: Literal["curves"]
    experiment: str
    title: str
    caption: str = ""
    runs: tuple[Row, ...] = Field(min_length=1)
    tasks: tuple[Seed, ...] = Field((0, 1, 2), min_length=1, description="numbers of test tasks, from 0 on")
    seed: Seed = 0


class Study(Model):
    """A whole configuration file."""

    study: Key
    title: str = ""
    summary: str = ""
    seeds: Seeds = (0, 1, 2, 3, 4)
    precision: Literal["float32", "float64"] = "float32"
    experiments: dict[Key, Experiment] = Field(min_length=1)
    tables: dict[Key, TableConfig] = {}
    figures: dict[Key, FigureConfig] = {}
    results: Folder = Field("results", description="folder for everything that is made")
    data_dir: Folder = Field("data", description="folder for data sets")
    sources: dict[str, dict[str, LocalCopy]] = Field(
        {}, description="own copies of published files: data set -> file name -> path or url, and SHA-256"
    )
    acknowledged: tuple[str, ...] = Field((), description="data sets whose terms of use you have read and accept")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$",
        description="auto: a CUDA device if there is one and the network gains by it, else cpu",
    )
    gpu: Literal["optional", "expected"] = Field(
        "optional", description="expected: without a GPU the study takes weeks, so it stops unless allow_cpu is set"
    )
    allow_cpu: bool = Field(False, description="run on the CPU although a GPU is expected")
    runs_per_gpu: int = Field(1, ge=1, description="trainings that share one GPU")


def parse(content: Any, where: str) -> Study:
    """Check a configuration; a UserError names the file and every offending key."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: a configuration is a mapping of keys to values, not {type(content).__name__}.")
    study = Study.read(content, where)
    _check_references(study, where)
    return study


def read(path: Path | str) -> Study:
    """Read and check a YAML file."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"there is no configuration file {path}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # 2024-02-31, an endless number, [[[[...
        raise UserError(f"{path} is not readable as YAML: {error}".replace("\n", " ")) from None
    return parse(content, str(path))


def _shown(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds[:5])) + ", …" * (len(seeds) > 5) if seeds else "none"


def _check_seeds(seeds: tuple[int, ...], where: str) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"{where}: seeds must be distinct numbers from 0 on, at least one; got {_shown(seeds)}.")


def _check_references(study: Study, where: str) -> None:
    if study.study in FOLDERS:
        raise UserError(f"{where}: a study cannot be called {study.study!r}, the folder is taken. Choose another name.")
    _check_seeds(study.seeds, where)
    for name, experiment in study.experiments.items():
        for key, item in [(name, experiment), *((f"{name}, {key}", m) for key, m in experiment.methods.items())]:
            if item.seeds is not None:
                _check_seeds(item.seeds, f"{where}, experiment {key}")
    for key in [*study.tables, *study.figures]:
        if key in TARGETS or (key in study.tables and key in study.figures):
            raise UserError(f"{where}: a table or figure cannot be called {key!r}, the name is taken. Choose another.")
    for key, item in [*study.tables.items(), *study.figures.items()]:
        experiment = study.experiments.get(item.experiment)
        if experiment is None:
            known = ", ".join(study.experiments)
            raise UserError(f"{where}: {key} names the experiment {item.experiment!r}; there are: {known}.")
        for row in item.rows if isinstance(item, TableConfig) else item.runs:
            for name in (row.run, row.against):
                if name is not None and name not in experiment.methods:
                    raise UserError(
                        f"{where}: {key}, row {row.label!r} names the run {name!r}; the experiment "
                        f"{item.experiment!r} has: {', '.join(experiment.methods)}."
                    )
