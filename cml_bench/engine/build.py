"""What a run is made of, built from its spec: data set, method with its network, engine path."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cml_bench import registry
from cml_bench.data import prepared
from cml_bench.data.base import DataSet
from cml_bench.engine import compiled
from cml_bench.engine.captured import CapturedStep
from cml_bench.engine.step import MetaStep
from cml_bench.errors import UserError
from cml_bench.methods.base import Method
from cml_bench.networks.base import Network
from cml_bench.records import Record
from cml_bench.spec import RunSpec

# The class that makes an outer step, by engine path.
STEPS: dict[str, type[MetaStep]] = {
    "plain": MetaStep,
    "fast": MetaStep,
    "compiled": compiled.CompiledStep,
    "captured": CapturedStep,
}
_TEST_FACTOR = 4  # on a GPU a test program holds this many times the tasks of a training program


@dataclass(frozen=True)
class Settings:
    """How to run: device, threads, folders, pace. Nothing here changes a run's id."""

    results: Path = Path("results")
    data_dir: Path = Path("data")
    device: str = "cpu"  # auto and cuda become cpu or cuda:N in engine/device.py
    runs_per_gpu: int = 1
    memory_fraction: float | None = None  # of a GPU; None: 1 / runs_per_gpu
    tasks_at_once: int | None = None  # None: the network's number
    gpu_expected: bool = False  # a CPU is an error where the network gains by a GPU
    threads: int = 1
    path: str = "auto"
    checkpoint_seconds: float = 60.0
    diagnostics: bool = True
    # Trainings in one program (engine/seeds.py); None: as many as a job has.
    seeds_at_once: int | None = None
    wait: bool = False  # for another process that makes the same run; else that is an error
    report: Callable[[str], None] = print


def choose_path(asked: str, spec: RunSpec, network: type[Network], device: torch.device) -> str:
    """The engine path of a run: ``plain``, ``fast``, ``compiled`` or ``captured``.

    ``auto`` is captured on a GPU, compiled where that is possible and saves time, and else fast.
    The choice depends on the network, the number of steps and the machine, not on the method, so a
    baseline and its +CML version take the same path.
    """
    assert spec.network is not None  # a method without a network is not trained
    able = {"compiled": network.compiles and network.small, "captured": network.compiles}
    if not able.get(asked, True):
        raise UserError(f"{spec.network.name} cannot be {asked}: use --engine auto or fast.")
    if asked == "captured" and device.type != "cuda":
        raise UserError(
            f"--engine captured is for CUDA devices, not for {device}: use --engine auto or fast."
        )
    if asked != "auto":
        return asked
    if device.type == "cuda" and network.compiles:
        return "captured"
    gains = able["compiled"] and spec.precision != "bf16"
    worth = gains and spec.steps >= compiled.WORTHWHILE and device.type == "cpu"
    return "compiled" if worth and compiled.available() else "fast"


def tasks_at_once(settings: Settings, method: Method, device: torch.device) -> int:
    """How many tasks one training program holds."""
    return settings.tasks_at_once or method.network.tasks_at_once(device)


def tested_at_once(settings: Settings, method: Method, device: torch.device) -> int:
    """How many tasks one test program holds. A GPU has room for more, and needs more to be busy."""
    factor = _TEST_FACTOR if device.type == "cuda" and not settings.tasks_at_once else 1
    return factor * tasks_at_once(settings, method, device)


def build_data(spec: RunSpec) -> DataSet:
    """The data set of a spec, not opened. A UserError if the run was made for other data."""
    cls = registry.datasets.get(spec.data.name)
    data = cls(cls.Options.read(spec.data.options, f"data set {spec.data.name}"))
    if data.data_id != spec.data_id:
        raise UserError(f"this run was made for the data {spec.data_id}; here is {data.data_id}.")
    return data


def build_method(spec: RunSpec, data: DataSet, path: str = "fast") -> Method:
    """The method of a spec with its network, bound to ``data``.

    A UserError if the run was made with another version of the method.
    """
    cls = registry.method(spec.method)
    if cls.version != spec.version:
        raise UserError(
            f"this run was made with version {spec.version} of {spec.method}; here is"
            f" {cls.version}."
        )
    network = None
    if spec.network is not None:
        net = registry.networks.get(spec.network.name)
        options = net.Options.read(spec.network.options, f"network {spec.network.name}")
        network = net(options, data.input_shape, data.outputs(spec.way), path)
        network.bind(data)
    own = cls.Options.read(spec.options, f"method {spec.method}")
    method = cls(own, network, data.kind)  # type: ignore[arg-type]  # None: it does not learn
    method.seed, method.total_steps = spec.seed, spec.steps
    return method


def check_data(folder: Path, spec: RunSpec, trained: str, prepared_now: str | None) -> None:
    """A UserError if the SHA-256 of the data a run was trained on is not that of the data here.

    A run's id does not contain the copy of the data, so two runs of one id may differ in it.
    """
    if prepared_now not in (None, trained):
        raise UserError(
            f"{folder} was trained on other data: {spec.data_id} of SHA-256 {trained[:12]}…, and"
            f" what is prepared now has {prepared_now[:12]}…. Move the folder away to train it"
            " anew, or name another folder under `results` (or `data_dir`) in the configuration."
        )


def check_data_of(record: Record, data_dir: Path) -> None:
    """:func:`check_data` of a finished run. Where no data is prepared, nothing is compared."""
    now = prepared.index(data_dir, record.spec.data_id).get("sha256")
    check_data(record.folder, record.spec, record.data_sha256, now)
