"""Which device a run uses, and the place that it claims there."""

import contextlib
import platform
import resource
import sys
from collections.abc import Iterator
from typing import Any

import torch

from cml_bench import registry
from cml_bench.data import given
from cml_bench.engine.build import Settings
from cml_bench.errors import UserError
from cml_bench.spec import RunSpec
from cml_bench.system import hardware


def resolve_device(name: str) -> str:
    """The name, checked. A UserError for a device that is unknown or not there."""
    if name == "auto":
        return name
    given.device(name)
    return name


@contextlib.contextmanager
def placed(settings: Settings, spec: RunSpec) -> Iterator[str]:
    """The device of a run while the block lasts: ``cpu``, or ``cuda:N`` with a place claimed there.

    ``auto`` is a GPU if there is one and the network
    gains by it. ``cuda:N`` and ``cpu`` are taken as they are. On a GPU a run gets its share of the
    memory and no more, so that it cannot make the others fail. If the study expects a GPU, the
    network gains by one and torch has none, this is a UserError: on a CPU the run would take weeks.
    """
    name, per_device = settings.device, settings.runs_per_gpu
    if name == "auto":
        small = spec.network is None or registry.networks.get(spec.network.name).small
        name = "cpu" if small or not torch.cuda.is_available() else "cuda"
        if settings.gpu_expected and not small and name == "cpu":
            raise UserError(
                f"the study expects a GPU, and torch {torch.__version__} sees none on"
                f" {platform.node()}: ask for one, install torch with CUDA, or set `allow_cpu`."
            )
    if not name.startswith("cuda"):
        yield name
        return
    share = settings.memory_fraction or 1 / per_device
    if name != "cuda":
        torch.cuda.set_per_process_memory_fraction(share, torch.device(name))
        yield name
        return
    with hardware.claim(
        list(range(torch.cuda.device_count())), per_device, say=settings.report
    ) as number:
        torch.cuda.set_per_process_memory_fraction(share, number)
        yield f"cuda:{number}"


def forget_peak_memory(device: str) -> None:
    """Count a device's memory anew for a new run. The peak of a process cannot be reset."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> dict[str, Any]:
    """The most memory used so far, in bytes: by tensors on a CUDA device, else by the process.

    ``of`` says which of the two. The memory of a process includes Python, torch and the earlier
    runs of its job.
    """
    if device.startswith("cuda"):
        return {"peak": torch.cuda.max_memory_allocated(device), "of": "device"}
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, else kilobytes
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of": "process"}
