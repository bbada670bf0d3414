"""The only evaluation loop: adapt, predict, score, episode by episode.

No second-order graph is kept. Batch-norm is transductive: all queries of a task are normalised
together, as in the released code.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cml_bench.data.episodes import Episodes, Examples, Task
from cml_bench.engine.step import expand
from cml_bench.methods.base import Groups, Method, Params


class Result(NamedTuple):
    """Per episode (tasks,): loss and score of one head after a number of inner steps."""

    loss: Tensor
    score: Tensor


Scored = dict[tuple[str, int], Result]  # by (head, inner steps)


class Asked(NamedTuple):
    """Outputs of ``heads`` of one model, or the mean of several that adapt each by itself, an
    ensemble.

    ``inner_loss="co"``: equation 9, psi adapts alone.
    """

    members: Sequence[Groups]
    heads: Sequence[str]
    inner_loss: str = "meta"


def score_tasks(
    method: Method,
    groups: Groups | Sequence[Groups],
    task: Task,
    heads: Sequence[str],
    steps: Sequence[int],
    inner_loss: str = "meta",
) -> Scored:
    """Scores of a batch of tasks by (head, inner steps); several models are an ensemble."""
    members = [groups] if isinstance(groups, dict) else groups
    return score_all(method, [Asked(members, heads, inner_loss)], task, steps)[0]


def score_all(
    method: Method, asked: Sequence[Asked], task: Task, steps: Sequence[int]
) -> list[Scored]:
    """Scores of a batch of tasks for each that is asked; what adapts alike adapts once."""
    sums: list[dict[tuple[str, int], Tensor]] = [{} for _ in asked]
    for together in _together(
        method, [_adaptation(method, asked, group, task) for group in _alike(method, asked)]
    ):
        for step, params in enumerate(_trajectory(method, together, task, max(steps))):
            if step not in steps:
                continue
            for place, adaptation in enumerate(together):
                own_params = {
                    name: p[place * len(task) : (place + 1) * len(task)]
                    for name, p in params.items()
                }
                for number, own in adaptation.readers:
                    with torch.no_grad():
                        outputs = method.outputs(
                            own, own_params, task.query.x, tuple(asked[number].heads)
                        )
                    for head in asked[number].heads:
                        key, value = (head, step), outputs[head]
                        sums[number][key] = (
                            sums[number][key] + value if key in sums[number] else value
                        )
    return [_scored(method, one, task, own) for one, own in zip(asked, sums, strict=True)]


def _scored(method: Method, one: Asked, task: Task, sums: dict[tuple[str, int], Tensor]) -> Scored:
    """Loss and score of the mean output, from the sums of the members' outputs (T, n, out)."""
    targets, members = task.query.y, len(one.members)
    means = {key: total if members == 1 else total / members for key, total in sums.items()}
    return {
        key: Result(method.criterion(mean, targets), method.score(mean, targets))
        for key, mean in means.items()
    }


class _Adaptation(NamedTuple):
    """An inner loop from ``begun`` (T, ...), and the models (place in ``asked``, groups) that have
    it in common.
    """

    inner_loss: str
    begun: Groups
    readers: list[tuple[int, Groups]]


def _alike(method: Method, asked: Sequence[Asked]) -> list[list[tuple[int, Groups]]]:
    """(place in ``asked``, model), those together whose inner loop is one and the same."""
    found: dict[tuple, list[tuple[int, Groups]]] = {}
    for number, one in enumerate(asked):
        for member in one.members:
            alone = _ignores_co(method, one)
            key = (one.inner_loss, id(member["base"]), *(() if alone else (id(member.get("co")),)))
            found.setdefault(key, []).append((number, member))
    return list(found.values())


def _ignores_co(method: Method, one: Asked) -> bool:
    return one.inner_loss == "meta" and not method.co_in_inner_loop


def _adaptation(
    method: Method, asked: Sequence[Asked], group: list[tuple[int, Groups]], task: Task
) -> _Adaptation:
    first = asked[group[0][0]]
    readers = [(number, ready(method, member, task)) for number, member in group]
    begun = readers[0][1]
    if _ignores_co(method, first):
        begun = {name: params for name, params in begun.items() if name != "co"}
    return _Adaptation(first.inner_loss, begun, readers)


def _together(method: Method, adaptations: list[_Adaptation]) -> list[list[_Adaptation]]:
    """Those of one loss together where the network gains by it, else each by itself."""
    if not method.network.many_models:
        return [[one] for one in adaptations]
    found: dict[str, list[_Adaptation]] = {}
    for one in adaptations:
        found.setdefault(one.inner_loss, []).append(one)
    return list(found.values())


def _trajectory(
    method: Method, together: list[_Adaptation], task: Task, steps: int
) -> Iterator[Params]:
    """Parameters (models * T, ...) after 0, 1, ..., ``steps`` inner steps, the first model's T
    tasks first.
    """
    begun, support = together[0].begun, task.support
    if len(together) > 1:
        support = Examples(*(torch.cat([part] * len(together)) for part in support))
        begun = {
            group: {
                name: (
                    torch.cat(
                        [one.begun[group][name].detach() for one in together]
                    ).requires_grad_()
                )
                for name in params
            }
            for group, params in begun.items()
        }
    return method.trajectory(begun, support, steps, loss=together[0].inner_loss)


def ready(method: Method, groups: Groups, task: Task) -> Groups:
    """Parameters (T, ...) from which a model adapts to some tasks: leaves, so no graph reaches the
    stored ones.
    """
    wide = {
        group: {name: p.detach().requires_grad_() for name, p in params.items()}
        for group, params in expand(groups, len(task)).items()
    }
    with torch.no_grad():
        return method.meet(wide, task)


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
) -> Scored:
    """Results (tasks,) on episodes ``first .. first+tasks-1``, on the CPU; one transfer at the
    end.
    """
    members = [groups] if isinstance(groups, dict) else groups
    asked = [Asked(members, tuple(heads or method.heads), inner_loss)]
    return evaluate_all(
        method, asked, episodes, tasks, steps=steps, first=first, tasks_at_once=tasks_at_once
    )[0]


def evaluate_all(
    method: Method,
    asked: Sequence[Asked],
    episodes: Episodes,
    tasks: int,
    *,
    steps: Sequence[int] = (),
    first: int = 0,
    tasks_at_once: int = 4,
) -> list[Scored]:
    """As :func:`evaluate`, for each that is asked, on the same episodes: each is drawn once."""
    steps, parts = tuple(steps) or (method.inner_steps,), []
    for start in range(first, first + tasks, tasks_at_once):
        task = episodes.batch(start, min(tasks_at_once, first + tasks - start))
        parts.append(score_all(method, asked, task, steps))
    return [_joined([part[number] for part in parts]) for number in range(len(asked))]


def _joined(parts: list[Scored]) -> Scored:
    """Of all batches, on the CPU."""
    return {
        key: Result(*(torch.cat([part[key][i] for part in parts]).cpu() for i in (0, 1)))
        for key in parts[0]
    }
