"""The only evaluation loop: adapt, predict, score, episode by episode.

No second-order graph is kept. Batch-norm is transductive: all queries of a task are normalised
together, as in the released code, unless an evaluation asks for less. Models whose inner loops are
equal share one.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cml_bench.data.episodes import Episodes, Examples, Task
from cml_bench.engine.normalisation import query_outputs
from cml_bench.engine.step import expand
from cml_bench.methods.base import Groups, Method, Params
from cml_bench.shapes import PerTask
from cml_bench.spec import NormalisedWith


class Result(NamedTuple):
    """Loss and score of one head after a number of inner steps, per episode (tasks,)."""

    loss: PerTask
    score: PerTask


Scored = dict[tuple[str, int], Result]  # by (head, inner steps)


class Asked(NamedTuple):
    """What is to be tested: the outputs of ``heads`` of one model, or of an ensemble.

    The members of an ensemble adapt separately, and their outputs are averaged.
    ``inner_loss="co"``: psi alone adapts, by the paper's equation 9.
    """

    members: Sequence[Groups]
    heads: Sequence[str]
    inner_loss: str = "meta"
    normalised_with: NormalisedWith = "task"


def score_all(
    method: Method, asked: Sequence[Asked], task: Task, steps: Sequence[int]
) -> list[Scored]:
    """Scores of a batch of tasks, one for each of ``asked``; equal inner loops are made once."""
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
                        one = asked[number]
                        heads = tuple(one.heads)
                        outputs = query_outputs(
                            method, own, own_params, task, heads, one.normalised_with
                        )
                    for head in heads:
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
    """An inner loop that starts from ``begun`` (T, ...), and the models that share it.

    ``readers``: (place in ``asked``, parameters) of each of these models.
    """

    inner_loss: str
    begun: Groups
    readers: list[tuple[int, Groups]]


def _alike(method: Method, asked: Sequence[Asked]) -> list[list[tuple[int, Groups]]]:
    """All models as (place in ``asked``, parameters), grouped by equal inner loops."""
    alike: dict[tuple[object, ...], list[tuple[int, Groups]]] = {}
    for number, one in enumerate(asked):
        for member in one.members:
            alone = _ignores_co(method, one)
            key = (one.inner_loss, id(member["base"]), *(() if alone else (id(member.get("co")),)))
            alike.setdefault(key, []).append((number, member))
    return list(alike.values())


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
    """Adaptations that are computed at once: those of one loss, if the network gains by that."""
    if not method.network.many_models:
        return [[one] for one in adaptations]
    by_loss: dict[str, list[_Adaptation]] = {}
    for one in adaptations:
        by_loss.setdefault(one.inner_loss, []).append(one)
    return list(by_loss.values())


def _trajectory(
    method: Method, together: list[_Adaptation], task: Task, steps: int
) -> Iterator[Params]:
    """Parameters (models * T, ...) after 0, 1, ..., ``steps`` inner steps.

    The T tasks of the first model come first.
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
    """Parameters (T, ...) from which a model adapts to T tasks.

    They are leaves, so that no graph reaches the stored parameters.
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
    first: int = 0,
    tasks_at_once: int = 4,
) -> Scored:
    """Results (tasks,) after the method's own number of inner steps, as tensors on the CPU.

    The episodes are ``first .. first+tasks-1``. ``heads``: by default all of the method's.
    """
    members = [groups] if isinstance(groups, dict) else groups
    asked = [Asked(members, tuple(heads or method.heads))]
    return evaluate_all(
        method,
        asked,
        episodes,
        tasks,
        steps=(method.inner_steps,),
        first=first,
        tasks_at_once=tasks_at_once,
    )[0]


def evaluate_all(
    method: Method,
    asked: Sequence[Asked],
    episodes: Episodes,
    tasks: int,
    *,
    steps: Sequence[int],
    first: int = 0,
    tasks_at_once: int = 4,
) -> list[Scored]:
    """As :func:`evaluate`, for each of ``asked`` on the same episodes, which are drawn once.

    ``steps``: the numbers of inner steps after which they are scored.
    """
    parts = []
    for start in range(first, first + tasks, tasks_at_once):
        task = episodes.batch(start, min(tasks_at_once, first + tasks - start))
        parts.append(score_all(method, asked, task, steps))
    return [_joined([part[number] for part in parts]) for number in range(len(asked))]


def _joined(parts: list[Scored]) -> Scored:
    """The results of all batches, moved to the CPU at the end."""
    return {
        key: Result(*(torch.cat([part[key][i] for part in parts]).cpu() for i in (0, 1)))
        for key in parts[0]
    }
