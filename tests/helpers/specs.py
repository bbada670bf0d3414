"""Small run specs for tests."""

from typing import Any

from cml_bench import registry
from cml_bench.spec import Component, Evaluation, RunSpec, canonical
from cml_bench.study.protocols import protocol

# Every method that is trained, except those on graphs.
IMAGE_METHODS = [
    name
    for name in registry.method_names()
    if registry.method(name).learns and "readout" not in registry.method(name).network_defaults
]


def sinusoid_spec(method: str = "maml", **changes: Any) -> RunSpec:
    """A run of 30 steps of regression on sinusoids of 5 points."""
    options = {**rate(method, 0.01), **({"cml": {"gamma": 0.2}} if method.endswith("+cml") else {})}
    return _spec(method, options, "sinusoid", "mlp", {"hidden": (16, 16)}, 1, **changes)


def glyph_spec(method: str = "maml", **changes: Any) -> RunSpec:
    """A run of a few steps on 5-way 1-shot glyphs of 16 pixels, with a narrow network."""
    fields = {"steps": 12, "protocol_options": {"val_every": 4}, **changes}
    options = rate(method, 0.4)
    return _spec(
        method, options, "glyphs", "conv4", {"filters": 4}, 5, data_options={"size": 16}, **fields
    )


def rate(method: str, size: float) -> dict[str, float]:
    """The option that is a method's inner learning rate; nothing for a method without one."""
    fields = registry.method(method).Options.model_fields
    return {name: size for name in ("inner_lr", "inner_lr_init") if name in fields}


def _spec(
    method: str,
    options: dict,
    data: str,
    network: str,
    network_options: dict,
    way: int,
    data_options: dict | None = None,
    protocol_options: dict | None = None,
    method_options: dict | None = None,
    **changes: Any,
) -> RunSpec:
    cls, net, source = (
        registry.method(method),
        registry.networks.get(network),
        registry.datasets.get(data),
    )
    chosen = source.Options.read(data_options or {}, data)
    fields = {
        "method": method,
        "version": cls.version,
        "options": canonical(cls.Options.read({**options, **(method_options or {})}, method)),
        "network": Component(
            name=network, options=canonical(net.Options.read(network_options, network))
        ),
        "data": Component(name=data, options=canonical(chosen)),
        "data_id": source(chosen).data_id,
        "protocol": protocol(
            "matched", {"val_every": 10, "val_tasks": 20, **(protocol_options or {})}, "test"
        ),
        "way": way,
        "shot": 5 if way == 1 else 1,
        "query": 5,
        "steps": 30,
        "seed": 0,
        "evaluation": Evaluation(tasks=30, query=5),
    }
    return RunSpec.model_validate({**fields, **changes})


def graph_spec(method="gmeta", **changes) -> RunSpec:
    """A run of a few steps on the generated graph, with the protocol of the method's own row."""
    cls, net, source = (
        registry.method(method),
        registry.networks.get("gcn"),
        registry.datasets.get("sbm"),
    )
    own = {"inner_steps": 3, **changes.pop("method_options", {})}
    fields = {
        "method": method,
        "version": 1,
        "options": canonical(cls.Options.read(own, method)),
        "network": Component(
            name="gcn", options=canonical(net.Options.read(cls.network_defaults, "gcn"))
        ),
        "data": Component(name="sbm", options={"split": "r0"}),
        "data_id": source(source.Options()).data_id,
        "protocol": protocol("official", changes.pop("protocol_options", {}), "test", cls.recipe),
        "way": 2,
        "shot": 2,
        "query": 5,
        "steps": 40,
        "seed": 0,
        "evaluation": Evaluation(tasks=20, query=10),
    }
    return RunSpec.model_validate({**fields, **changes})
