"""What ``record.json`` holds, as types. A key that is not named here is kept as it is.

A record of an earlier version lacks the keys that were added since: these have a default here. What
is read is written again without them, so the file stays as it was.
"""

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from cml_bench.spec import Evaluation, RunSpec, canonical

Number = int | float  # a whole number stays whole, so that it is written again as it was


class Part(BaseModel):
    """Base of a record and its parts: frozen, and without conversions (``"3"`` is no number)."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


class Versions(Part):
    cml_bench: str
    python: str
    torch: str
    numpy: str
    safetensors: str = ""


class Machine(Part):
    system: str = ""
    processor: str
    cores: int | None
    allocator: str = Field("", description="see ``system.allocator.in_force``")

    @property
    def title(self) -> str:
        """``AMD EPYC, 2 cores``."""
        return f"{self.processor}, {self.cores} cores"


class Engine(Part):
    """What the last bits of results depend on, with ``Content.tasks_at_once``."""

    device: str
    threads: int
    path: str
    seeds: int = Field(1, description="seeds that one program trained together")


class Parameters(Part):
    """Numbers of parameters: of a test, of the co-learner (phi), of training, and of a test by the
    co-learner's head.
    """

    test: int
    co: int = 0
    train: int
    co_at_test: int


class Seconds(Part):
    """Where the time of a run went: ``train``, and by its name each other part."""

    __pydantic_extra__: dict[str, float]
    train: float

    def parts(self) -> dict[str, float]:
        """Name -> seconds, training first."""
        return dict(self)


class Flops(Part):
    """FLOPs of one task; nan where the record does not say."""

    adaptation: Number = math.nan
    inference: Number = math.nan
    training: Number = math.nan


class Memory(Part):
    """The most memory used, in bytes: by tensors on the device, or by the whole process."""

    peak: int
    of: Literal["device", "process"]


class Diagnostic(Part):
    """Gradients at one outer step, layer by layer. ``cosine``: between the two heads' gradients;
    None where there is one head.
    """

    step: int
    norm_meta: dict[str, float | None] = {}
    norm_co: dict[str, float | None] = {}
    cosine: dict[str, float | None] | None = None


class Scores(Part):
    """Losses and scores of each head: ``loss_meta``, ``score_meta``, ``loss_co``, ``score_co``.

    Each is a number for each entry of ``Curves.step``, None where it was not measured or is not
    finite. They are no declared fields, so that they are written in the order in which they were
    read: it is not the same in training and in validation.
    """

    __pydantic_extra__: dict[str, list[float | None]]

    def loss(self, head: str) -> list[float | None]:
        """Losses of ``meta`` or ``co``; empty where there are none."""
        return self.__pydantic_extra__.get(f"loss_{head}", [])

    def score(self, head: str) -> list[float | None]:
        """Accuracies in [0, 1], or squared errors, of ``meta`` or ``co``; empty where there are
        none.
        """
        return self.__pydantic_extra__.get(f"score_{head}", [])


class Curves(Part):
    """What was measured while a run trained, at the outer steps ``step``."""

    step: list[int] = []
    train: Scores = Scores()
    validation: Scores = Scores()
    diagnostics: list[Diagnostic] = []

    @property
    def trained(self) -> int | None:
        """Outer steps that were made; None where nothing is trained."""
        return self.step[-1] if self.step else None


class Source(Part):
    """The source code that made a run: see ``system/sources.py``."""

    commit: str = Field("", description="of the package's checkout; empty: nobody can tell")
    clean: bool | None = Field(None, description="whether the package was as committed")
    files: dict[str, str] = Field({}, description="see files_of of system/sources.py")
    begun: dict[str, str] | None = Field(
        None, description="the digests with which the training began, where it went on with others"
    )


class Content(Part):
    """The keys of ``record.json``, in the order in which they are written."""

    format: int = 1
    id: str
    spec: RunSpec
    kind: Literal["classification", "regression"]
    data_sha256: str
    data_differs: str = Field(
        "", description="how the data is not, or may not be, the published one; empty: it is"
    )
    data_unordered_sha256: str = Field(
        "", description="of images, in whatever order they stand; empty: not known"
    )
    created: str
    versions: Versions
    source: Source | None = Field(None, description="None in records of earlier versions")
    machine: Machine
    engine: Engine
    memory: Memory | None = None
    evaluation: Evaluation
    answers_per_episode: int
    results: dict[str, float] = Field(
        description="mean of each series of test results, by its key: see ``readings.py``"
    )
    status: Literal["finished", "diverged", "collapsed"]
    selected: dict[str, int] = Field({}, description="name of a stored model -> its outer step")
    parameters: Parameters
    seconds: Seconds
    tasks_at_once: int | None = None
    flops: Flops = Flops()
    curves: Curves = Curves()

    @field_serializer("spec")
    def _canonical(self, spec: RunSpec) -> dict[str, Any]:
        return canonical(spec)
