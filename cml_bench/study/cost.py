"""What a study costs: hours, disk and downloads of its tables. Imports no torch.

Hours are counted FLOPs divided by a round rate. The rate of a core was measured on a slow server
CPU, those of a GPU on an H100, and the text says so. Such hours tell hours from weeks, no more.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from cml_bench.records import Store
from cml_bench.study import likes, preflight, selection, targets, work
from cml_bench.study.plan import Plan, PlannedRun, Work

# Of one core: FLOP/s of Conv4's outer step, and seconds that any step takes at least.
CPU_FLOPS, CPU_STEP = 40e9, 0.0015
# Of one GPU, by workload and whether there are several inner steps: FLOP/s of whole outer steps on
# the slower GPU of benchmarks/results, an H100. The rest were not timed and take the slowest rate.
GPU_FLOPS = {
    ("conv4 84px", False): 10.7e12,
    ("conv4 84px", True): 5.8e12,
    ("conv4 28px", False): 3.9e12,
    ("conv4 28px", True): 2.1e12,
}


class Rates(NamedTuple):
    """Measured FLOP/s of outer steps on a device, by :func:`workload`; see calibrate.py."""

    device: str
    gpu: bool
    seconds: float
    flops: dict[str, float]


def workload(run: PlannedRun) -> str:
    """``conv4 84px``: what a measured rate is valid for."""
    sizes = [part for part in run.spec.data_id.split("/") if part.endswith("px")]
    assert run.spec.network is not None, "only runs that learn gain by a GPU"
    return " ".join([run.spec.network.name, *sizes])


def _work(run: PlannedRun) -> Work:
    assert run.work is not None, "the plan has been through work.counted or estimate.add"
    return run.work


def timed_on_gpu(run: PlannedRun) -> tuple[str, bool]:
    """What a rate of ``GPU_FLOPS`` is valid for. Inner steps follow each other, so a step with
    several of them keeps a GPU less busy.
    """
    return workload(run), run.spec.inner_steps > 1


def gpu_hours(runs: Sequence[PlannedRun], flops: Mapping[tuple[str, bool], float]) -> float:
    """Hours of one GPU at these rates in FLOP/s, which are keyed as ``GPU_FLOPS`` is."""

    def rate(run: PlannedRun) -> float:
        timed = timed_on_gpu(run)
        return flops.get(timed) or min(value for key, value in flops.items() if key[1] == timed[1])

    return sum(_work(run).flops / rate(run) for run in runs) / 3600


def hours(runs: Sequence[PlannedRun], gpu: bool, rates: Rates | None = None) -> float:
    """Hours of one core, or of one GPU for the runs that gain by it. Measured rates count first."""
    seconds = 0.0
    for run in runs:
        flops, steps = _work(run).flops, _work(run).steps
        if rates and run.gpu and workload(run) in rates.flops:
            seconds += flops / rates.flops[workload(run)]
            continue
        if gpu and run.gpu:
            seconds += 3600 * gpu_hours([run], GPU_FLOPS)
        else:
            seconds += flops / CPU_FLOPS + steps * CPU_STEP
    return seconds / 3600


def is_worth_timing(plan: Plan, gpu: bool) -> bool:
    """Whether timing this device would tell more than the round rates do.

    It would not for a study that ends within the hour, nor for networks that are not timed.
    """
    timed = any(run.gpu for run in plan.runs)
    return timed and hours(plan.runs, gpu) >= 1


def downloads(plan: Plan, data_ids: set[str] | None = None) -> int:
    """Bytes that must still be fetched, for all data sets or for some."""
    folder, missing = Path(plan.study.data_dir), dict[Path, int]()
    for item in plan.data:
        if preflight.is_prepared(plan.study, folder, item) or (
            data_ids is not None and item.data_id not in data_ids
        ):
            continue
        own = plan.study.sources.get(item.name, {})
        for file in item.files:
            place = folder / "downloads" / item.store / file.name
            if not (file.manual or place.exists() or (file.name in own and own[file.name].path)):
                missing[place] = file.size  # by place, since two sets may be made from one file
    return sum(missing.values())


def runs_by_table(plan: Plan) -> dict[str, set[str]]:
    """Table key -> ids of the runs that it needs."""
    runs: dict[str, set[str]] = {key: set() for key in plan.tables}
    for cell in plan.cells:
        runs[cell.table].update(cell.needs)
    return runs


def shared_runs(plan: Plan) -> set[str]:
    """Runs that stand in more than one table."""
    counts = Counter(run for runs in runs_by_table(plan).values() for run in runs)
    return {run for run, count in counts.items() if count > 1}


def summary(plan: Plan, gpus: int = 0, rates: Rates | None = None) -> str:
    """For people: runs, hours, disk, downloads of every table and of all, and what will not run."""
    plan = work.counted(plan)
    study, runs, unable = plan.study, plan.runs, preflight.lost(plan)
    able = [run for run in runs if run.id not in unable]
    seeds = ", ".join(map(str, study.seeds))
    lines = [
        (
            f"study {study.study}: {len(runs)} runs in {len(plan.jobs)} jobs, "
            f"{sum(run.spec.steps for run in runs):,} outer steps, seeds {seeds}"
        ),
        (
            f"tables: {', '.join(plan.tables) or 'none'}; figures:"
            f" {', '.join(plan.figures) or 'none'}; {len(plan.cells)} cells;"
            f" {len(shared_runs(plan))} runs shared between tables"
        ),
        *_table_lines(plan, gpus > 0, rates),
        *likes.told(plan),
        *_sweep_lines(plan, gpus, rates),
        (
            f"estimated, for the {len(able)} runs that can start now: {_hours(able, gpus, rates)};"
            f" disk {_bytes(sum(_work(run).bytes for run in able))}; downloads"
            f" {_bytes(downloads(plan))} (data:"
            f" {', '.join(dict.fromkeys(item.name for item in plan.data))})"
        ),
    ]
    lines += _already_there(plan, able, gpus, rates)
    return "\n".join([*lines, *preflight.told_of_data(plan), *preflight.told_of_lost(unable)])


def _sweep_lines(plan: Plan, gpus: int, rates: Rates | None) -> list[str]:
    """The budget of each sweep, and what is to follow when its setting is selected."""
    if plan.whole is None:
        return []
    lines = []
    for one in selection.selections(plan, Store(plan.study.results)):
        lines.append(f"{selection.budget(one.sweep)}; {selection.outcome(one)}")
    first = {run for sweep in plan.sweeps for run in sweep.settings[0].tuned}
    waiting = first - plan.specs.keys()
    if waiting and not any(selection.sweeps_of(plan, k) for m in plan.members.values() for k in m):
        more = work.counted(targets.with_runs(plan.whole, first))
        later = [run for run in more.runs if run.id not in plan.specs]
        lines.append(
            f"to follow, of selected settings: up to {len(first)} runs; as the first of each:"
            f" {_hours(later, gpus, rates)}"
        )
    return lines


def _already_there(
    plan: Plan, able: Sequence[PlannedRun], gpus: int, rates: Rates | None
) -> list[str]:
    """How many runs have a record, by this study or by others, and what the rest takes."""
    folder = Path(plan.study.results) / "runs"
    left = [run for run in able if not (folder / run.folder / "record.json").exists()]
    if len(left) == len(able):
        return []
    return [
        f"already there: {len(able) - len(left)} of these runs; the other {len(left)} take"
        f" {_hours(left, gpus, rates)}"
    ]


def _table_lines(plan: Plan, gpu: bool, rates: Rates | None) -> list[str]:
    by_id, shared = {run.id: run for run in plan.runs}, shared_runs(plan)
    rows = []
    tables = runs_by_table(plan)
    for key, ids in {**tables, "all": set(by_id)}.items() if tables else ():
        runs = [by_id[i] for i in sorted(ids)]
        data = {run.spec.data_id for run in runs}
        rows.append(
            [
                key,
                len(runs),
                len(ids & shared),
                _number(hours(runs, gpu, rates)),
                _bytes(sum(_work(run).bytes for run in runs)),
                _bytes(downloads(plan, data)),
            ]
        )
    if not rows:
        return []
    unit = "GPU hours" if gpu else "core hours"
    header = ["table", "runs", "of them shared", unit, "disk", "downloads"]
    return [
        "",
        *tabulate(
            rows, header, "simple", disable_numparse=True, colalign=["left", *["right"] * 5]
        ).split("\n"),
        "",
    ]


def _number(hours: float) -> str:
    """``1,203.4`` from an hour on, ``0.21`` below."""
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"


def _long(hours: float) -> str:
    """``1,203.4 h`` from an hour on, ``13 min`` below."""
    return f"{hours:,.1f} h" if hours >= 1 else f"{math.ceil(60 * hours)} min"


def _hours(runs: Sequence[PlannedRun], gpus: int, rates: Rates | None = None) -> str:
    on_gpu = [run for run in runs if run.gpu and gpus]
    on_cpu = [run for run in runs if not (run.gpu and gpus)]
    parts = [f"{_long(hours(on_gpu, True, rates))} of one GPU"] if on_gpu else []
    parts += [f"{_long(hours(on_cpu, False, rates))} of one CPU core"] if on_cpu else []
    how = f"from FLOPs at {CPU_FLOPS:.0e}/s a core"
    if on_gpu:
        how += f", {min(GPU_FLOPS.values()):.1e} to {max(GPU_FLOPS.values()):.1e}/s a GPU, an H100"
    if rates:
        each = ", ".join(f"{key} {value / 1e9:,.0f}" for key, value in rates.flops.items())
        how = (
            f"measured in {rates.seconds:.0f} s on {rates.device}, GFLOP/s:"
            f" {each or 'nothing that gains by a GPU'}"
        )
    return f"{' and '.join(parts) or '0 h'} ({how})"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def refusal(plan: Plan) -> str:
    """Why a study that expects a GPU does not start without one, and what to do instead."""
    plan = work.counted(plan)
    study = plan.study
    small = [key for key in [*plan.tables, *plan.figures] if not _needs_gpu(plan, key)]
    targets = (
        f"the smaller targets that a CPU finishes (snakemake --cores N {' or '.join(small)}), "
        if small
        else ""
    )
    return (
        f"no GPU is visible, and the study {study.study} expects one: {_hours(plan.runs, 0)} on a"
        f" CPU. Choose `make demo` (minutes, embedded data), {targets}or `--config allow_cpu=1` to"
        " run everything on the CPU all the same. `python -m cml_bench plan --config FILE` shows"
        " what each table costs."
    )


def _needs_gpu(plan: Plan, key: str) -> bool:
    figure = plan.figures.get(key)
    names = (
        [figure.experiment] if figure else [group.experiment for group in plan.tables[key].columns]
    )
    ids = {
        i
        for name in names
        for shots in plan.members[name].values()
        for runs in shots.values()
        for i in runs
    }
    return any(run.gpu for run in plan.runs if run.id in ids)
