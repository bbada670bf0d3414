"""Meta-steps on a GPU: the engine's paths, the official way and learn2learn's in one process.

``python -m benchmarks.gpu`` writes ``benchmarks/results/gpu.json``: medians over blocks of calls,
with quartiles. The blocks are in random order. Seconds are those between two waits for the device.
``memory`` is the most that tensors took, from the making of an implementation to its third call.
During the engine's steps torch forbids waiting for the device. The peers read a number of every
task, as their scripts do, so they wait.
"""

import argparse
import os
import platform
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import limit, ours, restated
from benchmarks.measure import made
from benchmarks.problem import Problem
from benchmarks.workloads import RATES, WAY
from cml_bench.engine.precision import computing
from cml_bench.errors import UserError
from cml_bench.system import paths, utf8
from cml_bench.system.files import write_json

_TASKS = 4  # meta-batches that are made beforehand and taken in turn
_BLOCK_SECONDS = 0.15


class CapturedPlain(ours.CapturedEngine):
    """Recorded steps of the network's plain path."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.method.network.path = "plain"


STEPS = {
    "official way": restated.Official,
    WAY: restated.LearnToLearn,
    "engine, plain": ours.PlainEngine,
    "engine, fast": ours.Engine,
    "engine, captured": ours.CapturedEngine,
    "engine, captured, task by task": partial(ours.CapturedEngine, at_once=1),
    "engine, captured, plain network": CapturedPlain,
}
TESTS = {
    WAY: restated.LearnToLearn,
    "engine, plain, 16 tasks at once": partial(ours.PlainEngine, at_once=16),
    **{f"engine, fast, {n} tasks at once": partial(ours.Engine, at_once=n) for n in (4, 16, 32)},
}
_MINI = {"size": 84, "tasks": 4, "method": "maml+cml"}
_SMALL = {"size": 28, "channels": 1, "tasks": 4, "method": "maml+cml"}
WORKLOADS = {  # name: problem, precision, work
    "Conv4-64 84x84 5-shot, 1 step, MAML": (
        _MINI | {"shot": 5, "method": "maml"},
        "float32",
        "step",
    ),
    "Conv4-64 84x84 5-shot, 1 step, MAML+CML": (_MINI | {"shot": 5}, "float32", "step"),
    "Conv4-64 84x84 1-shot, 1 step, MAML+CML": (_MINI, "float32", "step"),
    "Conv4-64 84x84 1-shot, 5 steps, MAML+CML": (_MINI | {"inner_steps": 5}, "float32", "step"),
    "Conv4-64 28x28 1-shot, 1 step, MAML+CML": (_SMALL, "float32", "step"),
    "Conv4-64 28x28 1-shot, 5 steps, MAML+CML": (_SMALL | {"inner_steps": 5}, "float32", "step"),
    "Conv4-64 84x84 5-shot, 1 step, MAML+CML, tf32": (_MINI | {"shot": 5}, "tf32", "step"),
    "Conv4-64 84x84 5-shot, 1 step, MAML+CML, bf16": (_MINI | {"shot": 5}, "bf16", "step"),
    "evaluation, Conv4-64 84x84 5-shot": (
        _MINI | {"shot": 5, "tasks": 32, "method": "maml"},
        "float32",
        "evaluate",
    ),
    "evaluation, Conv4-64 28x28 5-shot": (
        _SMALL | {"shot": 5, "tasks": 32, "method": "maml"},
        "float32",
        "evaluate",
    ),
}


class Running:
    """One implementation of a workload on the GPU."""

    def __init__(self, problem: Problem, make: Callable[[Problem], Any], work: str, waits: bool):
        self.waits, self.seconds, self.count = waits, [], 0
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.call = getattr(make(problem), work)
        self.tasks = [problem.task(i) for i in range(_TASKS)]
        for _ in range(3):
            self.block(1)
        self.memory = torch.cuda.max_memory_allocated() - before

    def block(self, calls: int) -> float:
        """Make so many calls; returns the seconds of one."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        if not self.waits and self.count:  # the first call may choose kernels and record: it waits
            torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(calls):
                self.call(self.tasks[self.count % _TASKS])
                self.count += 1
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls

    def measure(self) -> None:
        """Time one more block."""
        pace = self.seconds[-1] if self.seconds else self.block(2)
        self.seconds.append(self.block(max(1, int(_BLOCK_SECONDS / pace))))


def measure(name: str, repeats: int, rng: random.Random) -> list[dict[str, Any]]:
    """A row for each implementation."""
    fields, precision, work = WORKLOADS[name]
    problem, rows = Problem(**fields, device="cuda"), []
    unit, units = ("meta-step", 1) if work == "step" else ("task", problem.tasks)
    common = {"workload": name, "precision": precision, "unit": unit}
    # No limit for small images, whose convolutions take as long as their start. None for bf16: a
    # derivative that is computed by itself is not cast to 16 bits, as it is in a step.
    limited = work == "step" and problem.size > 32 and precision != "bf16"
    with computing(precision, "cuda"):
        rates = limit.Rates(problem).rate(None) if limited else {}
        ways = STEPS if work == "step" else TESTS
        running = {
            title: Running(problem, make, work, "way" in title) for title, make in ways.items()
        }
        for _ in range(repeats):
            for title in rng.sample(list(running), len(running)):
                running[title].measure()
    if limited:
        seconds = rates["flops"] / rates["best_rate"]
        rows.append({**common, "implementation": RATES, "seconds": _short(seconds), **rates})
    for title, one in running.items():
        low, middle, high = np.percentile(one.seconds, (25, 50, 75)) / units
        row = {
            **common,
            "implementation": title,
            "blocks": len(one.seconds),
            "seconds": _short(middle),
        }
        row |= {"seconds_quartiles": [_short(low), _short(high)], "memory": one.memory}
        if limited:
            row["limit_multiple"] = _short(middle / seconds)
        if title != WAY:
            row["times_faster"] = _short(
                float(np.median(np.array(running[WAY].seconds) / one.seconds))
            )
        rows.append(row)
    for row in rows:
        print(name, row["implementation"], row["seconds"], row.get("times_faster", ""), flush=True)
    return rows


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def main() -> None:
    """Measure all workloads and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    paths.from_command_line(args)
    if not torch.cuda.is_available():
        raise UserError("torch sees no CUDA device: this measures a GPU.")
    machine = {
        "system": platform.platform(),
        "processor": torch.cuda.get_device_name(),
        "cores": os.cpu_count(),
    }
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    rows, rng = [], random.Random(0)
    for name in WORKLOADS:
        rows += measure(name, args.repeats, rng)
        write_json(
            args.out, {"machine": machine, "versions": versions, **made(), "rows": rows}, indent=1
        )


if __name__ == "__main__":
    utf8.restart()
    utf8.streams()
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
