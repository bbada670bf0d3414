"""What a newcomer waits for: ``make setup``, ``make demo`` and ``make test`` in a fresh clone."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT
from cml_bench.errors import UserError

TARGETS = ("setup", "demo", "test")
_OWN = ("PYTHONPATH", "VIRTUAL_ENV", "CML_BENCH_TEST_DATA")


def measure(folder: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each target in this order: its minutes, and the bytes that the clone then has.

    ``folder`` is empty. pip may take packages from its cache, so the time of the set-up is without
    their download.
    """
    clone, rows = folder / "clone", []
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    for target in TARGETS:
        start, log = time.monotonic(), folder / f"{target}.log"
        with log.open("wb") as out:
            code = subprocess.run(
                ["make", target], cwd=clone, env=_env(), stdout=out, stderr=subprocess.STDOUT
            ).returncode
        if code:
            end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise UserError(f"`make {target}` failed in a fresh clone:\n{end}")
        minutes = (time.monotonic() - start) / 60
        rows.append({"target": target, "minutes": round(minutes, 2), "bytes": _size(clone)})
        say(f"make {target}: {minutes:.1f} min")
    return rows


def _env() -> dict[str, str]:
    """This environment without what takes another package or Python, or gives more tests."""
    return {k: v for k, v in os.environ.items() if k not in _OWN}


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
