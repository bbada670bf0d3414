"""How much work each run of a plan is: FLOPs counted on tensors without storage, bytes on disk."""

import json
from typing import Any

from cml_bench import registry
from cml_bench.engine.flops import task_flops
from cml_bench.engine.train import build_data, build_method
from cml_bench.errors import UserError
from cml_bench.networks.base import count
from cml_bench.spec import RunSpec


def add(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan with ``work`` (steps, flops, bytes) for every run. Runs that differ in seed are counted once.

    A UserError names a run that cannot be: its network is built here, without data.
    """
    known: dict[str, dict[str, Any]] = {}
    for run in plan["runs"]:
        spec = {**run["spec"], "seed": 0, "data_id": ""}  # neither which seed nor which class split changes the work
        options = {name: value for name, value in spec["data"]["options"].items() if name != "split"}
        key = json.dumps({**spec, "data": {**spec["data"], "options": options}}, sort_keys=True)
        if key not in known:
            try:
                known[key] = _work(RunSpec.model_validate(run["spec"]))
            except UserError as error:
                raise UserError(f"study {plan['study']['study']}, {run['title']}: {error}") from None
        run["work"] = known[key]
    return plan


def _work(spec: RunSpec) -> dict[str, Any]:
    if not registry.method(spec.method).learns:
        return {"steps": 0, "flops": 0, "bytes": 2 * spec.evaluation.tasks}
    data = build_data(spec)
    method = build_method(spec, data, "plain")
    cost = task_flops(method, data, spec.way, spec.shot, spec.query)
    protocol, evaluation = spec.protocol, spec.evaluation
    test = cost["adaptation"] * max(1, max(evaluation.inner_steps) / max(1, method.inner_steps)) + cost["inference"]
    validations = spec.steps // protocol.val_every + 1
    passes, readings = (3, 7) if "co" in method.heads else (2, 2)
    flops = spec.steps * protocol.meta_batch * cost["training"]
    flops += (validations * protocol.val_tasks + passes * evaluation.tasks) * test
    base = count(method.params)
    co = count(method.co.params) if "co" in method.heads else 0
    stored = protocol.ensemble_top_k * (1 + bool(co)) if protocol.ensemble_top_k > 1 else 0
    size = 4 * (2 * base + 2 * co + (stored + bool(co)) * (base + co))  # model, last; best_co; ensembles
    size += evaluation.tasks * readings * len(evaluation.inner_steps) * (2 if method.kind == "classification" else 4)
    return {"steps": spec.steps, "flops": int(flops), "bytes": size + 100 * validations}
