"""Seconds per training task of the graph methods: the plain implementation and the fast path, side
by side in one run.

``python -m benchmarks.graphs --data-dir DIR`` (where ``citeseer`` and ``amazon_computer`` are
prepared) writes ``benchmarks/results/graphs.json``. Tasks are float32, 2-way 5-shot with 5 queries
and the CML paper's 20 inner steps. Each is timed with two threads, as TLP's code was, and with one,
as a study trains.

The plain implementation is TLP's: G-Meta takes every task node's subgraph as a dense block, AMM-GNN
the dense features of the whole graph, and every inner step uses autograd. The four (two paths, one
and two threads) take turns in random order, so that other load meets all of them. The first task of
a block is not counted, since the caches still hold another's data. ``processor`` is the median of
the processor's own seconds. On a machine that is not idle only that of one thread says what a task
costs.
"""

import argparse
import os
import platform
import random
import sys
import time
from pathlib import Path

import numpy as np
import scipy
import torch

from benchmarks.measure import made
from cml_bench import registry
from cml_bench.data.episodes import Episodes
from cml_bench.engine.step import MetaStep, adam, leaves
from cml_bench.errors import UserError
from cml_bench.system import allocator, hardware, paths, utf8
from cml_bench.system.files import write_json

WORKLOADS = {  # data set, method: tasks in a block of the fast and of the plain path, blocks
    ("citeseer", "gmeta"): (10, 5, 5),
    ("citeseer", "gmeta+cml"): (10, 5, 5),
    ("citeseer", "amm_gnn"): (10, 3, 5),
    ("citeseer", "amm_gnn+cml"): (10, 3, 5),
    ("amazon_computer", "amm_gnn"): (10, 3, 5),
    ("amazon_computer", "amm_gnn+cml"): (10, 3, 5),
    ("amazon_computer", "gmeta"): (6, 1, 3),
    ("amazon_computer", "gmeta+cml"): (6, 1, 3),
}
# Seconds of TLP's own code, measured on another machine of two cores, and those that the fast path
# is to reach.
TARGETS = {
    ("citeseer", "gmeta"): (0.085, 0.02),
    ("citeseer", "amm_gnn"): (0.80, 0.02),
    ("amazon_computer", "amm_gnn"): (2.5, 0.03),
    ("amazon_computer", "gmeta"): (7.5, 0.25),
}
CPU = torch.device("cpu")


def stepper(data, method: str, path: str):
    """A function that makes outer step i and returns its wall-clock and processor seconds."""
    cls, net = registry.method(method), registry.networks.get("gcn")
    network = net(net.Options.read(cls.network_defaults, "gcn"), data.input_shape, 2, path)
    network.bind(data)
    learner = cls(cls.Options(), network, data.kind)
    groups = leaves(learner.init(0), CPU, torch.float32)
    step = MetaStep(learner, groups, adam(groups, 1e-3, weight_decay=5e-4), 1)
    episodes = Episodes(data, "train", 2, 5, 5, seed=0)

    def make(number: int, threads: int) -> tuple[float, float]:
        torch.set_num_threads(threads)
        start, used = time.perf_counter(), time.process_time()
        learner.at_step(number)
        step(episodes.batch(number, 1))
        return time.perf_counter() - start, time.process_time() - used

    return make


def measure(data, method: str, blocks: tuple[int, int, int], rng: random.Random) -> list[dict]:
    """One row for each implementation and number of threads."""
    *sizes, rounds = blocks
    each = dict(zip(("fast", "plain"), sizes, strict=True))
    makers = {(path, threads): stepper(data, method, path) for threads in (2, 1) for path in each}
    seconds: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in makers}
    for turn in range(rounds):
        for path, threads in rng.sample(list(makers), len(makers)):
            first = turn * (each[path] + 1)
            block = [makers[path, threads](first + i, threads) for i in range(each[path] + 1)]
            seconds[path, threads] += block[1:]
    rows = []
    for (path, threads), took in seconds.items():
        wall, used = np.array(took).T
        rows.append(
            {
                "workload": f"{method} on {data.name}, 2-way 5-shot, training task",
                "implementation": path,
                "threads": threads,
                "seconds": round(float(np.median(wall)), 5),
                "mean": round(float(wall.mean()), 5),
                "fastest": round(float(wall.min()), 5),
                "processor": round(float(np.median(used)), 5),
                "tasks": len(wall),
            }
        )
        print(
            f"{rows[-1]['workload']}: {path}, {threads} threads: {rows[-1]['seconds']:.4f} s",
            flush=True,
        )
    rows[0]["times_faster"] = round(rows[1]["seconds"] / rows[0]["seconds"], 1)
    rows[0]["official_elsewhere"], rows[0]["target"] = TARGETS[
        data.name, method.removesuffix("+cml")
    ]
    return rows


def main() -> None:
    """Measure all workloads and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "graphs.json"
    )
    args = parser.parse_args()
    paths.from_command_line(args)
    if not allocator.KEEP.items() <= os.environ.items():  # the settings of a study's jobs
        again = [sys.executable, "-m", "benchmarks.graphs", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, **allocator.KEEP})
    rows, before, rng = [], os.getloadavg()[0], random.Random(0)
    for (name, method), blocks in WORKLOADS.items():
        cls = registry.datasets.get(name)
        data = cls(cls.Options()).open(args.data_dir, CPU, torch.float32)
        rows += measure(data, method, blocks, rng)
    versions = {m.__name__: m.__version__ for m in (torch, np, scipy)} | {
        "python": platform.python_version()
    }
    load = os.getloadavg()[0]
    machine = {
        "system": platform.platform(),
        "processor": hardware.processor(),
        "cores": os.cpu_count(),
        "load_before": round(before, 2),
        "load": round(load, 2),
        "allocator": allocator.KEEP,
    }
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
