"""One outer step, for all tasks of a meta-batch.

Tasks go through the network several at a time as one program (``tasks_at_once``); the gradient of the
mean over the meta-batch accumulates over the parts. Nothing here waits for the device.
"""

import torch

from cml_bench.episodes import Task
from cml_bench.methods.base import Groups, Method, Scores


def expand(groups: Groups, tasks: int) -> Groups:
    """A view of every parameter with a leading task axis (T, ...)."""
    return {group: {name: p.expand(tasks, *p.shape) for name, p in params.items()} for group, params in groups.items()}


def leaves(groups: Groups, device: torch.device, dtype: torch.dtype) -> Groups:
    """Copies that collect gradients."""
    return {
        group: {name: p.detach().to(device, dtype, copy=True).requires_grad_() for name, p in params.items()}
        for group, params in groups.items()
    }


def snapshot(groups: Groups) -> Groups:
    """Detached copies on the CPU."""
    return {g: {name: p.detach().to("cpu", copy=True) for name, p in params.items()} for g, params in groups.items()}


class MetaStep:
    """``step(task)`` makes one outer step of ``method`` on the leaf tensors ``groups``."""

    def __init__(self, method: Method, groups: Groups, optimizer: torch.optim.Optimizer, tasks_at_once: int):
        self.method, self.groups, self.optimizer, self.tasks_at_once = method, groups, optimizer, tasks_at_once

    def gradients(self, task: Task) -> Scores:
        """Set the gradient of the mean outer loss over the tasks; per-task scores (T,)."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = []
        for first in range(0, len(task), self.tasks_at_once):
            part = task.part(first, first + self.tasks_at_once)
            loss, scores = self.method.outer_loss(expand(self.groups, len(part)), part)
            (loss.sum() / len(task)).backward()
            parts.append(scores)
        return join_scores(parts)

    def __call__(self, task: Task) -> Scores:
        return self.method.meta_step(lambda: self.gradients(task), self.groups, self.optimizer)


def join_scores(parts: list[Scores]) -> Scores:
    """Concatenate over tasks."""
    if len(parts) == 1:
        return parts[0]
    return Scores(*({h: torch.cat([part[i][h] for part in parts]) for h in parts[0][i]} for i in (0, 1)))


def adam(groups: Groups, lr: float) -> torch.optim.Optimizer:
    """Adam as the released code uses it: betas (0.9, 0.999), eps 1e-8, no decay; one set for each group."""
    sets = [{"params": list(params.values())} for params in groups.values() if params]
    return torch.optim.Adam(sets, lr=lr, fused=True)
