"""Commands that make records: prepare data, plan, train, evaluate."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cml_bench.command_line import DATA_FOLDER, Commands, amount, argument, mapping, positive
from cml_bench.errors import UserError
from cml_bench.spec import NormalisedWith, RunSpec
from cml_bench.study.plan import Plan, read_plan
from cml_bench.study.schema import Study
from cml_bench.system.files import read_json

if TYPE_CHECKING:
    from cml_bench.engine.build import Settings
    from cml_bench.evidence.power import Spreads

COMMANDS = Commands()


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
    argument("data", nargs="+", help="names, see `list data`"),
    argument("--options", type=mapping, default={}, help="the data set's options as JSON"),
    argument(
        "--plan", type=Path, help="a resolved plan, for its folder and its own copies of files"
    ),
    argument("--stamp", type=Path, help="file to write when it is ready"),
    argument(
        "--acknowledge",
        nargs="*",
        default=[],
        help="data sets whose terms of use you have read and accept",
    ),
    DATA_FOLDER,
    help="Get and prepare data sets.",
)
def fetch(args: Namespace) -> None:
    from cml_bench import registry
    from cml_bench.data import prepared
    from cml_bench.system import files

    study = read_plan(args.plan).study if args.plan else None
    for name in args.data:
        cls = registry.datasets.get(name)
        data = cls(cls.Options.read(args.options, f"data set {name}"))
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
    argument(
        "--config",
        required=True,
        type=Path,
        nargs="+",
        help="configuration files, joined as by Snakemake",
    ),
    argument("--out", type=Path, help="write the plan to this file"),
    argument("--json", action="store_true", help="print the plan as JSON"),
    argument(
        "--calibrate",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="time outer steps; 0: do not",
    ),
    spread,
    help="Resolve a configuration into runs, jobs and table cells. Starts nothing.",
)
def plan(args: Namespace) -> None:
    from cml_bench.evidence import claims
    from cml_bench.study import config, cost, plan, work
    from cml_bench.system import files, hardware

    spreads = _spreads(args)
    content, where = config.merged(args.config), ", ".join(map(str, args.config))
    if args.out:
        from cml_bench.evidence import paper
        from cml_bench.study.resolve import resolve  # in this process: cached() starts it for that

        resolved = resolve(config.parse(content, where), where)
        paper.check(resolved)
        claims.check_study(resolved)
        files.write_json(args.out, resolved.json_values())
        if not args.json:
            return
    else:
        resolved = plan.cached(content, where)
        claims.check_study(resolved)  # the file may have been edited since
    resolved = work.counted(resolved)
    if args.json:
        print(json.dumps(resolved.json_values(), indent=1))
    else:
        device, rates = resolved.study.device, None
        if args.calibrate > 0:
            from cml_bench.costs import calibrate  # imports torch

            rates = calibrate.rates(resolved, args.calibrate, device)
        gpus = 0 if device == "cpu" else len(hardware.gpus())
        print(cost.summary(resolved, gpus if rates is None else int(rates.gpu), rates))
        if spreads:
            from cml_bench.evidence import power

            print(f"\n{power.told(resolved, spreads)}")


@COMMANDS.command(
    "train",
    argument("spec", type=Path, help="a run's spec as JSON, or a plan (then --job)"),
    argument("--job", help="id of a job of the plan"),
    argument("--stamp", type=Path, help="file to write when every run is stored"),
    engine,
    help="Train and evaluate one run, or the runs of one job of a plan.",
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
)
def evaluate(args: Namespace) -> None:
    from cml_bench.engine.run import extend

    keys = ("tasks", "query", "inner_steps", "normalised_with")
    wanted = {key: value for key in keys if (value := getattr(args, key)) is not None}
    record = extend(args.run_folder, wanted, settings_of(args), args.replace)
    for key, value in record.results.items():
        print(f"{key:20s} {value:.4f}")
