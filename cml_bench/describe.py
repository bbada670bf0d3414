"""Sizes and costs of a method on a network, counted without data and without running anything."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from cml_bench import registry
from cml_bench.engine.step import expand
from cml_bench.episodes import Examples, Task
from cml_bench.methods.base import Method
from cml_bench.networks.base import count


def describe(
    method: str, network: str, data: str, way: int, shot: int, query: int = 15, options: dict | None = None,
    network_options: dict | None = None, data_options: dict | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Parameters in training and at test per variant, and FLOPs per task.

    FLOPs are those of convolutions and matrix products of the plain path, two for a multiply-add:
    ``adaptation`` (inner loop at test), ``inference`` (prediction of all queries), ``training`` (one task's
    share of an outer step, with all derivatives).
    """
    data_class, net_class, cls = registry.datasets.get(data), registry.networks.get(network), registry.method(method)
    source = data_class(data_class.Options.resolve(data_options or {}, f"data set {data}"))
    source.check("test", way, shot, query)
    net = net_class(
        net_class.Options.resolve(network_options or {}, f"network {network}"), source.input_shape,
        source.outputs(way), path="plain",
    )  # fmt: skip
    learner = cls(cls.Options.resolve(options or {}, f"method {method}"), net, source.kind)
    base = count(net.params)
    co = count(learner.co.params) if "co" in learner.heads else 0
    test = {"meta": base}
    if co:
        test["co"] = base + co - sum(net.params[name].size for name in net.head_names)
    return {
        "method": method, "network": network, "data": source.data_id, "way": way, "shot": shot, "query": query,
        "parameters": {"training": base + co, "test": test, "co_learner": co},
        "flops": _flops(learner, source, way, shot, query),
    }  # fmt: skip


def _flops(method: Method, source, way: int, shot: int, query: int) -> dict[str, int]:
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

    def counted(work) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    def adapt() -> dict:
        *_, params = method.trajectory(expand(groups, 1), task.support, method.inner_steps)
        return params

    adaptation = counted(adapt)
    adapted = adapt()

    def infer() -> None:
        with torch.no_grad():
            method.outputs(expand(groups, 1), adapted, task.query.x, ("meta",))

    def train() -> None:
        method.outer_loss(expand(groups, 1), task)[0].sum().backward()

    return {"adaptation": adaptation, "inference": counted(infer), "training": counted(train)}
