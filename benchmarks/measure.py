"""Workers, turn by turn in random order, and what their blocks say. Imports no torch."""

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
_FIRST_GUESS = 3 * 2**30  # bytes that a worker may take whose peak is not known yet


def commit() -> str:
    """Of the sources that are measured; a + behind it: and what is not committed."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
        ).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")


def made() -> dict[str, str]:
    """When, and from which sources, for a results file."""
    return {"date": datetime.date.today().isoformat(), "commit": commit()}


Blocks = dict[str, np.ndarray]  # of one implementation: (blocks,) by what was measured


class Missing(Exception):
    """An implementation that cannot be had here, and why."""


class Worker:
    """A fresh process with one implementation; its first block is the warm-up."""

    def __init__(self, implementation: str, workload: Workload):
        order = {
            "implementation": implementation,
            "problem": workload.problem,
            "work": workload.work,
        }
        order |= {"threads": workload.threads}
        self.name, self.errors = implementation, tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
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
        """What a block of calls took: see ``Served.block`` in worker.py."""
        return self._ask(str(seconds))

    def profile(self) -> dict[str, float]:
        """Where the time of a call goes: see ``Served.profile`` in worker.py."""
        return self._ask("profile")

    def _ask(self, line: str) -> dict[str, Any]:
        with suppress(BrokenPipeError):  # it has ended: its answer says so
            os.write(
                self.process.stdin.fileno(), f"{line}\n".encode()
            )  # no buffer that closing would write again
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
        """End it, if it has not ended; a second time changes nothing."""
        if not self.errors.closed:
            self.process.communicate("\n")
            self.errors.close()


def interpreter(implementation: str) -> str:
    """The Python that runs it; :class:`Missing` where that would be the peers' and they, or it, are
    not installed.
    """
    package = IMPLEMENTATIONS[implementation][2]
    if package is None:
        return sys.executable
    if not INSTALLED.exists():
        raise Missing(f"{PEERS.name} is not there: `make benchmark` builds it")
    found = json.loads(INSTALLED.read_text(encoding="utf-8"))[package]
    if "missing" in found:
        raise Missing(found["missing"])
    return str(PEERS / "bin" / "python")


def _spare() -> int:
    """Bytes that may be taken with a quarter of the memory left to others."""
    lines = dict(
        line.split(":", 1)
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    )
    available, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    return available - total // 4


class Turns:
    """All implementations of a workload, block by block."""

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
        """The living one, or a new one; idle ones give way where memory would not suffice."""
        if name not in self.alive:
            others = list(self.alive)
            while others and _spare() < self.peaks.get(name, _FIRST_GUESS):
                self.alive.pop(others.pop()).stop()
            self.alive[name] = Worker(name, self.workload)
        return self.alive[name]

    def profiles(self) -> dict[str, dict[str, float]]:
        """By implementation, of work on images."""
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
    """After each sitting of a workload the rows of all so far: one for each implementation, see
    :func:`rows`.

    Every repeat goes through all workloads, so that what slows a machine for some minutes meets one
    sitting of each, and no workload with all of its blocks.
    """
    every, found = [Turns(workload, rng) for workload in workloads], {}
    try:
        for repeat in range(1, repeats + 1):
            for turns in every:
                for _ in range(turns.workload.rounds):
                    turns.round()
                profiles = turns.profiles() if repeat == repeats else {}
                if len(every) > 1:
                    turns.stop()  # until the next repeat
                found[turns.workload.name] = rows(turns.workload, turns.blocks, turns.missing)
                for row in found[turns.workload.name]:
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
                yield [row for of_one in found.values() for row in of_one]
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
    """Medians over blocks and their quartiles, of one unit of the workload.

    ``times_faster`` is the median over rounds of learn2learn's way's processor time over this
    one's: the two blocks of a round met the same other load. ``limit_multiple``: processor time
    over the FLOP limit, at the best rate of all rounds; ``limit_multiple_in_round``: at the best
    rate of its own round, the median over rounds.
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
