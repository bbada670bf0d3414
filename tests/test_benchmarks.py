"""The benchmark: all implementations compute the same, its arithmetic, and one pass of the harness at tiny sizes."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import show
from benchmarks.measure import ROOT, Missing, Worker, rows
from benchmarks.problem import Problem
from benchmarks.workloads import IMPLEMENTATIONS, PACKAGES, RATES, TARGETS, WAY, WORKLOADS, Workload

SMALL = {"size": 16, "filters": 4, "channels": 3, "way": 3, "shot": 2, "query": 2, "tasks": 3, "inner_lr": 0.4}
SINE = {"tasks": 3, "way": 1, "shot": 4, "query": 5, "inner_lr": 0.05}
STEPPING = [name for name, (module, *_) in IMPLEMENTATIONS.items() if module != "benchmarks.limit"]
STEPPING = [name for name in STEPPING if not name.startswith("episodes")]
CASES = {
    f"{kind} {method} {steps}": {**problem, "method": method, "inner_steps": steps}
    for kind, problem in (("conv4", SMALL), ("mlp", SINE))
    for method in ("maml", "maml+cml")
    for steps in (1, 2)
}


def gradients(implementation: str, problem: dict, tmp_path) -> dict:
    """As its worker computes them, in float64."""
    try:
        worker = Worker(implementation, Workload("test", problem, ()), warm_up=False, dtype="float64")
    except Missing as why:
        pytest.skip(f"{implementation}: {why}")
    try:
        worker.ask(gradients=str(tmp_path / "gradients.pt"))
    finally:
        worker.stop()
    return torch.load(tmp_path / "gradients.pt")
