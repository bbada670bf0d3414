"""One implementation in a process of its own: ``python -m benchmarks.worker JSON``.

The process reads a line and answers it with a line of JSON. Its first answer says that it is ready,
or what is missing. A number of seconds asks for a block of calls, "profile" for the shares of a
call's time. An empty line ends the process.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.workloads import IMPLEMENTATIONS

_TASKS = 4  # meta-batches that are made beforehand and taken in turn
_KINDS = {  # kinds of torch's operations, by what their names contain; the first that fits counts
    "convolutions": ("convolution",),
    "matrix products": ("aten::mm", "bmm", "addmm", "aten::mv", "aten::dot"),
    "pooling": ("pool",),
    "copies": ("copy", "aten::cat", "fill", "zero", "clone", "flip", "empty", "stack"),
    "arithmetic": ("aten::",),
}
_BETWEEN = "between operations"


def resident() -> dict[str, int]:
    """Bytes of this process in memory: now, and the most so far."""
    lines = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    )
    return {
        key: int(lines[name].split()[0]) * 1024
        for key, name in (("now", "VmRSS"), ("peak", "VmHWM"))
    }


class Served:
    """The implementation, its tasks, and the memory that it had before the first call."""

    def __init__(self, order: dict[str, Any]):
        import torch

        from benchmarks.problem import Problem

        torch.set_num_threads(order["threads"])
        torch.set_flush_denormal(True)  # as in runs: cml_bench/engine/precision.py
        problem = Problem(**order["problem"])
        module, name, _ = IMPLEMENTATIONS[order["implementation"]]
        self.made = getattr(importlib.import_module(module), name)(problem)
        work = "rate" if hasattr(self.made, "rate") else order["work"]
        self.call = getattr(self.made, work)
        self.tasks = [None] if work == "draw" else [problem.task(i) for i in range(_TASKS)]
        self.calls, self.before = 0, resident()["now"]

    def block(self, seconds: float) -> dict[str, Any]:
        """Call it for so many seconds, at least once.

        Returns wall-clock and processor seconds of one call, and the peak memory in bytes.
        """
        calls, start, used = 0, time.perf_counter(), time.process_time()
        while not calls or time.perf_counter() - start < seconds:
            answer = self.call(self.tasks[self.calls % len(self.tasks)])
            calls, self.calls = calls + 1, self.calls + 1
        wall, processor = time.perf_counter() - start, time.process_time() - used
        block = {"calls": calls, "seconds": wall / calls, "processor": processor / calls}
        block["memory"] = resident()["peak"] - self.before
        return block | (answer if isinstance(answer, dict) else {})

    def profile(self) -> dict[str, float]:
        """Shares of one call's processor time, by kind of operation."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            self.call(self.tasks[0])
        shares = dict.fromkeys([*_KINDS, _BETWEEN], 0.0)
        for event in profiled.key_averages():
            shares[kind(event.key)] += event.self_cpu_time_total
        total = sum(shares.values())
        return {name: round(value / total, 4) for name, value in shares.items()}


def kind(operation: str) -> str:
    """The kind of an operation of torch, by its name.

    ``arithmetic`` is all that normalises, rectifies, adds and sums. What is no operation is Python
    or autograd.
    """
    return next(
        (name for name, parts in _KINDS.items() if any(part in operation for part in parts)),
        _BETWEEN,
    )


def main() -> None:
    """Answer lines until an empty one comes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what a library prints goes to the errors
    order = json.loads(sys.argv[1])

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")

    try:
        served = Served(order)
    except ImportError as error:
        return answer({"missing": str(error)})
    answer({"ready": True})
    for line in sys.stdin:
        if not line.strip():
            return
        answer(served.profile() if line.strip() == "profile" else served.block(float(line)))


if __name__ == "__main__":
    main()
