"""What stands before a start: what a plan costs, what cannot run and why. Imports no torch.

Hours are estimates from counted FLOPs and two round rates that were measured on one core of a slow
server CPU and assumed for a GPU; the text says so. They tell hours from weeks, no more.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from cml_bench.data import prepared
from cml_bench.errors import UserError
from cml_bench.records import Store, untestable
from cml_bench.study.config import Study
from cml_bench.study.plan import Plan, PlannedData, PlannedRun

CPU_FLOPS, CPU_STEP = (
    40e9,
    0.0015,
)  # one core: FLOP/s of Conv4's outer step; seconds to start a small network's step
GPU_FLOPS, GPU_STEP = 2e12, 0.01  # assumed


def blocked(plan: Plan) -> dict[str, str]:
    """data id -> why its runs cannot start now: terms not acknowledged, or a file that a person
    must fetch.
    """
    study, found = plan.study, {}
    folder = Path(study.data_dir)
    for item in plan.data:
        if not item.prepares or _prepared(study, folder, item):
            continue
        name, own = item.name, study.sources.get(item.name, {})
        if item.terms and name not in study.acknowledged:
            found[item.data_id] = (
                f"the terms of use of {name} are not acknowledged: read {item.terms}, then add"
                f" {name} to `acknowledged` in the configuration"
            )
            continue
        by_hand = [file for file in item.files if file.manual and file.name not in own]
        for file in by_hand:
            place = folder / "downloads" / item.store / file.name
            if not place.exists():
                found[item.data_id] = (
                    f"{file.name} of {name} must be fetched by hand: get it from {file.page} and"
                    f" put it at {place}, or name your copy under `sources` in the configuration"
                )
    return found


def own_digests(study: Study, name: str) -> dict[str, str]:
    """SHA-256 of the user's own copies of a data set's files, by file name."""
    return {file: copy.sha256 for file, copy in study.sources.get(name, {}).items()}


def _prepared(study: Study, folder: Path, item: PlannedData) -> bool:
    """Whether arrays are there that were made from the files that the study asks for; no others
    will do.
    """
    index = prepared.index(folder, item.data_id)
    return prepared.is_wanted(index, item.published, own_digests(study, item.name))


def other_data(plan: Plan, folder: Path | None = None) -> list[PlannedData]:
    """Items of the plan's ``data`` whose arrays are there, but made from other files than the study
    asks for.
    """
    study = plan.study
    folder = folder or Path(study.data_dir)
    there = [item for item in plan.data if item.prepares and prepared.index(folder, item.data_id)]
    return [item for item in there if not _prepared(study, folder, item)]


def refuse_other_data(plan: Plan, folder: Path, data_ids: set[str]) -> None:
    """A UserError if one of these is :func:`other_data`: another study may have prepared it anew in
    the meantime.
    """
    for item in other_data(plan, folder):
        if item.data_id in data_ids:
            raise UserError(
                f"the prepared data in {prepared.home(folder, item.data_id)} was made from other"
                f" files than the study {plan.study.study} asks for (`sources`, or the published"
                " ones). Start the study again, which prepares it anew; studies on different"
                " copies of it need a `data_dir` each."
            )


def told_of_data(plan: Plan) -> list[str]:
    """Lines about prepared data that is not the published one, or not the one that is asked for."""
    lines = []
    others = [item.data_id for item in other_data(plan)]
    for item in plan.data:
        differs = prepared.index(plan.study.data_dir, item.data_id).get("differs")
        if item.data_id in others:
            lines.append(
                f"{item.data_id}: what is prepared was made from other files and is not taken"
            )
        elif differs:
            lines.append(f"{item.data_id}: {differs}")
    return lines


def not_run(plan: Plan) -> dict[str, str]:
    """run id -> the reason of :func:`blocked`."""
    reasons = blocked(plan)
    return {run.id: reasons[run.spec.data_id] for run in plan.runs if run.spec.data_id in reasons}


def lost(plan: Plan, results: Path | None = None) -> dict[str, str]:
    """run id -> the reason of :func:`not_run`, or why its record cannot be tested as the study
    asks.
    """
    store, found = Store(results or plan.study.results), {}
    for run in plan.runs:
        folder = store.runs / run.folder
        if (folder / "record.json").exists() and not (folder / "model.safetensors").exists():
            with contextlib.suppress(UserError):  # damaged: `status` and the job itself say so
                if reason := untestable(store.read(run.spec), run.spec.evaluation):
                    found[run.id] = reason
    return not_run(plan) | found


def without_stamp(plan: Plan) -> set[str]:
    """Keys of prepared data that has no stamp and can get none, in a folder of others, say. Nothing
    is to be done.
    """
    study, folder = plan.study, Path(plan.study.data_dir)
    if os.access(folder, os.W_OK):
        return set()
    items = [item for item in plan.data if not (folder / "ready" / f"{item.key}.json").exists()]
    return {item.key for item in items if _prepared(study, folder, item)}


def lost_jobs(plan: Plan) -> set[str]:
    """Jobs that have a stamp, and whose runs are not all stored: a folder that was moved away is to
    be trained anew.
    """
    results = Path(plan.study.results)
    there = {
        run.id for run in plan.runs if (results / "runs" / run.folder / "record.json").exists()
    }
    stamped = [job for job in plan.jobs if (results / "done" / f"{job.id}.json").exists()]
    return {job.id for job in stamped if not there.issuperset(job.runs)}


class Rates(NamedTuple):
    """Measured FLOP/s of outer steps on a device, by :func:`workload`; see calibrate.py."""

    device: str
    gpu: bool
    seconds: float
    flops: dict[str, float]


def workload(run: PlannedRun) -> str:
    """``conv4 84px``: what a measured rate is valid for."""
    sizes = [part for part in run.spec.data_id.split("/") if part.endswith("px")]
    return " ".join([run.spec.network.name, *sizes])


def hours(runs: Sequence[PlannedRun], gpu: bool, rates: Rates | None = None) -> float:
    """Hours of one core, or of one GPU for the runs that gain by it; from measured rates where
    there are some.
    """
    seconds = 0.0
    for run in runs:
        flops, steps = run.work.flops, run.work.steps
        if rates and run.gpu and workload(run) in rates.flops:
            seconds += flops / rates.flops[workload(run)]
            continue
        fast = gpu and run.gpu
        seconds += flops / (GPU_FLOPS if fast else CPU_FLOPS) + steps * (
            GPU_STEP if fast else CPU_STEP
        )
    return seconds / 3600


def downloads(plan: Plan, data_ids: set[str] | None = None) -> int:
    """Bytes that must still be fetched, for all data sets or for some."""
    folder, missing = Path(plan.study.data_dir), {}
    for item in plan.data:
        if _prepared(plan.study, folder, item) or (
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
    found: dict[str, set[str]] = {key: set() for key in plan.tables}
    for cell in plan.cells:
        found[cell.table].update(cell.needs)
    return found


def shared_runs(plan: Plan) -> set[str]:
    """Runs that stand in more than one table."""
    counts = Counter(run for runs in runs_by_table(plan).values() for run in runs)
    return {run for run, count in counts.items() if count > 1}


def summary(plan: Plan, gpus: int = 0, rates: Rates | None = None) -> str:
    """For people: runs, hours, disk, downloads of every table and of all, and what will not run."""
    study, runs, unable = plan.study, plan.runs, lost(plan)
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
        (
            f"estimated, for the {len(able)} runs that can start now: {_hours(able, gpus, rates)};"
            f" disk {_bytes(sum(run.work.bytes for run in able))}; downloads"
            f" {_bytes(downloads(plan))} (data:"
            f" {', '.join(dict.fromkeys(item.name for item in plan.data))})"
        ),
    ]
    return "\n".join([*lines, *told_of_data(plan), *told_of_lost(unable)])


def told_of_lost(unable: dict[str, str]) -> list[str]:
    """How many runs cannot start for each reason of :func:`lost`."""
    return [
        f"not run, {count} runs: {reason}" for reason, count in Counter(unable.values()).items()
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
                f"{hours(runs, gpu, rates):,.1f}",
                _bytes(sum(run.work.bytes for run in runs)),
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


def _hours(runs: Sequence[PlannedRun], gpus: int, rates: Rates | None = None) -> str:
    on_gpu = [run for run in runs if run.gpu and gpus]
    on_cpu = [run for run in runs if not (run.gpu and gpus)]
    parts = [f"{hours(on_gpu, True, rates):,.1f} h of one GPU"] if on_gpu else []
    parts += [f"{hours(on_cpu, False, rates):,.1f} h of one CPU core"] if on_cpu else []
    how = f"from FLOPs at {CPU_FLOPS:.0e}/s a core, {GPU_FLOPS:.0e}/s a GPU"
    if rates:
        found = ", ".join(f"{key} {value / 1e9:,.0f}" for key, value in rates.flops.items())
        how = (
            f"measured in {rates.seconds:.0f} s on {rates.device}, GFLOP/s:"
            f" {found or 'nothing that gains by a GPU'}"
        )
    return f"{' and '.join(parts) or '0 h'} ({how})"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def refusal(plan: Plan) -> str:
    """Why a study that expects a GPU does not start without one, and what to do instead: one
    paragraph.
    """
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
