"""The GPUs of this machine and who uses them. Imports no torch, so that planning stays quick."""

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from cml_bench.errors import UserError
from cml_bench.system.locks import holder, sign, try_lock

_POLL_SECONDS = 1.0
_INSTEAD = "`TMPDIR` in the environment"
_NO_DEVICE = ("", "-1", "NoDevFiles")  # SLURM gives the last one to a job without a GPU


def gpus() -> list[int]:
    """The numbers of the CUDA devices, as torch will count them.

    ``nvidia-smi`` lists them. ``CML_BENCH_GPUS=N`` in the environment overrides it, for machines
    that hide that program.
    """
    told = os.environ.get("CML_BENCH_GPUS")
    if told is not None:
        return list(range(int(told) if told.isdecimal() else 0))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return list(
            range(len([part for part in visible.split(",") if part.strip() not in _NO_DEVICE]))
        )
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, encoding="utf-8"
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return list(range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines())))


def slot_folder() -> Path:
    """The folder of the claims: one per user and machine, since a user's studies share the GPUs.

    Under SLURM there is one per job. A job owns its GPUs, and CUDA numbers them from 0 in every
    job: with one folder for all, a job would wait for the "GPU 0" of another.
    """
    job = os.environ.get("SLURM_JOB_ID")
    # The machine's name is part of the path: machines may share a folder for temporary files.
    place = platform.node() + (f"-slurm{job}" if job else "")
    return Path(tempfile.gettempdir()) / f"cml_bench-{os.getuid()}" / f"gpu-slots-{place}"


def processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor()


@contextlib.contextmanager
def claim(
    devices: list[int],
    per_device: int = 1,
    folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[int]:
    """Hold one of ``per_device`` places on one of ``devices``, and yield the number of that device.

    While all places are taken it waits, and ``say`` gets one line about that. A place is a locked
    file in ``folder``: the kernel frees it when its holder dies. Every device gets its first run
    before any gets its second. A UserError if no file can be locked there.
    """
    folder = folder or slot_folder()
    waited = False
    while True:
        taken = []
        for slot in range(per_device):
            for device in devices:
                with _opened(folder / f"gpu{device}-slot{slot}.lock") as file:
                    if try_lock(file, _INSTEAD):
                        sign(file)
                        yield device
                        return
                    taken.append(holder(file)[0])
        if not waited:
            say(
                f"waiting for a GPU: all {len(taken)} places are taken, by {', '.join(taken)} (see"
                f" {folder})"
            )
        waited = True
        time.sleep(_POLL_SECONDS)


def _opened(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"no place on a GPU can be claimed: {path} cannot be written ({error.strerror}). Have"
            f" that mended, or name another folder by {_INSTEAD}."
        ) from None
