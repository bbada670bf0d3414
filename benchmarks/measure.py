"""Workers that take turns in random order, and the rows that their blocks give.

Imports no torch.
"""

import datetime
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads import IMPLEMENTATIONS, PROFILED, RATES, WAY, Workload
from cml_bench.errors import UserError
from cml_bench.system import allocator

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv-peers"
INSTALLED = PEERS / "installed.json"
_FIRST_GUESS = 3 * 2**30  # bytes that a worker may take while its peak is not known


def commit() -> str:
    """The commit of the measured sources; a + behind it means that some are not committed."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
        ).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")


def made() -> dict[str, str]:
    """The day and the commit, for a results file."""
    return {"date": datetime.date.today().isoformat(), "commit": commit()}


Blocks = dict[str, np.ndarray]  # of one implementation: (blocks,) by what was measured


class Missing(Exception):
    """An implementation is not available here; the message says why."""


class Worker:
    """A fresh process with one implementation. Its first block is a warm-up and not counted."""

    def __init__(self, implementation: str, workload: Workload):
        order = {
            "implementation": implementation,
            "problem": workload.problem,
            "work": workload.work,
        }
        order |= {"threads": workload.threads}
        self.name = implementation
        # No `with`: the file lives as long as the process.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        threads = str(workload.threads)
        self.process = subprocess.Popen(
            [interpreter(implementation), "-m", "benchmarks.worker", json.dumps(order)],
            env={
                **os.environ,
                **allocator.KEEP,
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=ROOT,
            encoding="utf-8",
        )
        first = self._answer()
        if "missing" in first:
            self.stop()
            raise Missing(first["missing"])
        self.block(workload.block_seconds)

    def block(self, seconds: float) -> dict[str, Any]:
        """Call it for so many seconds: see ``Served.block`` in worker.py."""
        return self._ask(str(seconds))

    def profile(self) -> dict[str, float]:
        """Shares of a call's time: see ``Served.profile`` in worker.py."""
        return self._ask("profile")

    def _ask(self, line: str) -> dict[str, Any]:
        with suppress(BrokenPipeError):  # the process has ended: then _answer says so
            # Not through a buffer, which closing would write again.
            os.write(self.process.stdin.fileno(), f"{line}\n".encode())
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            said = self.errors.read()[-2000:]
            self.stop()
            raise UserError(f"{self.name} ended with code {self.process.returncode}:\n{said}")
        return json.loads(line)

    def stop(self) -> None:
        """End the process, if it has not ended. A second call changes nothing."""
        if not self.errors.closed:
            self.process.communicate("\n")
            self.errors.close()


def interpreter(implementation: str) -> str:
    """The Python that runs an implementation: this one, or that of the peers' environment.

    Raises :class:`Missing` if it is a peer's and the peer is not installed.
    """
    package = IMPLEMENTATIONS[implementation][2]
    if package is None:
        return sys.executable
    if not INSTALLED.exists():
        raise Missing(f"{PEERS.name} is not there: `make benchmark` builds it")
    installed = json.loads(INSTALLED.read_text(encoding="utf-8"))[package]
    if "missing" in installed:
        raise Missing(installed["missing"])
    return str(PEERS / "bin" / "python")


def _spare() -> int:
    """Bytes that may be taken, so that a quarter of the memory is left to others."""
    lines = dict(
        line.split(":", 1)
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    )
    available, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    return available - total // 4


class Turns:
    """The blocks of all implementations of a workload."""

    def __init__(self, workload: Workload, rng: random.Random):
        self.workload, self.rng = workload, rng
        self.names = [*workload.implementations, *([RATES] if workload.limit else [])]
        self.alive: dict[str, Worker] = {}
        self.peaks: dict[str, int] = {}
        self.missing: dict[str, str] = {}
        self.blocks: dict[str, list[dict[str, Any]]] = {name: [] for name in self.names}

    def round(self) -> None:
        """One block of each, in random order."""
        order = [name for name in self.names if name not in self.missing]
        self.rng.shuffle(order)
        for name in order:
            try:
                worker = self._worker(name)
            except Missing as error:
                self.missing[name] = str(error)
                continue
            block = worker.block(self.workload.block_seconds)
            self.peaks[name] = block["memory"]
            self.blocks[name].append(block)

    def _worker(self, name: str) -> Worker:
        """The living worker, or a new one. Idle workers are ended if memory would not suffice."""
        if name not in self.alive:
            others = list(self.alive)
            while others and _spare() < self.peaks.get(name, _FIRST_GUESS):
                self.alive.pop(others.pop()).stop()
            self.alive[name] = Worker(name, self.workload)
        return self.alive[name]

    def profiles(self) -> dict[str, dict[str, float]]:
        """Shares of a call's time by implementation. Only work on images is profiled."""
        if not self.workload.problem.get("size") or self.workload.work == "draw":
            return {}
        return {name: self._worker(name).profile() for name in PROFILED if name in self.names}

    def stop(self) -> None:
        """End all workers."""
        for worker in self.alive.values():
            worker.stop()
        self.alive.clear()


def measure(
    workloads: list[Workload], repeats: int, rng: random.Random, say: Callable[[str], None]
) -> Iterator[list[dict[str, Any]]]:
    """After each sitting of a workload, the rows of all workloads so far: see :func:`rows`.

    Every repeat goes through all workloads. So what slows the machine for some minutes meets one
    sitting of a workload, and not all of its blocks.
    """
    every, by_workload = [Turns(workload, rng) for workload in workloads], {}
    try:
        for repeat in range(1, repeats + 1):
            for turns in every:
                for _ in range(turns.workload.rounds):
                    turns.round()
                profiles = turns.profiles() if repeat == repeats else {}
                if len(every) > 1:
                    turns.stop()  # until the next repeat
                by_workload[turns.workload.name] = rows(turns.workload, turns.blocks, turns.missing)
                for row in by_workload[turns.workload.name]:
                    if row["implementation"] in profiles:
                        row["shares"] = profiles[row["implementation"]]
                    shown = (
                        row.get("missing")
                        or f"{row['seconds']:.4g} s (processor {row['processor']:.4g})"
                    )
                    say(
                        f"{row['workload']} ({repeat} of {repeats}): {row['implementation']}:"
                        f" {shown}"
                    )
                yield [row for of_one in by_workload.values() for row in of_one]
    finally:
        for turns in every:
            turns.stop()


def _quartiles(values: np.ndarray) -> tuple[float, list[float]]:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return _short(middle), [_short(low), _short(high)]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def rows(
    workload: Workload, blocks: dict[str, list[dict[str, Any]]], missing: dict[str, str]
) -> list[dict[str, Any]]:
    """A row for each implementation: medians over blocks, with quartiles, of one unit of work.

    ``times_faster``: the processor time of learn2learn's way over that of this one. It is the
    median over rounds, since the two blocks of a round met the same other load.
    ``limit_multiple``: the processor time over the FLOP limit, at the best rate of all rounds.
    ``limit_multiple_in_round``: the median over rounds, each at the best rate of its own.
    """
    common = {"workload": workload.name, "unit": workload.unit, "threads": workload.threads}
    arrays = {
        name: {key: np.array([block[key] for block in each]) for key in each[0]}
        for name, each in blocks.items()
        if each
    }
    return [
        *([common | _limit(arrays[RATES])] if RATES in arrays else []),
        *(common | _row(workload, name, arrays) for name in arrays if name != RATES),
        *(
            {**common, "implementation": name, "seconds": None, "missing": why}
            for name, why in missing.items()
        ),
    ]


def _limit(rates: Blocks) -> dict[str, Any]:
    """The FLOP limit: the FLOPs of a unit at the best rate of all rounds."""
    best, flops = rates["best_rate"].max(), int(rates["flops"][0])
    return {
        "implementation": RATES,
        "seconds": _short(flops / best),
        "processor": _short(flops / best),
        "flops": flops,
        "best_rate": _short(best),
        "rate": _short(np.median(rates["rate"])),
    }


def _row(workload: Workload, name: str, arrays: dict[str, Blocks]) -> dict[str, Any]:
    """What the blocks of one implementation say, and how it compares with the others."""
    own = arrays[name]
    seeds = workload.problem.get("seeds", 1) if name == "engine, many seeds" else 1
    units = workload.units * seeds
    row: dict[str, Any] = {"implementation": name, "blocks": len(own["seconds"])}
    for key in ("seconds", "processor"):
        row[key], row[f"{key}_quartiles"] = _quartiles(own[key] / units)
    row["memory"] = int(np.median(own["memory"]))
    row["per_second"] = _short(1 / row["processor"])
    if WAY in arrays and name != WAY:
        ratio = arrays[WAY]["processor"] / workload.units / (own["processor"] / units)
        row["times_faster"], row["times_faster_quartiles"] = _quartiles(ratio)
    if "official way" in arrays:
        row["memory_share"] = _short(row["memory"] / np.median(arrays["official way"]["memory"]))
    if RATES in arrays:
        rates = arrays[RATES]["best_rate"]
        flops = int(arrays[RATES]["flops"][0])
        row["limit_multiple"] = _short(row["processor"] / (flops / rates.max()))
        in_round = own["processor"] / units * rates / flops
        row["limit_multiple_in_round"] = _short(np.median(in_round))
    return row
