"""How fast this core convolves: the rates that bound a meta-step from below.

The FLOP limit of a workload is its counted FLOPs over the best rate of the network's own
convolutions: forward, input gradient, weight gradient, in both memory formats. The rates are
measured in the same run as the implementations, turn by turn.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.problem import Problem
from cml_bench.data.episodes import Task

_REPEATS = 3


class Rates:
    """The rates of every shape of a network's convolutions, in FLOP/s."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        sizes = [problem.size // 2**i for i in range(4)]
        counts = {problem.way * problem.shot, problem.way * problem.query}
        self.flops, self.work = problem.flops(), []
        self.now = time.process_time if problem.device == "cpu" else _device_seconds
        for n in sorted(counts):
            for i, size in enumerate(sizes):
                inputs = problem.channels if i == 0 else problem.filters
                flops = 2 * 9 * n * size * size * inputs * problem.filters
                self.work.append(
                    (flops, _operations(n, inputs, problem.filters, size, i == 0, problem.device))
                )

    def rate(self, task: Task) -> dict[str, float]:
        """Measure once: the best rate, the rate of all shapes together, a meta-step's FLOPs."""
        best, flops, seconds = 0.0, 0, 0.0
        for cost, operations in self.work:
            for variants in operations:
                took = min(_fastest(run, self.now) for run in variants)
                best, flops, seconds = max(best, cost / took), flops + cost, seconds + took
        return {"best_rate": best, "rate": flops / seconds, "flops": self.flops}


def _device_seconds() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def _fastest(run: Callable[[], object], now: Callable[[], float]) -> float:
    run()
    seconds = []
    for _ in range(_REPEATS):
        start = now()
        run()
        seconds.append(now() - start)
    return min(seconds)


def _operations(
    n: int, inputs: int, outputs: int, size: int, first: bool, device: str
) -> list[list[Callable[[], object]]]:
    """The variants of each kind of operation. The first layer needs no input gradient."""
    kinds: list[list[Callable[[], object]]] = [[], [], []]
    for layout in (torch.contiguous_format, torch.channels_last):
        x, w, grad = (
            torch.rand(shape, device=device).contiguous(memory_format=layout)
            for shape in (
                (n, inputs, size, size),
                (outputs, inputs, 3, 3),
                (n, outputs, size, size),
            )
        )

        def backward(of_x: bool, of_w: bool, x=x, w=w, grad=grad) -> object:
            one, mask = [1, 1], [of_x, of_w, False]
            return torch.ops.aten.convolution_backward(
                grad, x, w, None, one, one, one, False, [0, 0], 1, mask
            )

        kinds[0].append(lambda x=x, w=w: F.conv2d(x, w, padding=1))
        kinds[1].append(lambda backward=backward: backward(False, True))
        kinds[2].append(lambda backward=backward: backward(True, False))
    return kinds[:2] if first else kinds
