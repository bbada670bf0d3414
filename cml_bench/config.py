"""Configuration files: what a user may write, and the errors for everything else. Imports no torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field

from cml_bench.errors import UserError
from cml_bench.spec import NAME, Evaluation, Model


def _counted(value: Any) -> Any:
    """``seeds: 5`` means 0..4."""
    counted = isinstance(value, int) and not isinstance(value, bool) and value <= MAX_SEEDS
    return tuple(range(value)) if counted else value


# Of experiments, rows, tables and figures: they become file names, and the last two targets of the workflow.
Key = Annotated[str, Field(pattern=NAME)]
TARGETS = ("all", "fetch", "train", "trained", "table", "figure", "report")  # rules of the workflow
MAX_SEEDS = 1000
Positive = Annotated[int, Field(ge=1)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_counted), Field(max_length=MAX_SEEDS)]


class LocalCopy(Model):
    """A user's own copy of a file, say repacked: where it is and what its SHA-256 is."""

    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class MethodEntry(Model):
    """One row's training: its options, and what differs from the experiment."""

    method: str = Field("", description="empty: the entry's own key")
    options: dict[str, Any] = Field({}, description="the entry x+cml starts from the options of the entry x")
    network_options: dict[str, Any] = Field({}, description="what of the network differs in this row")
    protocol_options: dict[str, Any] = Field({}, description="what of the protocol differs in this row")
    steps: int | None = Field(None, ge=0)
    seeds: Seeds | None = None


class Experiment(Model):
    """A data set, a network, episode sizes and a budget, shared by several methods."""

    data: str
    data_options: dict[str, Any] = {}
    network: str
    network_options: dict[str, Any] = {}
    way: int = Field(5, ge=1)
    shots: tuple[Positive, ...] = Field(min_length=1)
    query: Positive | Literal["shot"] = 15
    steps: int | None = Field(None, ge=0, description="outer steps; none: the preset's number for each method")
    seeds: Seeds | None = Field(None, description="none: the study's")
    protocol: str = "matched"
    protocol_options: dict[str, Any] = {}
    evaluation: Evaluation = Evaluation()
    evaluation_query: Literal["shot"] | None = Field(None, description="shot: as many as support points")
    methods: dict[Key, MethodEntry] = Field(min_length=1)
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
    tasks: tuple[int, ...] = (0, 1, 2)
    seed: int = 0


class Study(Model):
    """A whole configuration file."""

    study: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str = ""
    summary: str = ""
    seeds: Seeds = (0, 1, 2, 3, 4)
    precision: Literal["float32", "float64"] = "float32"
    experiments: dict[Key, Experiment] = Field(min_length=1)
    tables: dict[Key, TableConfig] = {}
    figures: dict[Key, FigureConfig] = {}
    results: str = Field("results", description="folder for everything that is made")
    data_dir: str = Field("data", description="folder for data sets")
    sources: dict[str, dict[str, LocalCopy]] = Field(
        {}, description="own copies of published files: data set -> file name -> path and SHA-256"
    )
    acknowledged: tuple[str, ...] = Field((), description="data sets whose terms of use you have read and accept")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable as YAML: {error}".replace("\n", " ")) from None
    return parse(content, str(path))


def _check_seeds(seeds: tuple[int, ...], where: str) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"{where}: seeds must be distinct numbers from 0 on, at least one; got {seeds}.")


def _check_references(study: Study, where: str) -> None:
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
