"""Configuration files: what a user may write, and the errors for everything else. Imports no
torch.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cml_bench.data.prepared import Folder, LocalCopy
from cml_bench.errors import UserError
from cml_bench.spec import MOST_STEPS, NAME, Evaluation, Model, Precision
from cml_bench.study import places, strict_yaml
from cml_bench.study.figure_config import Figure, FigureConfig, Positive, Row, Seed
from cml_bench.system.paths import expanded
from cml_bench.system.shells import check_path
from cml_bench.texts import Line


def _counted(value: Any) -> Any:
    """``seeds: 5`` means 0..4."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value > MAX_SEEDS:
        raise ValueError(f"there can be at most {MAX_SEEDS:,} seeds")
    return tuple(range(value))


Key = Annotated[
    str, Field(pattern=r"^[a-z0-9_]+$")
]  # of studies, experiments, tables, figures: files and targets
MethodKey = Annotated[str, Field(pattern=NAME)]
TARGETS = ("all", "fetch", "train", "trained", "table", "figure", "report")  # rules of the workflow
FOLDERS = (
    "runs",
    "plans",
    "done",
    "logs",
    "reference",
)  # of the results folder, where a study has one too
MAX_SEEDS = 1000
Steps = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_counted), Field(max_length=MAX_SEEDS)]


class MethodEntry(Model):
    """One row's training: its options, and what differs from the experiment."""

    method: str = Field("", description="empty: the entry's own key")
    options: dict[str, Any] = Field(
        {}, description="the entry x+cml starts from the options of the entry x"
    )
    network_options: dict[str, Any] = Field(
        {}, description="what of the network differs in this row"
    )
    protocol_options: dict[str, Any] = Field(
        {}, description="what of the protocol differs in this row"
    )
    steps: Steps | None = None
    seeds: Seeds | None = None
    splits: tuple[str, ...] = Field(
        (), description="some of the experiment's class splits; empty: all"
    )


class Experiment(Model):
    """A data set, a network, episode sizes and a budget, shared by several methods."""

    data: str
    data_options: dict[str, Any] = {}
    network: str
    network_options: dict[str, Any] = {}
    way: Positive = 5
    shots: tuple[Positive, ...] = Field(min_length=1)
    query: Positive | Literal["shot"] = 15
    steps: Steps | None = Field(
        None, description="outer steps; none: the preset's number for each method"
    )
    seeds: Seeds | None = Field(None, description="none: the study's")
    splits: tuple[str, ...] = Field(
        (),
        description=(
            "class splits of a graph, instead of data_options.split: one run each, with the one"
            " seed"
        ),
    )
    protocol: str = Field(
        "",
        description=(
            "a preset: official, clean, matched, or one that its methods have (tlp); empty: the"
            " study's"
        ),
    )
    protocol_options: dict[str, Any] = {}
    evaluation: Evaluation = Evaluation()
    evaluation_query: Literal["shot"] | None = Field(
        None, description="shot: as many as support points"
    )
    methods: dict[MethodKey, MethodEntry] = Field(min_length=1)
    runs_per_job: int = Field(
        1, ge=1, description="short runs share a process: starting one costs seconds"
    )


class ColumnGroup(Model):
    """Columns of a table: the shots of one experiment, under a title of their own if there are
    several groups.
    """

    experiment: str
    title: Line = ""
    shots: tuple[Positive, ...] = Field(
        (), description="which of the experiment's shots; empty: all"
    )
    fixed: str = Field(
        "", description="kind splits: the experiment on one split with several seeds, a second line"
    )


class TableConfig(Model):
    """One table: rows are methods; columns are the shots of experiments (and inner steps for
    regression).
    """

    kind: Literal["accuracy", "cost", "regression", "splits"] = Field(
        description=(
            "splits: accuracy of nodes, with intervals over class splits instead of training seeds"
        )
    )
    columns: tuple[ColumnGroup, ...] = Field(
        min_length=1, description="`experiment: NAME` is short for one group without title"
    )
    title: Line
    caption: Line = ""
    inner_steps: tuple[int, ...] = Field(
        (), description="columns of a regression table; empty: all that are evaluated"
    )
    rows: tuple[Row, ...] = Field(min_length=1)
    paper: str = Field("", description="key of the published table that the cells are set beside")

    @model_validator(mode="before")
    @classmethod
    def _one_experiment(cls, content: Any) -> Any:
        if isinstance(content, dict) and "experiment" in content and "columns" not in content:
            content = dict(content)
            content["columns"] = [{"experiment": content.pop("experiment")}]
        return content

    @property
    def experiments(self) -> tuple[str, ...]:
        """Names of the experiments whose runs it shows."""
        every = [name for group in self.columns for name in (group.experiment, group.fixed) if name]
        return tuple(dict.fromkeys(every))

    def places(self) -> list[tuple[Row, ColumnGroup, str]]:
        """Each row with each group of columns and an experiment that it shows there."""
        return [
            (row, g, name)
            for row in self.rows
            for g in self.columns
            for name in (g.experiment, g.fixed)
            if name
        ]


class Study(Model):
    """A whole configuration file."""

    study: Key
    title: Line = ""
    summary: Line = ""
    seeds: Seeds = (0, 1, 2, 3, 4)
    precision: Precision = "float32"
    protocol: str = Field("matched", description="preset of the experiments that name none")
    experiments: dict[Key, Experiment] = Field(min_length=1)
    tables: dict[Key, TableConfig] = {}
    figures: dict[Key, Figure] = {}
    published: str = Field(
        "", description="file of published numbers that tables with a `paper` key are set beside"
    )
    results: Folder = Field("results", description="folder for everything that is made")
    data_dir: Folder = Field("data", description="folder for data sets")
    sources: dict[str, dict[str, LocalCopy]] = Field(
        {},
        description=(
            "own copies of published files: data set -> file name -> path or url, and SHA-256"
        ),
    )
    acknowledged: tuple[str, ...] = Field(
        (), description="data sets whose terms of use you have read and accept"
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$",
        description="auto: a CUDA device if there is one and the network gains by it, else cpu",
    )
    gpu: Literal["optional", "expected"] = Field(
        "optional",
        description=(
            "expected: without a GPU the study takes weeks, so it stops unless allow_cpu is set"
        ),
    )
    allow_cpu: bool = Field(False, description="run on the CPU although a GPU is expected")
    runs_per_gpu: int = Field(1, ge=1, description="trainings that share one GPU")
    memory_fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of a GPU's memory that one training may take; none: 1 / runs_per_gpu",
    )
    tasks_at_once: int | None = Field(
        None,
        ge=1,
        description=(
            "tasks that one program holds; fewer need less memory. None: the network's number"
        ),
    )
    engine: Literal["auto", "fast", "plain", "compiled", "captured"] = Field(
        "auto",
        description=(
            "the path of computing, equal but for rounding: auto, captured (CUDA graphs) on a GPU,"
            " compiled where that is repaid, else fast; plain, the equations as they stand"
        ),
    )
    allocator: Literal["keep", "system"] = Field(
        "keep",
        description="of jobs: keep the memory that they have had (faster), or as the system does",
    )
    seeds_at_once: int | None = Field(
        None,
        ge=1,
        description=(
            "seeds of a small network that one program trains. None: all that a job has; 1: one"
            " by one"
        ),
    )


_JOINED = ("experiments", "tables", "figures")


def included(content: Any, where: str) -> Any:
    """A configuration with the experiments, tables and figures of the files that it lists under
    ``include``.

    Paths are from the working folder. Everything else (study, seeds, sources) is the including
    file's own. A UserError names a file that is not there, and a name that two files give.
    """
    if not isinstance(content, dict) or "include" not in content:
        return content
    whole = {key: value for key, value in content.items() if key != "include"}
    listed = content["include"]
    for path in (
        [listed] if isinstance(listed, str) else listed if isinstance(listed, list) else [None]
    ):
        if not isinstance(path, str):
            raise UserError(
                f"{where}: include lists configuration files, such as [configs/tables/table1.yaml]."
            )
        part = _yaml(Path(expanded(path, f"{where}: include")))
        for key in _JOINED:
            mine, more = (
                side.get(key) or {} if isinstance(side, dict) else {} for side in (whole, part)
            )
            if not isinstance(mine, dict) or not isinstance(more, dict):
                raise UserError(f"{where}, include {path}: {key} must be a mapping of names.")
            if twice := sorted(set(mine) & set(more)):
                raise UserError(
                    f"{where}, include {path}: {key} has {twice[0]!r} already; rename one of the"
                    " two."
                )
            if mine or more:
                whole[key] = {**mine, **more}
    return whole


def parse(content: Any, where: str) -> Study:
    """Check a configuration and expand its paths; a UserError names the file and every offending
    key.
    """
    return _expanded(checked(content, where), where)


def _expanded(study: Study, where: str) -> Study:
    """The study with every path as :mod:`cml_bench.system.paths` says."""

    def there(path: str, key: str) -> str:
        return expanded(path, f"{where}: {key}")

    sources = {
        data: {
            name: (
                copy.model_copy(update={"path": there(copy.path, f"sources.{data}.{name}.path")})
                if copy.path
                else copy
            )
            for name, copy in files.items()
        }
        for data, files in study.sources.items()
    }
    folders = {key: there(getattr(study, key), key) for key in ("results", "data_dir", "published")}
    for key, path in folders.items():
        check_path(path, f"{where}: {key}")
    return study.model_copy(update={**folders, "sources": sources})


def checked(content: Any, where: str) -> Study:
    """:func:`parse` for what a plan holds, whose paths are expanded already."""
    if not isinstance(content, dict):
        raise UserError(
            f"{where}: a configuration is a mapping of keys to values, not"
            f" {type(content).__name__}."
        )
    study = Study.read(content, where, places.instead_of())
    _check_references(study, where)
    named = {
        k: e if e.protocol else e.model_copy(update={"protocol": study.protocol})
        for k, e in study.experiments.items()
    }
    return study.model_copy(update={"experiments": named})


def read(path: Path | str) -> Study:
    """Read and check a YAML file."""
    return parse(merged([path]), str(path))


def merged(paths: Sequence[Path | str]) -> Any:
    """Several files as Snakemake joins them (what a later one says of a key counts), with what they
    include.
    """
    whole = _yaml(Path(paths[0]))
    for path in paths[1:]:
        whole = _joined(whole, _yaml(Path(path)))
    return included(whole, ", ".join(map(str, paths)))


def _joined(a: Any, b: Any) -> Any:
    if not isinstance(a, dict) or not isinstance(b, dict):
        return b
    return {**a, **{key: _joined(a[key], value) if key in a else value for key, value in b.items()}}


def _yaml(path: Path) -> Any:
    return strict_yaml.read(path, missing=f"there is no configuration file {path}.")


def serialised(content: dict[str, Any], where: str) -> str:
    """A configuration as canonical JSON; a UserError for what YAML knows and JSON does not."""
    try:
        return json.dumps(content, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        culprit = _not_json(content)
        raise UserError(
            f"{where}: {culprit} is no number, word, list or mapping: dates need quotes, and .nan,"
            " .inf and other keys than words mean nothing here."
        ) from None


def _not_json(value: Any, place: str = "") -> str:
    """The first part of a configuration that JSON cannot hold, as ``experiments.s.steps (nan)``;
    empty: none.
    """
    if isinstance(value, dict):
        odd = next((key for key in value if not isinstance(key, str)), None)
        inside = [(f"{place}.{key}".removeprefix("."), item) for key, item in value.items()]
        return f"the key {odd!r} in {place or 'the whole'}" if odd is not None else _first(inside)
    if isinstance(value, list | tuple):
        return _first([(f"{place}.{number}", item) for number, item in enumerate(value)])
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return f"{place} ({str(value)[:20] if isinstance(value, float) else type(value).__name__})"
    return ""


def _first(parts: list[tuple[str, Any]]) -> str:
    return next((found for place, value in parts if (found := _not_json(value, place))), "")


def _shown(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds[:5])) + ", …" * (len(seeds) > 5) if seeds else "none"


def _check_seeds(seeds: tuple[int, ...], where: str) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(
            f"{where}: seeds must be distinct numbers from 0 on, at least one; got {_shown(seeds)}."
        )


def _check_references(study: Study, where: str) -> None:
    if study.study in FOLDERS:
        raise UserError(
            f"{where}: a study cannot be called {study.study!r}, the folder is taken. Choose"
            " another name."
        )
    _check_seeds(study.seeds, where)
    for name, experiment in study.experiments.items():
        for key, item in [
            (name, experiment),
            *((f"{name}, {key}", m) for key, m in experiment.methods.items()),
        ]:
            if item.seeds is not None:
                _check_seeds(item.seeds, f"{where}, experiment {key}")
            _check_splits(item, experiment, study, f"{where}, experiment {key}")
    for key in [*study.tables, *study.figures]:
        if key in TARGETS or (key in study.tables and key in study.figures):
            raise UserError(
                f"{where}: a table or figure cannot be called {key!r}, the name is taken. Choose"
                " another."
            )
    for key, item in [*study.tables.items(), *study.figures.items()]:
        for name in item.experiments:
            if name not in study.experiments:
                known = ", ".join(study.experiments)
                raise UserError(
                    f"{where}: {key} names the experiment {name!r}; there are: {known}."
                )
            _check_runs(item, name, study.experiments[name], f"{where}: {key}")
        if isinstance(item, TableConfig):
            _check_columns(item, study, f"{where}: {key}")


def _check_splits(
    item: "Experiment | MethodEntry", experiment: Experiment, study: Study, place: str
) -> None:
    """Where class splits are the unit of replication there is one seed, and each split counts
    once.
    """
    if not experiment.splits:
        if item.splits:
            raise UserError(
                f"{place}: splits are some of the experiment's, which names none: add `splits`"
                " there."
            )
        return
    if len(set(item.splits)) < len(item.splits) or not set(item.splits) <= set(experiment.splits):
        raise UserError(f"{place}: splits must be distinct ones of {', '.join(experiment.splits)}.")
    if len(item.seeds or experiment.seeds or study.seeds) > 1:
        raise UserError(f"{place}: with several splits there is one seed; set seeds: [0].")


def _check_runs(
    item: TableConfig | FigureConfig, name: str, experiment: Experiment, place: str
) -> None:
    for row in item.rows if isinstance(item, TableConfig) else item.runs:
        for run in (row.run, row.against):
            if run is not None and run not in experiment.methods:
                raise UserError(
                    f"{place}, row {row.label!r} names the run {run!r}; the experiment {name!r}"
                    f" has: {', '.join(experiment.methods)}."
                )


def _check_columns(table: TableConfig, study: Study, place: str) -> None:
    shown = [row.label for row in table.rows if row.shown]
    if alike := next((label for label in shown if shown.count(label) > 1), None):
        raise UserError(f"{place} has two rows called {alike!r}: give each a label of its own.")
    titles = [group.title for group in table.columns]
    if len(set(titles)) < len(titles):
        raise UserError(f"{place} has several groups of columns: give each a title of its own.")
    if table.kind == "regression" and len(titles) > 1:
        raise UserError(
            f"{place} is of kind regression, which has columns of one experiment; make a table for"
            " each."
        )
    for group in table.columns:
        many, one = (
            bool(name and study.experiments[name].splits)
            for name in (group.experiment, group.fixed)
        )
        if table.kind == "splits" and (one or not many):
            raise UserError(
                f"{place} is of kind splits: give {group.experiment!r} `splits`, and its `fixed`"
                " none."
            )
        if table.kind != "splits" and (many or group.fixed):
            raise UserError(f"{place} shows class splits: its kind must be `splits`.")
        shots = study.experiments[group.experiment].shots
        if strange := sorted(set(group.shots) - set(shots)):
            known = ", ".join(map(str, shots))
            raise UserError(
                f"{place} shows {strange[0]} shots, and the experiment {group.experiment!r} has:"
                f" {known}."
            )
