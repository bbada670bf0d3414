"""How much work each run of a plan is: FLOPs counted on tensors without storage, bytes on disk."""

import json

from cml_bench import registry
from cml_bench.engine.build import build_data, build_method
from cml_bench.engine.flops import task_flops
from cml_bench.errors import UserError
from cml_bench.networks.base import count
from cml_bench.spec import RunSpec, canonical
from cml_bench.study.plan import Plan, Work


def add(plan: Plan) -> Plan:
    """The plan with the ``work`` of every run. Runs that differ in seed are counted once.

    A UserError names a run that cannot be: its network is built here, without data.
    """
    known: dict[str, Work] = {}
    runs = []
    for run in plan.runs:
        key = _kind(run.spec)
        if key not in known:
            try:
                known[key] = _work(run.spec)
            except UserError as error:
                raise UserError(f"study {plan.study.study}, {run.title}: {error}") from None
        runs.append(run.model_copy(update={"work": known[key]}))
    return plan.model_copy(update={"runs": tuple(runs)})


def _kind(spec: RunSpec) -> str:
    """What the work depends on: all of a run but its seed and its class split."""
    content = canonical(spec) | {
        "evaluation": spec.evaluation.model_dump(mode="json"),
        "seed": 0,
        "data_id": "",
    }
    options = {name: value for name, value in spec.data.options.items() if name != "split"}
    return json.dumps(
        content | {"data": {"name": spec.data.name, "options": options}}, sort_keys=True
    )


def _work(spec: RunSpec) -> Work:
    if not registry.method(spec.method).learns:
        return Work(steps=0, flops=0, bytes=2 * spec.evaluation.tasks)
    data = build_data(spec)
    method = build_method(spec, data, "plain")
    cost = task_flops(method, data, spec.way, spec.shot, spec.query)
    protocol, evaluation = spec.protocol, spec.evaluation
    test = (
        cost["adaptation"] * max(1, max(evaluation.inner_steps) / max(1, method.inner_steps))
        + cost["inference"]
    )
    validations = spec.steps // protocol.val_every + 1
    passes, readings = (3, 7) if "co" in method.heads else (2, 2)
    flops = spec.steps * protocol.meta_batch * cost["training"]
    flops += (validations * protocol.val_tasks + passes * evaluation.tasks) * test
    base = count(method.params)
    co = count(method.co.params) if "co" in method.heads else 0
    stored = protocol.ensemble_top_k * (1 + bool(co)) if protocol.ensemble_top_k > 1 else 0
    size = 4 * (
        2 * base + 2 * co + (stored + bool(co)) * (base + co)
    )  # model, last; best_co; ensembles
    size += (
        evaluation.tasks
        * readings
        * len(evaluation.inner_steps)
        * (2 if method.kind == "classification" else 4)
    )
    return Work(steps=spec.steps, flops=int(flops), bytes=size + 100 * validations)
