"""What a task costs, independent of the machine."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from cml_bench.data.base import DataSet
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.step import expand
from cml_bench.methods.base import Method


def task_flops(method: Method, source: DataSet, way: int, shot: int, query: int) -> dict[str, int]:
    """FLOPs of convolutions and matrix products on the network's plain path, two for a
    multiply-add.

    ``adaptation``: the inner loop at test; ``inference``: prediction of all queries; ``training``:
    one task's share of an outer step, with all derivatives (of MAML++: in epoch 0, with all its
    query losses). Counted on tensors without storage, so nothing is computed. Of graphs: the dense
    products for neighbourhoods of mean size.
    """

    def examples(each: int) -> Examples:
        x = torch.empty(1, way * each, *source.input_shape, device="meta")
        if source.kind == "classification":
            return Examples(x, torch.zeros(1, way * each, dtype=torch.int64, device="meta"))
        return Examples(x, torch.empty(1, way * each, source.outputs(way), device="meta"))

    task = Task(examples(shot), examples(query))
    groups = {
        group: {name: p.to("meta").requires_grad_() for name, p in params.items()}
        for group, params in method.init(0).items()
    }

    wide = method.meet(expand(groups, 1), task)

    def counted(work) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    def adapt() -> dict:
        *_, params = method.for_test().trajectory(wide, task.support, method.inner_steps)
        return params

    with FlopCounterMode(display=False) as counter:
        adapted = adapt()
    adaptation = counter.get_total_flops()

    def infer() -> None:
        with torch.no_grad():
            method.outputs(wide, adapted, task.query.x, ("meta",))

    def closure() -> None:
        for params in groups.values():
            for p in params.values():
                p.grad = None
        method.outer_loss(expand(groups, 1), task)[0].sum().backward()

    def train() -> None:  # the method decides how often gradients are taken
        leaves = [p for params in groups.values() for p in params.values()]
        method.meta_step(closure, groups, torch.optim.SGD(leaves, lr=0.0))

    return {"adaptation": adaptation, "inference": counted(infer), "training": counted(train)}
