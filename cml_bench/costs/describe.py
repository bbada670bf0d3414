"""Sizes and costs of a method on a network, counted without data and without running anything."""

from dataclasses import dataclass
from typing import Any

from cml_bench import registry
from cml_bench.data.base import DataSet
from cml_bench.engine.flops import task_flops
from cml_bench.errors import UserError
from cml_bench.methods.base import Method
from cml_bench.networks.base import Network, count


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters: in training, at test by head, and of the co-learner."""

    training: int
    test: dict[str, int]
    co_learner: int


@dataclass(frozen=True)
class Description:
    """A method on a network and the tasks of a data set, with its parameters and FLOPs per task.

    ``data`` is the data id. ``flops``: see :func:`cml_bench.engine.flops.task_flops`. The order of
    the fields is that of ``describe --json``.
    """

    method: str
    network: str
    data: str
    way: int
    shot: int
    query: int
    parameters: Parameters
    flops: dict[str, int]


def describe(
    method: str,
    network: str,
    data: str,
    way: int | None,
    shot: int,
    query: int = 15,
    options: dict[str, Any] | None = None,
    network_options: dict[str, Any] | None = None,
    data_options: dict[str, Any] | None = None,
) -> Description:
    """Count parameters and FLOPs.

    ``way`` None is for data without classes. A UserError for names and options that do not exist or
    do not fit each other, and for a missing way.
    """
    data_class, net_class = registry.datasets.get(data), registry.networks.get(network)
    cls = registry.method(method)
    source = data_class(data_class.Options.read(data_options or {}, f"data set {data}"))
    if way is None:
        if source.kind == "classification":
            raise UserError(f"{data} has classes: give --way, the number of classes of a task.")
        way = 1  # a task is one function
    source.check("test", way, shot, query)
    net = _network(net_class, {**cls.network_defaults, **(network_options or {})}, source, way)
    if not cls.learns:
        raise UserError(f"{method} has no parameters and no network: there is nothing to describe.")
    learner = cls(cls.Options.read(options or {}, f"method {method}"), net, source.kind)
    return Description(
        method=method,
        network=network,
        data=source.data_id,
        way=way,
        shot=shot,
        query=query,
        parameters=_parameters(learner),
        flops=task_flops(learner, source, way, shot, query),
    )


def _network(cls: type[Network], options: dict[str, Any], source: DataSet, way: int) -> Network:
    own = cls.Options.read(options, f"network {cls.name}")
    net = cls(own, source.input_shape, source.outputs(way), path="plain")
    net.bind(source)
    return net


def _parameters(learner: Method) -> Parameters:
    base, net = count(learner.params), learner.network
    co = count(learner.co.params) if "co" in learner.heads else 0
    test = {"meta": base}
    if co:
        test["co"] = (
            base
            + co
            - sum(param.size for name, param in learner.params.items() if name in net.head_names)
        )
        if any(reading.head == "both" for reading in learner.more_readings):
            test["both"] = base + co
    return Parameters(training=base + co, test=test, co_learner=co)
