"""The keys of ``record.json`` that readers rely on, as types."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from cml_bench.spec import Evaluation, RunSpec


class Part(BaseModel):
    """Base of the parts of a record. Further keys are ignored."""

    model_config = ConfigDict(strict=True)


class Versions(Part):
    cml_bench: str
    python: str
    torch: str
    numpy: str


class Machine(Part):
    processor: str
    cores: int | None


class Engine(Part):
    device: str
    threads: int
    path: str


class Parameters(Part):
    train: int
    test: int
    co_at_test: int


class Seconds(Part):
    __pydantic_extra__: dict[str, float]
    model_config = ConfigDict(extra="allow")
    train: float


class Memory(Part):
    peak: int
    of: Literal["device", "process"]


class Curves(Part):
    step: list[int] = []
    validation: dict[str, list[float | None]] = {}


class Content(Part):
    """The keys that tables, page, gate and status rely on; a record without them is refused."""

    id: str
    spec: RunSpec
    status: Literal["finished", "diverged", "collapsed"]
    kind: Literal["classification", "regression"]
    data_sha256: str
    evaluation: Evaluation
    answers_per_episode: int
    results: dict[str, float]
    created: str
    versions: Versions
    machine: Machine
    engine: Engine
    parameters: Parameters
    seconds: Seconds
    flops: dict[str, float] = {}
    memory: Memory | None = None
    curves: Curves = Curves()
