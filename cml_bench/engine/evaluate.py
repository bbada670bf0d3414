"""The only evaluation loop: adapt, predict, score, episode by episode.

No second-order graph is kept. Batch-norm is transductive: all queries of a task are normalised together,
as in the released code.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cml_bench.engine.step import expand
from cml_bench.episodes import Episodes, Task
from cml_bench.methods.base import Groups, Method


class Result(NamedTuple):
    """Per episode (tasks,): loss and score of one head after a number of inner steps."""

    loss: Tensor
    score: Tensor


def score_tasks(
    method: Method,
    groups: Groups | Sequence[Groups],
    task: Task,
    heads: Sequence[str],
    steps: Sequence[int],
    inner_loss: str = "meta",
) -> dict[tuple[str, int], Result]:
    """Scores of a batch of tasks by (head, inner steps). ``inner_loss="co"``: equation 9, psi adapts alone.

    Several models are an ensemble: each adapts by itself, and their outputs are averaged.
    """
    members = [groups] if isinstance(groups, dict) else groups
    outputs = {}
    for member in members:
        for key, value in _outputs(method, member, task, tuple(heads), steps, inner_loss).items():
            outputs[key] = outputs[key] + value if key in outputs else value
    found = {}
    for key, value in outputs.items():
        mean = value if len(members) == 1 else value / len(members)
        found[key] = Result(method.criterion(mean, task.query.y), method.score(mean, task.query.y))
    return found


def ready(method: Method, groups: Groups, task: Task) -> Groups:
    """Parameters (T, ...) from which a model adapts to some tasks: leaves, so no graph reaches the stored ones."""
    wide = {
        group: {name: p.detach().requires_grad_() for name, p in params.items()}
        for group, params in expand(groups, len(task)).items()
    }
    with torch.no_grad():
        return method.meet(wide, task)


def _outputs(
    method: Method, groups: Groups, task: Task, heads: tuple[str, ...], steps: Sequence[int], inner_loss: str
) -> dict[tuple[str, int], Tensor]:
    """Outputs (T, n, out) of one model by (head, inner steps)."""
    wide, found = ready(method, groups, task), {}
    for step, params in enumerate(method.trajectory(wide, task.support, max(steps), loss=inner_loss)):
        if step in steps:
            with torch.no_grad():
                outputs = method.outputs(wide, params, task.query.x, heads)
            found |= {(head, step): outputs[head] for head in heads}
    return found


def evaluate(
    method: Method,
    groups: Groups | Sequence[Groups],
    episodes: Episodes,
    tasks: int,
    *,
    heads: Sequence[str] | None = None,
    steps: Sequence[int] = (),
    inner_loss: str = "meta",
    first: int = 0,
    tasks_at_once: int = 4,
) -> dict[tuple[str, int], Result]:
    """Results (tasks,) on episodes ``first .. first+tasks-1``, on the CPU; one transfer at the end."""
    heads, steps = tuple(heads or method.heads), tuple(steps) or (method.inner_steps,)
    parts = []
    for start in range(first, first + tasks, tasks_at_once):
        task = episodes.batch(start, min(tasks_at_once, first + tasks - start))
        parts.append(score_tasks(method, groups, task, heads, steps, inner_loss))
    return {key: Result(*(torch.cat([part[key][i] for part in parts]).cpu() for i in (0, 1))) for key in parts[0]}
