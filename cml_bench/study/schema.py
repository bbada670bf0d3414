"""The keys of a configuration file, and the values that each may have. Imports no torch."""

from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticKnownError

from cml_bench.data.prepared import Folder, LocalCopy
from cml_bench.registry import PATHS, tables
from cml_bench.spec import MOST_STEPS, NAME, Evaluation, Model, Precision
from cml_bench.study.figure_config import Figure, Positive, Row, Seed
from cml_bench.texts import Line


def _counted(value: Any) -> Any:
    """``seeds: 5`` means 0..4."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value > MAX_SEEDS:
        raise ValueError(f"there can be at most {MAX_SEEDS:,} seeds")
    return tuple(range(value))


def _counted_above(value: Any) -> Any:
    """``seeds: 3`` of a sweep means 1000..1002: a study that counts its seeds has none of them."""
    numbers = _counted(value)
    if numbers is value or not numbers:
        return numbers
    return tuple(MAX_SEEDS + number for number in numbers)


def one_or_several(value: Any) -> Any:
    """``plugins: mine`` means [mine]."""
    return [value] if isinstance(value, str) else value


def _table_kind(name: str) -> str:
    """A name of a kind of table, else pydantic's error of a choice."""
    if name not in tables.names():
        *most, last = map(repr, tables.names())
        expected = f"{', '.join(most)} or {last}"
        raise PydanticKnownError("literal_error", {"expected": expected})
    return name


# Of studies, experiments, tables and figures: keys name files and targets.
Key = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
MethodKey = Annotated[str, Field(pattern=NAME)]
MAX_SEEDS = 1000
Steps = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_counted), Field(max_length=MAX_SEEDS)]


class MethodEntry(Model):
    """One row's training: its options, and what differs from the experiment."""

    method: str = Field("", description="empty: the entry's own key")
    like: str = Field(
        "",
        description=(
            "key of the entry whose options and steps it starts from; empty: x for x+cml, and for"
            " another entry of a method x+cml the one of x that tables set it against"
        ),
    )
    options: dict[str, Any] = {}
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
    tested: bool = Field(True, description="no: trained and validated, and never tested")


Word = bool | int | float | str | None


class Range(Model):
    """Values of an option that a random sweep draws from, to three digits."""

    low: float
    high: float
    log: bool = Field(False, description="equal ratios are equally likely")

    @model_validator(mode="after")
    def _ascending(self) -> "Range":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("low must be below high, and above 0 with log")
        return self


def _values(value: Any) -> Any:
    """A list of numbers and words, or a range. One error for both, in the words of neither type."""
    if isinstance(value, Range):
        return value
    if isinstance(value, dict):
        return Range.model_validate(value)
    plain = isinstance(value, list | tuple) and all(
        one is None
        or isinstance(one, bool | int | str)
        or (isinstance(one, float) and isfinite(one))
        for one in value
    )
    if not plain:
        raise ValueError(
            "needs a list of numbers and words, such as [0.1, 0.5], or a range, such as {low: 0.01,"
            " high: 1}; an option that is itself a list cannot be swept"
        )
    return tuple(value)


Values = Annotated[tuple[Word, ...] | Range, BeforeValidator(_values)]


class Sweep(Model):
    """Settings of an experiment's methods, of which one is selected by validation: see
    study/selection.py.
    """

    methods: dict[MethodKey, dict[str, Values]] = Field(
        min_length=1,
        description=(
            "method's key -> option -> values; the options of the method as inner_lr or cml.gamma,"
            " of the network as network.filters, of the protocol as protocol.outer_lr; values are"
            " numbers and words"
        ),
    )
    draw: Literal["grid"] | Positive = Field(
        "grid", description="grid: every combination; a number: so many random settings"
    )
    seed: Seed = Field(0, description="of random settings")
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_counted_above)] = Field(
        tuple(range(MAX_SEEDS, MAX_SEEDS + 3)),
        min_length=1,
        description="of the selection; a number: so many from 1000 on, which no counted report has",
    )


def _tested(evaluation: Evaluation) -> Evaluation:
    if not evaluation.tasks:
        raise PydanticKnownError("greater_than_equal", {"ge": 1})
    return evaluation


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
    evaluation: Annotated[Evaluation, AfterValidator(_tested)] = Evaluation()
    evaluation_query: Literal["shot"] | None = Field(
        None, description="shot: as many as support points"
    )
    methods: dict[MethodKey, MethodEntry] = Field(min_length=1)
    sweep: Sweep | None = Field(
        None, description="settings of its methods, of which validation selects one"
    )
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

    kind: Annotated[str, AfterValidator(_table_kind)] = Field(
        description="accuracy, cost, normalised, regression, or splits: see report/kinds"
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
    untrained: tuple[str, ...] = Field(
        (),
        description=(
            "methods whose untrained network is a row, too: 0 outer steps, adapted on the same test"
            " tasks; a block tells trained minus untrained"
        ),
    )
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
    plugins: Annotated[tuple[Folder, ...], BeforeValidator(one_or_several)] = Field(
        (),
        description=(
            "files and folders of your own methods, data sets and networks, from the working folder"
        ),
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

    def own_folders(self) -> list[str]:
        """The folders of images of the user's own that experiments name."""
        options = [experiment.data_options for experiment in self.experiments.values()]
        named = [own.get(key) for own in options for key in PATHS]
        return sorted({path for path in named if isinstance(path, str) and path})
