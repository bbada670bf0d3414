"""``python -m benchmarks run`` measures; ``python -m benchmarks show`` shows the results.

``python -m benchmarks first`` measures how long a newcomer waits.
"""

import argparse
import fnmatch
import json
import os
import platform
import random
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import first_run, hours, measure, scaling, show, startup
from benchmarks.measure import INSTALLED
from benchmarks.workloads import QUICK, WORKLOADS
from cml_bench.errors import UserError
from cml_bench.system import allocator, hardware, paths, utf8
from cml_bench.system.files import write_json

RESULTS = Path(__file__).parent / "results" / "speed.json"
FIRST = RESULTS.with_name("first_run.json")
GPU = RESULTS.with_name("gpu.json")
GRAPHS = RESULTS.with_name("graphs.json")
STARTUP = RESULTS.with_name("startup.json")
PAGE = Path(__file__).parent / "README.md"
README = measure.ROOT / "README.md"
REPRODUCE = measure.ROOT / "docs" / "reproduce.md"
HARDWARE = measure.ROOT / "docs" / "hardware.md"
_IDLE = 0.3  # the most load of an idle machine
_SIZES = (10, 100, 700)


def _peers() -> dict[str, dict[str, str]]:
    """Version of each peer, or why it is missing."""
    return json.loads(INSTALLED.read_text(encoding="utf-8")) if INSTALLED.exists() else {}


def _vectors() -> str:
    """The widest vector instructions that Linux names: the choice of kernels depends on them."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return next((name for name in ("avx512f", "avx2") if name in told), "")


def _context(args: argparse.Namespace) -> dict[str, Any]:
    load = os.getloadavg()[0]
    doubts = [
        *(["sizes that only try the harness"] if args.quick else []),
        *([f"the machine was not idle (load {load:.1f})"] if load > _IDLE else []),
    ]
    packages = {name: version(name) for name in ("torch", "numpy", "snakemake")}
    return {
        "machine": {
            "system": platform.platform(),
            "processor": hardware.processor(),
            "cores": os.cpu_count(),
            "vectors": _vectors(),
            "allocator": allocator.KEEP,
            "load_before": round(load, 2),
        },
        "versions": {"python": platform.python_version(), **packages},
        "peers": _peers(),
        **measure.made(),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "provisional": "; ".join(doubts),
    }


def run(args: argparse.Namespace) -> None:
    """Measure, and write the results whenever a workload has been measured."""
    if args.repeats < 1:
        raise UserError(f"--repeats {args.repeats}: at least 1 is needed.")
    rng, context, rows = random.Random(args.seed), _context(args), []

    def keep(
        rows: list[dict[str, Any]], doubts: tuple[str, ...] = ("it was stopped before its end",)
    ) -> None:
        context["machine"]["load_after"] = round(os.getloadavg()[0], 2)
        provisional = "; ".join(filter(None, (context["provisional"], *doubts)))
        results = {
            **context,
            "provisional": provisional,
            "targets": show.targets(rows),
            "rows": rows,
        }
        write_json(args.out, results, indent=1)

    def say(text: str) -> None:
        print(text, flush=True)

    chosen = [
        w for w in WORKLOADS if any(fnmatch.fnmatch(w.name, pattern) for pattern in args.only)
    ]
    if args.quick:
        chosen = [workload.quick() for workload in chosen if workload.name in QUICK]
    for rows in measure.measure(chosen, args.repeats, rng, say):
        keep(rows)
    if args.scaling or args.only == ["*"]:
        rows = rows + scaling.measure_curves(args.quick, min(3, args.repeats), rng, say)
        keep(rows)
    if args.startup:
        with tempfile.TemporaryDirectory() as folder:
            sizes = _SIZES[:1] if args.quick else _SIZES
            config = measure.ROOT / "configs" / ("ci.yaml" if args.quick else "paper.yaml")
            repeats = min(3, args.repeats)
            rows = rows + startup.measure(
                Path(folder), config, sizes, repeats, rng, say, compiling=not args.quick
            )
    keep(rows, doubts=())


def first(args: argparse.Namespace) -> None:
    """Time `make setup`, `make demo` and `make test` in a fresh clone of the last commit, on an
    idle machine, and write the times into the README and docs/hardware.md.
    """
    context = _context(args)
    kept = {name: context[name] for name in ("machine", "date", "commit", "command", "provisional")}
    with tempfile.TemporaryDirectory() as folder:
        rows = first_run.measure(
            Path(folder), args.torch_index, lambda text: print(text, flush=True)
        )
    kept["machine"]["load_after"] = round(os.getloadavg()[0], 2)
    write_json(args.out, {**kept, "torch_index": args.torch_index, "rows": rows}, indent=1)
    if args.out == FIRST:
        _first_shown()


def _first_shown() -> None:
    """Both pages say how long the first run takes, or nothing of it where none is measured."""
    began = json.loads(FIRST.read_text(encoding="utf-8")) if FIRST.exists() else None
    show.into(README, show.first(began), show.FIRST)
    show.into(HARDWARE, show.first_table(began), show.FIRST)


def shown(args: argparse.Namespace) -> None:
    """Draw the picture beside the results; print the tables, or put them into
    benchmarks/README.md.
    """
    try:
        results = json.loads(args.out.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no {args.out}: `python -m benchmarks run` makes it.") from None
    scaling.draw(results["rows"], args.out.with_suffix(".png"))
    text = show.markdown(results)
    if args.page:
        gpu = json.loads(GPU.read_text(encoding="utf-8"))
        show.into(PAGE, text)
        show.into(README, show.brief(results, gpu), show.BRIEF)
        _first_shown()
        show.into(PAGE, show.gpu(gpu), show.GPU)
        show.into(REPRODUCE, f"{hours.paper(RESULTS.parent)}\n", show.HOURS)
        show.into(PAGE, show.graphs(json.loads(GRAPHS.read_text(encoding="utf-8"))), show.GRAPHS)
        show.into(PAGE, show.startup(json.loads(STARTUP.read_text(encoding="utf-8"))), show.STARTUP)
    else:
        print(text)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, work, out in (
        ("run", run, RESULTS),
        ("first", first, FIRST),
        ("show", shown, RESULTS),
    ):
        command = commands.add_parser(name, help=work.__doc__)
        command.set_defaults(work=work, quick=False)
        command.add_argument(
            "--out", type=Path, default=out, help="the results file (default: %(default)s)"
        )
        _OPTIONS[name](command)
    args = parser.parse_args()
    paths.from_command_line(args)
    args.work(args)


def _of_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--quick", action="store_true", help="sizes that only try the harness")
    command.add_argument(
        "--only", nargs="*", default=["*"], help="names of workloads, with * and ?"
    )
    command.add_argument(
        "--scaling", action="store_true", help="the curves too (without --only: always)"
    )
    command.add_argument("--startup", action="store_true", help="start-up and planning too")
    command.add_argument(
        "--repeats", type=int, default=7, help="how often all workloads are gone through"
    )
    command.add_argument("--seed", type=int, default=0, help="of the order of blocks")


def _of_first(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--torch-index", default="", metavar="URL", help="make's TORCH_INDEX (default: pip's index)"
    )


def _of_show(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--page",
        action="store_true",
        help="put the tables into both READMEs, docs/reproduce.md and docs/hardware.md",
    )


_OPTIONS = {"run": _of_run, "first": _of_first, "show": _of_show}


if __name__ == "__main__":
    utf8.restart()
    utf8.streams()
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
