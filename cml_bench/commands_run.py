"""Commands that make records: prepare data, plan, train, evaluate."""

import json
import os
import shlex
import sys
from argparse import REMAINDER, ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cml_bench.command_line import (
    CONFIG,
    DATA_FOLDER,
    PLUGINS,
    SET,
    Commands,
    amount,
    argument,
    configured,
    mapping,
    planned,
    positive,
)
from cml_bench.errors import UserError, unknown
from cml_bench.registry import PATHS
from cml_bench.spec import NormalisedWith, RunSpec
from cml_bench.study.plan import Plan, read_plan
from cml_bench.study.schema import Study
from cml_bench.system import paths
from cml_bench.system.files import read_json

if TYPE_CHECKING:
    from cml_bench.engine.build import Settings
    from cml_bench.evidence.power import Spreads
    from cml_bench.study.cost import Rates

COMMANDS = Commands()
_TIMED_SECONDS = 60.0


def engine(own: ArgumentParser) -> None:
    """The arguments that say how runs are computed and where they are kept."""
    DATA_FOLDER(own)
    own.add_argument("--results", type=Path, help="default: the plan's, or results")
    own.add_argument("--device", help="cpu, cuda, cuda:N, or auto: cuda if there is one")
    own.add_argument(
        "--threads", type=positive, default=1, help="two runs of one thread beat one run of two"
    )
    own.add_argument(
        "--engine",
        choices=("auto", "fast", "plain", "compiled", "captured"),
        help="equal computations; default: the plan's, or auto",
    )
    PLUGINS(own)
    own.add_argument("--diagnostics", choices=("on", "off"), default="on")
    own.add_argument("--checkpoint-seconds", type=float, default=60.0)


def settings_of(args: Namespace, study: Study | None = None) -> "Settings":
    """The engine's settings: from the command line, else from the study, else the defaults."""
    from cml_bench.engine.build import Settings
    from cml_bench.engine.device import resolve_device

    return Settings(
        **{
            name: _of(study, name)
            for name in ("runs_per_gpu", "memory_fraction", "tasks_at_once", "seeds_at_once")
        },
        gpu_expected=_of(study, "gpu") == "expected" and not _of(study, "allow_cpu"),
        wait=bool(getattr(args, "job", None)),
        results=args.results or Path(_of(study, "results")),
        data_dir=args.data_dir or Path(_of(study, "data_dir")),
        device=resolve_device(args.device or _of(study, "device")),
        threads=args.threads,
        path=args.engine or _of(study, "engine"),
        checkpoint_seconds=args.checkpoint_seconds,
        diagnostics=args.diagnostics == "on",
        report=lambda text: print(text, flush=True),
    )


def _of(study: Study | None, name: str) -> Any:
    """The study's value of a key; without a study the key's default."""
    return Study.model_fields[name].get_default() if study is None else getattr(study, name)


@COMMANDS.command(
    "fetch",
    argument("data", nargs="*", help="names, see `list data`; default: all data of the study"),
    argument("--options", type=mapping, help="the data set's options as JSON"),
    configured,
    argument("--stamp", type=Path, help="file to write when it is ready"),
    argument(
        "--acknowledge",
        nargs="*",
        default=[],
        help="data sets whose terms of use you have read and accept",
    ),
    DATA_FOLDER,
    PLUGINS,
    help="Get and prepare data sets.",
    example="""\
python -m cml_bench fetch omniglot
python -m cml_bench fetch --config configs/paper.yaml --acknowledge miniimagenet""",
)
def fetch(args: Namespace) -> None:
    plan = _plan_of(args)
    wanted, missing = _wanted(args, plan), []
    # One that cannot be had (terms of use, a file to be fetched by hand) does not keep others away.
    for name, options in wanted:
        try:
            _fetch(name, options, args, plan.study if plan else None)
        except UserError as error:
            if len(wanted) == 1:
                raise
            print(f"error: {error}", file=sys.stderr, flush=True)
            missing.append(name)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(wanted)} data sets are not ready, for the reasons above:"
            f" {', '.join(missing)}."
        )


def _plan_of(args: Namespace) -> Plan | None:
    """The plan of ``--plan`` or ``--config``; None without either."""
    return planned(args) if args.config or args.plan else None


def _wanted(args: Namespace, plan: Plan | None) -> list[tuple[str, dict[str, Any]]]:
    """Names and options of the data sets to fetch. Without ``--options`` a study has its own."""
    if args.options is not None and not args.data:
        raise UserError("--options are those of a data set: name it, as `fetch glyphs --options`.")
    if plan is None and not args.data:
        raise UserError("name data sets (see `list data`), or a study's by --config FILE.")
    if plan is None or args.options is not None:
        options = args.options or {}
        if plan is None:  # the paths of a plan are expanded already
            options = paths.expanded_in(options, PATHS, "--options: ")
        return [(name, options) for name in args.data]
    own = {name: [d.options for d in plan.data if d.name == name] for name in args.data}
    for name, options in own.items():
        if not options:
            raise unknown(
                f"data set of the study {plan.study.study}", name, {d.name for d in plan.data}
            )
    return [
        (data.name, data.options)
        for data in plan.data
        if (data.name in own if own else data.prepares)
    ]


def _fetch(name: str, options: dict[str, Any], args: Namespace, study: Study | None) -> None:
    from cml_bench import registry
    from cml_bench.data import prepared
    from cml_bench.system import files

    cls = registry.datasets.get(name)
    data = cls(cls.Options.read(options, f"data set {name}"))
    folder = args.data_dir or Path(_of(study, "data_dir"))
    if cls.terms and name not in [*_of(study, "acknowledged"), *args.acknowledge]:
        raise UserError(
            f"{name} has terms of use: read {cls.terms}. If you accept them, add {name} to"
            f" `acknowledged` in the configuration, or --acknowledge {name} here."
        )
    data.prepare(folder, _of(study, "sources").get(name, {}))
    if args.stamp:
        # The stamp holds digests, so rules that depend on it run again only if data changes.
        index = prepared.index(folder, data.data_id)
        files.write_json(
            args.stamp, {key: index.get(key) for key in ("data_id", "sha256", "files")}
        )
    print(f"{data.data_id} is ready in {folder}")


@COMMANDS.command(
    "run",
    argument("config", type=Path, help="a configuration file"),
    argument(
        "rest",
        nargs=REMAINDER,
        help="targets and options of Snakemake, and --set as for `plan`; without --cores N all"
        " cores are used",
    ),
    help="Run a study by Snakemake in the working folder, wherever the package is installed.",
    example="""\
python -m cml_bench run configs/demo.yaml --cores 2 table1
python -m cml_bench run configs/demo.yaml --set glyphs.maml.inner_lr=0.1,0.5""",
)
def start(args: Namespace) -> None:
    from cml_bench.study import assignments, strict_yaml
    from cml_bench.system import workflow

    rest, found = _assignments(args.rest)
    if found and (path := Path(workflow.here_or_shipped(args.config.as_posix()))).is_file():
        # What Snakemake is given takes the place of the file's own list.
        content = strict_yaml.read(path)
        own = content.get("set") if isinstance(content, dict) else None
        found = [*map(str, assignments.listed(own)), *found]
    words = workflow.command(args.config, rest, found)
    os.environ["CML_BENCH_COMMAND"] = shlex.join(["cml-bench", "run", str(args.config), *args.rest])
    # Snakemake takes the place of this process, so that Ctrl-C and exit codes are its own.
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *words])


def _assignments(words: list[str]) -> tuple[list[str], list[str]]:
    """The words without ``--set`` and what follows it, and these assignments."""
    rest, found, inside = [], list[str](), False
    for word in words:
        if word.startswith("set="):  # of Snakemake's --config, where the last one alone counts
            found += word.removeprefix("set=").split()
            continue
        begins = word == "--set" or word.startswith("--set=")
        inside = begins or (inside and not word.startswith("-") and "=" in word)
        if not inside:
            rest.append(word)
        elif word != "--set":
            found.append(word.removeprefix("--set="))
    return rest, found


def spread(own: ArgumentParser) -> None:
    """How much a paired difference varies over seeds: then the plan says what it can detect."""
    source = own.add_mutually_exclusive_group()
    source.add_argument(
        "--spread",
        type=amount,
        metavar="POINTS",
        help="say what can be detected if paired differences have this standard deviation over"
        " seeds",
    )
    source.add_argument(
        "--spread-from",
        type=Path,
        metavar="FOLDER",
        help="the same, with the spreads of a finished study, such as results/reference/omniglot",
    )


def _spreads(args: Namespace) -> "Spreads | None":
    if args.spread is None and args.spread_from is None:
        return None
    if args.json or args.out:
        raise UserError(
            "what can be detected is said in the printed plan alone: leave out --json and --out, or"
            " --spread and --spread-from."
        )
    from cml_bench.evidence import power

    return power.given(args.spread) if args.spread else power.of_study(args.spread_from)


@COMMANDS.command(
    "plan",
    CONFIG,
    SET,
    argument("--out", type=Path, help="write the plan to this file"),
    argument("--json", action="store_true", help="print the plan as JSON"),
    argument(
        "--calibrate",
        type=float,
        metavar="SECONDS",
        help="time outer steps; 0: do not; default: 60, or 0 for a study of less than an hour",
    ),
    spread,
    help="Resolve a configuration into runs, jobs and table cells. Starts nothing.",
    example="python -m cml_bench plan --config configs/sinusoid.yaml",
)
def plan(args: Namespace) -> None:
    from cml_bench.evidence import claims
    from cml_bench.records import Store
    from cml_bench.study import config, cost, plan, selection, work
    from cml_bench.system import files, hardware

    spreads = _spreads(args)
    content, where = config.merged(args.config, args.set), ", ".join(map(str, args.config))
    if args.out:
        from cml_bench.evidence import paper
        from cml_bench.study.resolve import resolve  # in this process: cached() starts it for that

        resolved = resolve(config.parse(content, where), where)
        paper.check(resolved)
        claims.check_study(selection.narrowed(resolved, Store(resolved.study.results)))
        files.write_json(args.out, resolved.json_values())
        if not args.json:
            return
    else:
        resolved = plan.cached(content, where)
        # The file may have been edited since.
        claims.check_study(selection.narrowed(resolved, Store(resolved.study.results)))
    if args.json:
        resolved = work.counted(resolved)
        print(json.dumps(resolved.json_values(), indent=1))
    else:
        store = Store(resolved.study.results)
        resolved = work.counted(selection.narrowed(resolved, store))
        gpus = 0 if resolved.study.device == "cpu" else len(hardware.gpus())
        rates = _rates(resolved, args.calibrate, gpus > 0)
        print(cost.summary(resolved, gpus if rates is None else int(rates.gpu), rates))
        if spreads:
            from cml_bench.evidence import power

            print(f"\n{power.told(resolved, spreads)}")


def _rates(plan: Plan, seconds: float | None, gpu: bool) -> "Rates | None":
    """What this device computes in a second; None where nothing is to be timed."""
    from cml_bench.study import cost

    if seconds is None:
        seconds = _TIMED_SECONDS if cost.is_worth_timing(plan, gpu) else 0
    if seconds <= 0:
        return None
    from cml_bench.costs import calibrate  # imports torch

    return calibrate.rates(
        plan, seconds, plan.study.device, lambda text: print(text, file=sys.stderr, flush=True)
    )


@COMMANDS.command(
    "train",
    argument("spec", type=Path, help="a run's spec as JSON, or a plan (then --job)"),
    argument("--job", help="id of a job of the plan"),
    argument("--stamp", type=Path, help="file to write when every run is stored"),
    engine,
    help="Train and evaluate one run, or the runs of one job of a plan.",
    example="python -m cml_bench train results/runs/RUN/record.json",
)
def train(args: Namespace) -> None:
    from cml_bench.engine.jobs import run_all
    from cml_bench.engine.run import refuse
    from cml_bench.study import preflight

    content = read_json(args.spec)
    if args.job or (isinstance(content, dict) and "jobs" in content):
        plan = read_plan(args.spec)
        specs, settings = _specs_of_job(plan, args), settings_of(args, plan.study)
        preflight.refuse_other_data(plan, settings.data_dir, {spec.data_id for spec in specs})
        run_all(specs, settings, args.stamp)
        return
    is_record = isinstance(content, dict) and "spec" in content
    spec = RunSpec.read(content["spec"] if is_record else content, str(args.spec))
    settings = settings_of(args)
    try:
        # Refused here, before run_all writes an error.log: that file is for a study's `status`.
        refuse(spec, settings)
    except UserError as error:
        raise UserError(f"{args.spec}: {error}") from None
    run_all([spec], settings, args.stamp)


def _specs_of_job(plan: Plan, args: Namespace) -> list[RunSpec]:
    jobs = {job.id: job.runs for job in plan.jobs}
    names = ", ".join(list(jobs)[:3])
    if not args.job:
        raise UserError(
            f"{args.spec} is a plan of several jobs: name one with --job, such as {names}."
        )
    if args.job not in jobs:
        raise UserError(
            f"{args.spec} has no job {args.job!r}: name one that it has, such as {names}."
        )
    return [plan.specs[run] for run in jobs[args.job]]


@COMMANDS.command(
    "evaluate",
    argument("run_folder", type=Path),
    argument("--tasks", type=int),
    argument("--query", type=int, help="query examples per class"),
    argument("--inner-steps", type=int, nargs="+"),
    argument(
        "--normalised-with",
        nargs="+",
        choices=get_args(NormalisedWith),
        help="what shares batch-norm statistics with a query",
    ),
    argument("--replace", action="store_true", help="replace results of another number of queries"),
    engine,
    help="Evaluate a stored run further: more test tasks, queries, inner steps, ways to normalise.",
    example="python -m cml_bench evaluate results/runs/RUN --tasks 1000 --inner-steps 1 5",
)
def evaluate(args: Namespace) -> None:
    from cml_bench.engine.run import extend

    keys = ("tasks", "query", "inner_steps", "normalised_with")
    wanted = {key: value for key in keys if (value := getattr(args, key)) is not None}
    record = extend(args.run_folder, wanted, settings_of(args), args.replace)
    for key, value in record.results.items():
        print(f"{key:20s} {value:.4f}")
