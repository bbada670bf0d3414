"""Gradients of every implementation in the benchmark, on small problems."""

import importlib

import torch

from benchmarks.problem import Problem
from benchmarks.workloads import IMPLEMENTATIONS

_SMALL = {"size": 16, "filters": 4, "way": 3, "shot": 2, "query": 2, "tasks": 3, "inner_lr": 0.4}
_SINE = {"tasks": 3, "way": 1, "shot": 4, "query": 5, "inner_lr": 0.05}
CASES = {
    f"{kind} {method} {steps} steps": Problem(**problem, method=method, inner_steps=steps)
    for kind, problem in (("conv4", _SMALL), ("mlp", _SINE))
    for method in ("maml", "maml+cml")
    for steps in (1, 2)
}


def made(implementation: str, problem: Problem):
    module, name, _ = IMPLEMENTATIONS[implementation]
    return getattr(importlib.import_module(module), name)(problem, torch.float64)


def gradients(implementation: str, problem: Problem) -> dict:
    """Gradients of the second meta-batch, in float64.

    The first meta-batch was used before: nothing of it may be left.
    """
    one = made(implementation, problem)
    for number in range(2):
        for p in one.leaves.values():
            p.grad = None
        one.gradients(problem.task(number, torch.float64))
    return {key: torch.zeros_like(p) if p.grad is None else p.grad for key, p in one.leaves.items()}


def store(implementation: str, file: str) -> None:
    """Write the gradients of all cases; called in the packages' own environment."""
    torch.save({name: gradients(implementation, problem) for name, problem in CASES.items()}, file)
