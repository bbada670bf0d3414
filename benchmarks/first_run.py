"""What a newcomer waits for: ``make setup``, ``make demo`` and ``make test`` in a fresh clone.

Imports no torch.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT
from cml_bench.errors import UserError

TARGETS = ("setup", "demo", "test")
_OWN = (
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "VENV",
    "TORCH_INDEX",
    "CML_BENCH_TEST_DATA",
    "MAKEFLAGS",
    "MAKELEVEL",
)


def measure(
    folder: Path, index: str, say: Callable[[str], None], source: Path = ROOT
) -> list[dict[str, Any]]:
    """A row for each target in this order: its minutes, the bytes on the disk of ``.venv`` after
    it, and those that it left in the rest of the clone.

    ``folder`` is empty. What is cloned is the last commit of ``source``. ``index`` is where torch
    comes from, empty for pip's own index. pip may take packages from its cache, so the time of the
    set-up is without their download.
    """
    clone, rows = folder / "clone", []
    subprocess.run(["git", "clone", "--quiet", source, clone], check=True)
    before = _rest(clone)
    for target in TARGETS:
        start, log = time.monotonic(), folder / f"{target}.log"
        with log.open("wb") as out:
            code = subprocess.run(
                ["make", target, *([f"TORCH_INDEX={index}"] if index else [])],
                cwd=clone,
                env={key: value for key, value in os.environ.items() if key not in _OWN},
                stdout=out,
                stderr=subprocess.STDOUT,
            ).returncode
        if code:
            end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise UserError(f"`make {target}` failed in a fresh clone:\n{end}")
        minutes = round((time.monotonic() - start) / 60, 2)
        after = _rest(clone)
        sizes = {"venv_bytes": _size([clone / ".venv"]), "left_bytes": after - before}
        rows.append({"target": target, "minutes": minutes, **sizes})
        before = after
        say(f"make {target}: {minutes:.1f} min")
    return rows


def _rest(clone: Path) -> int:
    return _size(path for path in clone.iterdir() if path.name not in (".venv", ".git"))


def _size(paths: Iterable[Path]) -> int:
    """The bytes that files take on the disk, where blocks have 512 bytes. A file that has several
    names counts once for each.
    """
    every = (file for path in paths for file in (path, *path.rglob("*")))
    return sum(512 * file.lstat().st_blocks for file in every)
