"""What a task costs, independent of the machine."""

import json
from collections.abc import Callable

import torch

from cml_bench.data.base import DataSet
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.build import build_method
from cml_bench.engine.step import expand
from cml_bench.methods.base import Groups, Method, Params, Scores
from cml_bench.spec import RunSpec
from cml_bench.study import work

_COUNTED: dict[str, dict[str, int]] = {}  # in this process


def flops_of(spec: RunSpec, data: DataSet) -> dict[str, int]:
    """:func:`task_flops` of a run, counted once in a process for all runs that compute the same:
    whatever their seeds and budgets, and whatever their examples are, if these have one shape.
    """
    method, like = build_method(spec, data, "plain"), json.loads(work.kind(spec))
    if method.network.takes != "nodes":  # a graph has sizes of its own
        like["data"] = [data.kind, data.input_shape, data.outputs(spec.way)]
    key = json.dumps(like)
    if key not in _COUNTED:
        _COUNTED[key] = task_flops(method, data, spec.way, spec.shot, spec.query)
    return _COUNTED[key]


def task_flops(method: Method, source: DataSet, way: int, shot: int, query: int) -> dict[str, int]:
    """FLOPs of convolutions and matrix products on the network's plain path; a multiply-add is two.

    ``adaptation``: the inner loop at test. ``inference``: the prediction of all queries.
    ``training``: one task's share of an outer step, with all derivatives; of MAML++ in epoch 0,
    with the query losses of all inner steps. They are counted on tensors without storage, so
    nothing is computed. Of graphs the dense products are counted, for neighbourhoods of mean size.
    """
    task = Task(*(_examples(source, way, each) for each in (shot, query)))
    groups = {
        group: {name: p.to("meta").requires_grad_() for name, p in params.items()}
        for group, params in method.init(0).items()
    }
    wide = method.meet(expand(groups, 1), task)
    adapted: Params = {}

    def adapt() -> None:
        *_, params = method.for_test().trajectory(wide, task.support, method.inner_steps)
        adapted.update(params)

    def infer() -> None:
        with torch.no_grad():
            method.outputs(wide, adapted, task.query.x, ("meta",))

    def train() -> None:
        _outer_step(method, groups, task)

    return {
        "adaptation": _counted(adapt),
        "inference": _counted(infer),
        "training": _counted(train),
    }


def _examples(source: DataSet, way: int, each: int) -> Examples:
    """One task's examples without storage, ``each`` per class."""
    x = torch.empty(1, way * each, *source.input_shape, device="meta")
    if source.kind == "classification":
        return Examples(x, torch.zeros(1, way * each, dtype=torch.int64, device="meta"))
    return Examples(x, torch.empty(1, way * each, source.outputs(way), device="meta"))


def _outer_step(method: Method, groups: Groups, task: Task) -> None:
    """One outer step on one task. The method decides how often gradients are taken."""
    leaves = [p for params in groups.values() for p in params.values()]

    def closure() -> Scores:
        for p in leaves:
            p.grad = None
        loss, scores = method.outer_loss(expand(groups, 1), task)
        loss.sum().backward()
        return scores

    method.meta_step(closure, groups, torch.optim.SGD(leaves, lr=0.0))


def _counted(work: Callable[[], None]) -> int:
    # This loads PyTorch's compiler, which takes longer than the rest of a training's start. So it
    # is imported where something is counted.
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
