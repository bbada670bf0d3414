"""What a study costs before and between its trainings: imports, planning, Snakemake's graph, the
start of a run, the compiling of a step.
"""

import os
import random
import shlex
import shutil
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

START_UP, DAG = "start-up", "dry run of a study"
_STARTED = 4  # runs that are really started
_IMPORTS = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import cml_bench.study.plan": ["-c", "import cml_bench.study.plan"],
    "import cml_bench.engine.train": ["-c", "import cml_bench.engine.train"],
}
_PLAN = (  # what every command does with --config, and Snakemake before it draws its graph
    "import sys; from pathlib import Path; from cml_bench.study import config, plan;"
    " plan.cached(config.merged([Path(name) for name in sys.argv[1:]]), 'the study')"
)
_COMPILED = (  # the benchmark's first workload with 4 tasks
    "from benchmarks.ours import CompiledEngine; from benchmarks.problem import Problem; p ="
    " Problem(tasks=4, way=1, shot=10, query=10, inner_lr=0.01); CompiledEngine(p).step(p.task(0))"
)

Row = tuple[str, str, int | None]  # workload, implementation, number of runs if it is of several
Took = tuple[float, float]  # seconds of wall-clock and of processor


def measure(
    folder: Path,
    config: Path,
    sizes: tuple[int, ...],
    repeats: int,
    rng: random.Random,
    say: Callable[[str], None],
    compiling: bool = True,
) -> list[dict[str, Any]]:
    """Rows of imports, dry runs, planning, starts of runs and, if asked for, ``compiling``.

    Dry runs are of studies of ``sizes`` runs, and ``config`` is what is planned. Imports, dry runs
    and planning are timed ``repeats`` times, each time in a random order; the rest is timed once.
    """
    log = folder / "log"
    commands: dict[Row, list[str]] = {
        (START_UP, name, 1): arguments for name, arguments in _IMPORTS.items()
    }
    first: dict[Row, list[Took]] = {}
    for runs in sizes:
        call = _dry(study(folder, runs))
        first[DAG, "nothing cached", runs] = [timed(call, log)]
        commands[DAG, "plan cached", runs] = call
    times = _in_turns(commands, repeats, rng, log) | first
    times |= _planning(folder, config, repeats, rng, log)
    times |= _starts(folder, log) | (_compiling(folder, log) if compiling else {})
    return [_row(key, took, say) for key, took in times.items()]


def study(folder: Path, runs: int, runs_per_job: int = 1) -> list[str]:
    """Snakemake's arguments for a study of ``runs`` sinusoid runs of one step each."""
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


def planned(folder: Path, config: Path) -> dict[str, list[str]]:
    """Commands that plan a study with results and data in ``folder``, by what they are for."""
    paths = folder / "planned.yaml"
    told = {"results": str(folder / "planned"), "data_dir": str(folder / "data")}
    paths.write_text(yaml.safe_dump(told), encoding="utf-8")
    files = [str(config), str(paths)]
    return {
        "plan": ["-c", _PLAN, *files],
        "dry run": _dry(["-m", "snakemake", "--cores", "1", "--configfile", *files]),
        "plan with hours": ["-m", "cml_bench", "plan", "--calibrate", "0", "--config", *files],
    }


def _dry(snakemake: list[str]) -> list[str]:
    return [*snakemake, "--dry-run", "--quiet", "all"]


def timed(arguments: list[str], log: Path, **environment: str) -> Took:
    """Wall-clock and processor seconds of a Python process with its children.

    A UserError, with the end of its output, if the process fails.
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


def _in_turns(
    commands: dict[Row, list[str]], repeats: int, rng: random.Random, log: Path
) -> dict[Row, list[Took]]:
    """Time all commands once in a random order, and that ``repeats`` times."""
    times: dict[Row, list[Took]] = {key: [] for key in commands}
    for _ in range(repeats):
        order = list(commands)
        rng.shuffle(order)
        for key in order:
            times[key].append(timed(commands[key], log))
    return times


def _planning(
    folder: Path, config: Path, repeats: int, rng: random.Random, log: Path
) -> dict[Row, list[Took]]:
    """Time each command of :func:`planned` with nothing kept (cold), and at once again (warm)."""
    commands, workload = planned(folder, config), f"planning {config.name}"
    times: dict[Row, list[Took]] = {
        (workload, f"{name}, {state}", None): [] for name in commands for state in ("cold", "warm")
    }
    for _ in range(repeats):
        order = list(commands)
        rng.shuffle(order)
        for name in order:
            shutil.rmtree(folder / "planned", ignore_errors=True)
            for state in ("cold", "warm"):
                times[workload, f"{name}, {state}", None].append(timed(commands[name], log))
    return times


def _starts(folder: Path, log: Path) -> dict[Row, list[Took]]:
    """Seconds per run of one step with Snakemake: each run in its own job, and all in one job."""
    times: dict[Row, list[Took]] = {}
    for each, name in (
        (1, "a run of one step, with Snakemake"),
        (_STARTED, "the same, four runs in a job"),
    ):
        wall, processor = timed(
            [*study(folder, _STARTED, each), "--quiet", "all", "--", "trained"], log
        )
        times[START_UP, name, _STARTED] = [(wall / _STARTED, processor / _STARTED)]
    return times


def _compiling(folder: Path, log: Path) -> dict[Row, list[Took]]:
    """The first compiled step of a process: with an empty compiler cache, then with a filled one.

    Without a compiler there are no rows.
    """
    from cml_bench.engine.compiled import available  # imports torch

    names = ("a first compiled step", "a first compiled step, compiled before")
    cache = str(folder / "compiled")
    return {
        (START_UP, name, 1): [timed(["-c", _COMPILED], log, TORCHINDUCTOR_CACHE_DIR=cache)]
        for name in (names if available() else ())
    }


def _row(key: Row, took: list[Took], say: Callable[[str], None]) -> dict[str, Any]:
    """Median seconds of a command, as a row of the results file."""
    workload, name, runs = key
    wall, processor = np.median(np.array(took), axis=0)
    counted = "" if runs is None else f", {runs} runs"
    say(f"{workload}: {name}{counted}: {wall:.2f} s (processor {processor:.2f})")
    row = {
        "workload": workload,
        "implementation": name,
        "seconds": round(wall, 3),
        "processor": round(processor, 3),
        "blocks": len(took),
    }
    return row if runs is None else {**row, "axis": "runs", "value": runs}
