"""What a study costs before and between its trainings: imports, planning, Snakemake's graph,
starts, compiling.
"""

import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.measure import ROOT
from cml_bench.errors import UserError

DAG = "dry run of a study"
_STARTED = 4  # runs that are really started
_COMPILED = (  # the benchmark's first workload with 4 tasks
    "from benchmarks.ours import CompiledEngine; from benchmarks.problem import Problem; p ="
    " Problem(tasks=4, way=1, shot=10, query=10, inner_lr=0.01); CompiledEngine(p).step(p.task(0))"
)


def study(folder: Path, runs: int, runs_per_job: int = 1) -> list[str]:
    """Snakemake's arguments for a study of so many one-step sinusoid runs."""
    name = f"runs{runs}in{runs // runs_per_job}"
    experiment = {
        "data": "sinusoid",
        "network": "mlp",
        "way": 1,
        "shots": [5],
        "query": "shot",
        "steps": 1,
        "protocol": "matched",
        "protocol_options": {"val_tasks": 2},
        "evaluation": {"tasks": 2},
        "runs_per_job": runs_per_job,
        "methods": {"maml": {}},
    }
    content = {
        "study": name,
        "title": "Start-up",
        "summary": "Measured.",
        "seeds": runs,
        "results": str(folder / f"results-{name}"),
        "data_dir": str(folder / "data"),
        "experiments": {"e": experiment},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return ["-m", "snakemake", "--cores", "1", "--configfile", str(path)]


def timed(arguments: list[str], log: Path, **environment: str) -> tuple[float, float]:
    """Wall-clock and processor seconds of a Python process with its children. A UserError where it
    fails.
    """
    start = time.perf_counter()
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdout=out,
            stderr=out,
            env=os.environ | environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = log.read_text(encoding="utf-8")[-2000:]
        raise UserError(f"python {shlex.join(arguments)} ended with {process.returncode}:\n{said}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def measure(
    folder: Path,
    sizes: tuple[int, ...],
    repeats: int,
    rng: random.Random,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Rows of imports, dry runs of studies of ``sizes`` runs, and starts of runs; in random order,
    again and again.
    """
    from cml_bench.engine.compiled import available  # imports torch

    log = folder / "log"
    commands = {
        ("start-up", "python", 1): ["-c", "pass"],
        ("start-up", "import torch", 1): ["-c", "import torch"],
        ("start-up", "import cml_bench.study.plan", 1): ["-c", "import cml_bench.study.plan"],
        ("start-up", "import cml_bench.engine.train", 1): ["-c", "import cml_bench.engine.train"],
    }
    first = {}
    for runs in sizes:
        call = [*study(folder, runs), "--dry-run", "--quiet", "all"]
        first[runs] = timed(call, log)
        commands[DAG, "plan cached", runs] = call
    found: dict[tuple[str, str, int], list[tuple[float, float]]] = {key: [] for key in commands}
    for _ in range(repeats):
        order = list(commands)
        rng.shuffle(order)
        for key in order:
            found[key].append(timed(commands[key], log))
    for runs, took in first.items():
        found[DAG, "nothing cached", runs] = [took]
    for each, name in (
        (1, "a run of one step, with Snakemake"),
        (_STARTED, "the same, four runs in a job"),
    ):
        wall, processor = timed(
            [*study(folder, _STARTED, each), "--quiet", "all", "--", "trained"], log
        )
        found["start-up", name, _STARTED] = [(wall / _STARTED, processor / _STARTED)]
    for name in (
        ("a first compiled step", "a first compiled step, compiled before") if available() else ()
    ):
        took = timed(["-c", _COMPILED], log, TORCHINDUCTOR_CACHE_DIR=str(folder / "compiled"))
        found["start-up", name, 1] = [took]
    rows = []
    for (workload, name, runs), took in found.items():
        wall, processor = np.median(np.array(took), axis=0)
        row = {
            "workload": workload,
            "implementation": name,
            "seconds": round(wall, 3),
            "processor": round(processor, 3),
        }
        rows.append({**row, "axis": "runs", "value": runs, "blocks": len(took)})
        say(f"{workload}: {name}, {runs} runs: {wall:.2f} s (processor {processor:.2f})")
    return rows
