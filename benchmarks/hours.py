"""Hours of one GPU for each table of a study, from the measurements in ``benchmarks/results``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.gpu import WORKLOADS
from benchmarks.problem import Problem
from cml_bench.study import config, cost, work
from cml_bench.study.plan import Plan, PlannedRun, cached

ENGINE = "engine, captured"  # what `auto` takes on a GPU
STUDY = "configs/paper.yaml"
MEASURED = {"H100": "gpu_h100.json", "H200": "gpu.json"}  # by the name of the GPU

Rates = Mapping[tuple[str, bool], float]


def rates(results: Mapping[str, Any]) -> Rates:
    """FLOP/s of whole outer steps in float32, keyed as ``cost.GPU_FLOPS`` is.

    ``results``: the content of ``gpu.json``. Where several workloads have one key, this is their
    FLOPs over their seconds.
    """
    flops: dict[tuple[str, bool], float] = {}
    seconds: dict[tuple[str, bool], float] = {}
    for row in results["rows"]:
        timed = (row["implementation"], row["precision"], row["unit"])
        if timed == (ENGINE, "float32", "meta-step"):
            problem = Problem(**WORKLOADS[row["workload"]][0])
            key = (f"conv4 {problem.size}px", problem.inner_steps > 1)
            flops[key] = flops.get(key, 0) + problem.flops()
            seconds[key] = seconds.get(key, 0) + row["seconds"]
    return {key: flops[key] / seconds[key] for key in flops}


def waiting(plan: Plan) -> dict[str, int]:
    """Data set -> its runs that a first start leaves out: its terms are to be acknowledged, or a
    file is to be fetched by hand. Data that is already here changes nothing.
    """
    names = {
        item.data_id: item.name
        for item in plan.data
        if item.prepares and (item.terms or any(file.manual for file in item.files))
    }
    found = dict.fromkeys(names.values(), 0)
    for run in plan.runs:
        if name := names.get(run.spec.data_id):
            found[name] += 1
    return found


def paper(folder: Path) -> str:
    """The table of the paper's grid. ``folder`` holds the results; the working folder is the
    repository's, and counting the FLOPs of all kinds of runs takes a minute.
    """
    plan = work.counted(cached(config.merged([STUDY]), STUDY))
    measured = {
        gpu: json.loads((folder / name).read_text(encoding="utf-8"))
        for gpu, name in MEASURED.items()
    }
    return table(plan, measured)


def table(plan: Plan, measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a line for each table of a plan whose work is counted.

    ``measured``: the name of each GPU, and the content of its file of results. A run that several
    tables share counts in each of them, and once in all.
    """
    by_gpu = {name: rates(results) for name, results in measured.items()}
    waits, runs = waiting(plan), {run.id: run for run in plan.runs}
    rows = []
    for key, ids in {**cost.runs_by_table(plan), "all": set(runs)}.items():
        chosen = [runs[i] for i in sorted(ids)]
        left = sum(run.spec.data.name in waits for run in chosen)
        on_gpu = [run for run in chosen if run.gpu]
        told = [_hours(on_gpu, flops) for flops in by_gpu.values()]
        rows.append(
            [f"`{key}`", str(len(chosen)), str(left or "–"), str(len(on_gpu) or "–"), *told]
        )
    head = ["table", "runs", "left out at first", "on a GPU", *(f"hours, {n}" for n in by_gpu)]
    return tabulate(
        rows, head, "pipe", disable_numparse=True, colalign=["left"] + ["right"] * (len(head) - 1)
    )


def _hours(runs: list[PlannedRun], flops: Rates) -> str:
    """``208``; with ``~`` where nothing was timed whose rate holds for some of the runs."""
    if not runs:
        return "–"
    guessed = any(cost.timed_on_gpu(run) not in flops for run in runs)
    return f"{'~' * guessed}{cost.gpu_hours(runs, flops):,.0f}"
