"""How fast this device trains: it is timed on random data, so that a plan can say hours."""

import time
from collections.abc import Callable

import torch

from cml_bench import registry
from cml_bench.data.base import DataSet
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.build import STEPS, build_data, build_method, choose_path
from cml_bench.engine.device import resolve_device
from cml_bench.engine.flops import task_flops
from cml_bench.engine.precision import computing, dtype_of
from cml_bench.engine.step import adam, leaves
from cml_bench.spec import RunSpec
from cml_bench.study.cost import Rates, workload
from cml_bench.study.plan import Plan
from cml_bench.study.schema import Study
from cml_bench.system.hardware import processor

_LEAST_STEPS = 2


def rates(
    plan: Plan,
    seconds: float,
    device: str = "auto",
    report: Callable[[str], None] = lambda text: None,
) -> Rates:
    """FLOP/s of outer steps on ``device``, by network and size of its inputs.

    This takes about ``seconds`` in all; ``report`` gets a line before, and one for each rate. Of
    each such workload the plan's commonest method is timed, which is MAML or its +CML version in
    every table, and the rate serves the others. Networks that spend their time on starting
    operations are left out (see ``Network.small``).
    """
    name = resolve_device(device)
    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    title = (
        torch.cuda.get_device_name(name)
        if name.startswith("cuda")
        else f"one core of {processor()}"
    )
    chosen = _commonest(plan)
    if chosen:
        report(
            f"timing outer steps on {title} for about {seconds:.0f} s, to tell hours"
            " (--calibrate 0: no timing)"
        )
    start, measured, threads = time.perf_counter(), {}, torch.get_num_threads()
    torch.set_num_threads(1)  # as a training has; two that wait for each other are slower than one
    try:
        for key, spec in chosen.items():
            with computing(spec.precision, name):
                measured[key] = _flops_per_second(
                    spec, torch.device(name), seconds / len(chosen), plan.study
                )
            report(f"  {key}: {measured[key] / 1e9:,.0f} GFLOP/s")
    finally:
        torch.set_num_threads(threads)
    return Rates(title, name.startswith("cuda"), time.perf_counter() - start, measured)


def _commonest(plan: Plan) -> dict[str, RunSpec]:
    """A run of the commonest method, by workload."""
    counted: dict[str, dict[str, list[RunSpec]]] = {}
    for run in plan.runs:
        if run.gpu:
            counted.setdefault(workload(run), {}).setdefault(run.spec.method, []).append(run.spec)
    return {key: max(by_method.values(), key=len)[0] for key, by_method in counted.items()}


def _flops_per_second(spec: RunSpec, device: torch.device, seconds: float, study: Study) -> float:
    assert spec.network is not None  # else the run would not gain by a GPU
    source, dtype = build_data(spec), dtype_of(spec.precision)
    path = choose_path(study.engine, spec, registry.networks.get(spec.network.name), device)
    method = build_method(spec, source, path)
    groups = leaves(method.init(0), device, dtype)
    tasks = spec.protocol.meta_batch
    at_once = study.tasks_at_once or method.network.tasks_at_once(device)
    step = STEPS[path](method, groups, adam(groups, 0.0), at_once)
    batch = Task(
        *(_random(source, tasks, spec.way, each, device) for each in (spec.shot, spec.query))
    )
    flops = (
        tasks
        * task_flops(build_method(spec, source, "plain"), source, spec.way, spec.shot, spec.query)[
            "training"
        ]
    )
    step(batch)  # first calls choose algorithms and fill caches
    done, start = 0, _now(device)
    while done < _LEAST_STEPS or _now(device) - start < 0.7 * seconds:
        step(batch)
        done += 1
    return flops * done / (_now(device) - start)


def _random(source: DataSet, tasks: int, way: int, each: int, device: torch.device) -> Examples:
    x = torch.rand(tasks, way * each, *source.input_shape, device=device)
    return Examples(x, torch.arange(way, device=device).repeat_interleave(each).expand(tasks, -1))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
