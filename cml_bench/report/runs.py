"""What a study's runs cost, which they are, and which failed: for the page. Imports no torch."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from cml_bench import texts, titles
from cml_bench.evidence import frames
from cml_bench.records import Record
from cml_bench.report.grids import DASH, Grid
from cml_bench.report.learning import experiments, labels
from cml_bench.study.plan import Plan
from cml_bench.study.status import State

_LOG_LINES = 20


def costs(plan: Plan, records: dict[str, Record]) -> Grid:
    """A line for each method, experiment and shot: means over its runs."""
    header = [
        "method",
        "experiment",
        "shots",
        "runs",
        "training, s a run",
        "validation, %",
        "test, %",
        "training, MFLOP a task",
        "training, TFLOP a run",
        "parameters",
        "peak memory, MB",
    ]
    names, named, rows = labels(plan), experiments(plan), []
    for name, methods in plan.members.items():
        for key, by_shot in methods.items():
            for shot, ids in sorted(by_shot.items()):
                here = [records[i] for i in ids if i in records]
                if here:
                    rows.append([names[name, key], named[name], str(shot), *_cost(here)])
    return Grid("Cost of each method, mean over its runs; memory: the largest", header, rows, set())


def _cost(records: list[Record]) -> list[str]:
    seconds = [record.seconds.parts() for record in records]
    total = sum(sum(parts.values()) for parts in seconds)
    shares = [
        100 * sum(parts.get(name, 0.0) for parts in seconds) / total if total else math.nan
        for name in ("validation", "test")
    ]
    task = [record.flops.training for record in records]
    run = [r.flops.training * _steps_made(r) * r.spec.protocol.meta_batch for r in records]
    memory = [math.nan if r.memory is None else r.memory.peak for r in records]
    of = sorted({record.memory.of for record in records if record.memory})
    peak = _plain(float(np.max(memory)) / 1e6, 0)  # nan if one run does not say
    return [
        str(len(records)),
        _plain(float(np.mean([record.seconds.train for record in records])), 1),
        *(_plain(share, 1) for share in shares),
        _plain(float(np.mean(task)) / 1e6, 1),
        _plain(float(np.mean(run)) / 1e12, 2),
        f"{max(record.parameters.train for record in records):,}",
        peak if peak == DASH else f"{peak} ({', '.join(of)})",
    ]


def _steps_made(record: Record) -> int:
    """Outer steps that were made; those asked for where the record has no curves."""
    made = record.curves.trained
    return record.spec.steps if made is None else made


def _plain(value: float, digits: int) -> str:
    return DASH if math.isnan(value) else f"{value:,.{digits}f}"


FAILED = ("diverged", "collapsed", "failed", "interrupted")


def failure(state: State, folder: Path) -> dict[str, Any]:
    """What is known of a run that did not finish: its state, and the last lines of its logs."""
    logs = []
    for name in ("error.log", "run.log"):
        if (folder / name).exists():
            lines = (
                (folder / name).read_text(errors="replace", encoding="utf-8").rstrip().splitlines()
            )
            logs.append((name, texts.controls_escaped("\n".join(lines[-_LOG_LINES:])), len(lines)))
    return {
        "title": titles.within(state.title),
        "state": state.state,
        "more": state.more,
        "folder": folder.name,
        "logs": logs,
    }


def listed(records: dict[str, Record]) -> Grid:
    header = ["run", "method", "data", "shots", "seed", "outer steps", "status", "training, s"]
    rows = []
    for record in records.values():
        s = record.spec
        rows.append(
            [
                record.folder.name,
                titles.of(s.method),
                titles.of(s.data.name) + s.data_id.removeprefix(s.data.name),
                str(s.shot),
                str(s.seed),
                f"{s.steps:,}",
                record.status,
                f"{record.seconds.train:,.1f}",
            ]
        )
    return Grid("All runs", header, rows, set())


def csv(records: dict[str, Record]) -> str:
    """All records as one CSV: the frame that ``cml_bench.load_records`` gives of them, with the
    names of the runs' folders.
    """
    frame = frames.of(records.values())
    frame["folder"] = [Path(folder).name for folder in frame["folder"]]
    return frame.to_csv(index=False, float_format="%.8g")
