"""GPUs of this machine and who uses them, without torch, so that planning stays quick."""

import contextlib
import fcntl
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_POLL_SECONDS = 1.0
_NO_DEVICE = ("", "-1", "NoDevFiles")  # the last: what SLURM tells a job without a GPU


def gpus() -> list[int]:
    """Numbers of the CUDA devices as torch will count them.

    ``CML_BENCH_GPUS=N`` overrides the detection by ``nvidia-smi`` (for machines that hide it).
    """
    told = os.environ.get("CML_BENCH_GPUS")
    if told is not None:
        return list(range(int(told) if told.isdecimal() else 0))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return list(range(len([part for part in visible.split(",") if part.strip() not in _NO_DEVICE])))
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, encoding="utf-8")
    except (OSError, subprocess.TimeoutExpired):
        return []
    return list(range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines())))


def slot_folder() -> Path:
    """Where claims are kept: one place per user and machine, since GPUs are shared by all of a user's studies.

    Under SLURM one per job: its GPUs are its own, and CUDA numbers them from 0 in every job, so a place on "GPU 0"
    would make one job wait for another's GPU.
    """
    job = os.environ.get("SLURM_JOB_ID")
    return Path(tempfile.gettempdir()) / f"cml_bench-{os.getuid()}" / ("gpu-slots" + (f"-slurm{job}" if job else ""))


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


@contextlib.contextmanager
def claim(
    devices: list[int], per_device: int = 1, folder: Path | None = None, say: Callable[[str], None] = print
) -> Iterator[int]:
    """Hold one of ``per_device`` places on one of ``devices`` and yield its number; wait if all are taken.

    A place is a locked file, which the kernel frees when its holder dies. The emptiest device comes first.
    """
    folder = folder or slot_folder()
    folder.mkdir(parents=True, exist_ok=True)
    waited = False
    while True:
        for slot in range(per_device):
            for device in devices:
                with open(folder / f"gpu{device}-slot{slot}.lock", "a", encoding="utf-8") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except OSError:
                        continue
                    yield device
                    return
        if not waited:
            say(f"waiting for a GPU: all {per_device * len(devices)} places are taken (see {folder})")
        waited = True
        time.sleep(_POLL_SECONDS)
