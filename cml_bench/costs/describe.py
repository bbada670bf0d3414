"""Sizes and costs of a method on a network, counted without data and without running anything."""

from typing import Any

from cml_bench import registry
from cml_bench.engine.flops import task_flops
from cml_bench.errors import UserError
from cml_bench.networks.base import count


def describe(
    method: str,
    network: str,
    data: str,
    way: int,
    shot: int,
    query: int = 15,
    options: dict | None = None,
    network_options: dict | None = None,
    data_options: dict | None = None,
) -> dict[str, Any]:
    """Parameters in training and at test per variant, and FLOPs per task.

    FLOPs: see :func:`cml_bench.engine.flops.task_flops`.
    """
    data_class, net_class, cls = (
        registry.datasets.get(data),
        registry.networks.get(network),
        registry.method(method),
    )
    source = data_class(data_class.Options.read(data_options or {}, f"data set {data}"))
    source.check("test", way, shot, query)
    net = net_class(
        net_class.Options.read(
            {**cls.network_defaults, **(network_options or {})}, f"network {network}"
        ),
        source.input_shape,
        source.outputs(way),
        path="plain",
    )
    net.bind(source)
    if not cls.learns:
        raise UserError(f"{method} has no parameters and no network: there is nothing to describe.")
    learner = cls(cls.Options.read(options or {}, f"method {method}"), net, source.kind)
    base = count(learner.params)
    co = count(learner.co.params) if "co" in learner.heads else 0
    test = {"meta": base}
    if co:
        test["co"] = base + co - sum(net.params[name].size for name in net.head_names)
        if any(reading.head == "both" for reading in learner.more_readings):
            test["both"] = base + co
    return {
        "method": method,
        "network": network,
        "data": source.data_id,
        "way": way,
        "shot": shot,
        "query": query,
        "parameters": {"training": base + co, "test": test, "co_learner": co},
        "flops": task_flops(learner, source, way, shot, query),
    }
