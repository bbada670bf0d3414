"""Command line: every step of a study, from files to files."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from cml_bench.errors import UserError
from cml_bench.spec import RunSpec
from cml_bench.study.config import Study
from cml_bench.study.plan import Plan, read_plan
from cml_bench.system import paths, utf8
from cml_bench.system.files import read_json


def main(argv: list[str] | None = None) -> int:
    """Run one command; a UserError is printed as one paragraph, exit code 2."""
    if argv is None:  # as a program, not from Python
        utf8.restart()
    utf8.streams()
    args = _parser().parse_args(argv)
    try:
        paths.from_command_line(args)
        args.run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a folder in a file's place, no permission, a full disk
        where = f" {error.filename}" if error.filename else ""
        print(
            f"error: {error.strerror or error}:{where}. Nothing half-written was left.",
            file=sys.stderr,
        )
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cml_bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    sub = command("fetch", _fetch, "Get and prepare data sets.")
    sub.add_argument("data", nargs="+", help="names, see `list data`")
    sub.add_argument("--options", type=_mapping, default={}, help="the data set's options as JSON")
    sub.add_argument(
        "--plan", type=Path, help="a resolved plan, for its folder and its own copies of files"
    )
    sub.add_argument("--stamp", type=Path, help="file to write when it is ready")
    sub.add_argument(
        "--acknowledge",
        nargs="*",
        default=[],
        help="data sets whose terms of use you have read and accept",
    )
    _folders(sub)

    sub = command(
        "plan", _plan, "Resolve a configuration into runs, jobs and table cells. Starts nothing."
    )
    sub.add_argument(
        "--config",
        required=True,
        type=Path,
        nargs="+",
        help="configuration files, joined as by Snakemake",
    )
    sub.add_argument("--out", type=Path, help="write the plan to this file")
    sub.add_argument("--json", action="store_true", help="print the plan as JSON")
    sub.add_argument(
        "--calibrate",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="time outer steps; 0: do not",
    )

    sub = command("train", _train, "Train and evaluate one run, or the runs of one job of a plan.")
    sub.add_argument("spec", type=Path, help="a run's spec as JSON, or a plan (then --job)")
    sub.add_argument("--job", help="id of a job of the plan")
    sub.add_argument("--stamp", type=Path, help="file to write when every run is stored")
    _engine(sub)

    sub = command(
        "evaluate", _evaluate, "Evaluate a stored run on more test tasks, queries or inner steps."
    )
    sub.add_argument("run_folder", type=Path)
    sub.add_argument("--tasks", type=int)
    sub.add_argument("--query", type=int, help="query examples per class")
    sub.add_argument("--inner-steps", type=int, nargs="+")
    sub.add_argument(
        "--replace", action="store_true", help="replace results of another number of queries"
    )
    _engine(sub)

    sub = command("table", _table, "Render tables from whatever runs are finished.")
    sub.add_argument("tables", nargs="*", help="keys; default: all of the study")
    _study(sub)

    sub = command(
        "report",
        _report,
        "Write the study's page from whatever runs are finished, and print its tables.",
    )
    _study(sub)

    sub = command("figure", _figure, "Draw figures from stored runs.")
    sub.add_argument("figures", nargs="*", help="keys; default: all of the study")
    _study(sub)

    sub = command(
        "check", _check, "Compare the finished runs of a configuration with committed references."
    )
    sub.add_argument("--config", type=Path, nargs="+", default=[Path("configs/ci.yaml")])
    sub.add_argument("--results", type=Path, help="default: the configuration's")
    sub.add_argument("--reference", type=Path, default=Path("configs/reference/ci.json"))
    sub.add_argument(
        "--update", action="store_true", help="make these runs the reference and print what moved"
    )
    sub.add_argument("--seeds", type=_positive, help="seeds 0..N-1 instead of the configuration's")
    sub.set_defaults(plan=None)

    sub = command(
        "status",
        _status,
        "How far a study is: finished, running, failed and missing runs per table.",
    )
    _study(sub)
    sub.add_argument("--json", action="store_true", help="the state of every run, as JSON")

    sub = command(
        "publish",
        _publish,
        "Copy a study's records to results/reference, its tables into docs and README.",
    )
    _study(sub)
    sub.add_argument(
        "--partial", action="store_true", help="copy what is finished; leave tables and pages alone"
    )

    sub = command("list", _list, "Names of methods, data sets or networks.")
    sub.add_argument("kind", choices=("methods", "data", "networks"))
    sub.add_argument("--json", action="store_true")

    sub = command(
        "describe", _describe, "Parameters and FLOPs of a method on a network and data set."
    )
    for name in ("method", "network", "data"):
        sub.add_argument(f"--{name}", required=True)
    sub.add_argument("--way", type=int, required=True)
    sub.add_argument("--shot", type=int, required=True)
    sub.add_argument("--query", type=int, default=15)
    for name in ("options", "network-options", "data-options"):
        sub.add_argument(f"--{name}", type=_mapping, default={}, help="as JSON")
    sub.add_argument("--json", action="store_true")
    return parser


def _folders(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--data-dir", type=Path, help="where data sets are kept; default: the plan's, or data"
    )


def _engine(sub: argparse.ArgumentParser) -> None:
    _folders(sub)
    sub.add_argument("--results", type=Path, help="default: the plan's, or results")
    sub.add_argument("--device", help="cpu, cuda, cuda:N, or auto: cuda if there is one")
    sub.add_argument(
        "--threads", type=_positive, default=1, help="two runs of one thread beat one run of two"
    )
    sub.add_argument(
        "--engine",
        choices=("auto", "fast", "plain", "compiled", "captured"),
        help="equal computations; default: the plan's, or auto",
    )
    sub.add_argument("--diagnostics", choices=("on", "off"), default="on")
    sub.add_argument("--checkpoint-seconds", type=float, default=60.0)


def _study(sub: argparse.ArgumentParser) -> None:
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--config", type=Path, nargs="+", help="configuration files, joined as by Snakemake"
    )
    source.add_argument("--plan", type=Path, help="a resolved plan")
    sub.add_argument("--results", type=Path, help="default: the configuration's")


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no JSON object, such as '{{\"size\": 28}}' ({error})"
        ) from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object, such as '{{\"size\": 28}}'")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


# -- commands
# -----------------------------------------------------------------------------------------


def _fetch(args: argparse.Namespace) -> None:
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
            # What depends on the stamp runs again when its content changes: when it is other data.
            index = prepared.index(folder, data.data_id)
            files.write_json(
                args.stamp, {key: index.get(key) for key in ("data_id", "sha256", "files")}
            )
        print(f"{data.data_id} is ready in {folder}")


def _of(study: Study | None, name: str) -> Any:
    """What the study says of a key; without a study the key's default."""
    return Study.model_fields[name].get_default() if study is None else getattr(study, name)


def _plan(args: argparse.Namespace) -> None:
    from cml_bench.costs import estimate
    from cml_bench.study import config, cost, resolve, work
    from cml_bench.system import files, hardware

    where = ", ".join(map(str, args.config))
    resolved = resolve.resolve(config.parse(config.merged(args.config), where), where)
    if args.out:
        files.write_json(args.out, resolved.json_values())
    if args.out and not args.json:
        return
    resolved = estimate.add(resolved, work.cache_of(resolved))
    if args.json:
        print(json.dumps(resolved.json_values(), indent=1))
    else:
        from cml_bench.costs import calibrate

        device = resolved.study.device
        rates = calibrate.rates(resolved, args.calibrate, device) if args.calibrate > 0 else None
        gpus = 0 if device == "cpu" else len(hardware.gpus())
        print(cost.summary(resolved, gpus if rates is None else int(rates.gpu), rates))


def _settings(args: argparse.Namespace, study: Study | None = None):
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


def _train(args: argparse.Namespace) -> None:
    from cml_bench.engine.jobs import run_all
    from cml_bench.engine.run import refuse
    from cml_bench.study import preflight

    content = read_json(args.spec)
    if args.job or (isinstance(content, dict) and "jobs" in content):
        plan = read_plan(args.spec)
        specs, settings = _specs_of_job(plan, args), _settings(args, plan.study)
        preflight.refuse_other_data(plan, settings.data_dir, {spec.data_id for spec in specs})
        run_all(specs, settings, args.stamp)
        return
    content = (
        content["spec"] if isinstance(content, dict) and "spec" in content else content
    )  # a record has one
    spec, settings = RunSpec.read(content, str(args.spec)), _settings(args)
    try:
        refuse(
            spec, settings
        )  # here, so that not even an error.log is written: that is for a study's `status`
    except UserError as error:
        raise UserError(f"{args.spec}: {error}") from None
    run_all([spec], settings, args.stamp)


def _specs_of_job(plan: Plan, args: argparse.Namespace) -> list[RunSpec]:
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


def _evaluate(args: argparse.Namespace) -> None:
    from cml_bench.engine.run import extend

    asked = {"tasks": args.tasks, "query": args.query, "inner_steps": args.inner_steps}
    wanted = {key: value for key, value in asked.items() if value is not None}
    done = extend(args.run_folder, wanted, _settings(args), args.replace)
    for key, value in done.content["results"].items():
        print(f"{key:20s} {value:.4f}")


def _resolved(args: argparse.Namespace) -> Plan:
    if args.plan:
        return read_plan(args.plan)

    from cml_bench.study import config, plan

    content, where = config.merged(args.config), ", ".join(map(str, args.config))
    config.parse(content, where)
    if getattr(args, "seeds", None):
        content["seeds"] = args.seeds
    return plan.cached(content, where)


def _plan_and_results(args: argparse.Namespace) -> tuple[Plan, Path]:
    plan = _resolved(args)
    return plan, args.results or Path(plan.study.results)


def _table(args: argparse.Namespace) -> None:
    from cml_bench.report import write
    from cml_bench.system import files

    plan, results = _plan_and_results(args)
    with files.said_if_denied("the files of the tables"):
        write.tables(plan, results, args.tables)
    print(write.text(plan, results, args.tables))


def _report(args: argparse.Namespace) -> None:
    from cml_bench.report import write
    from cml_bench.system import files

    plan, results = _plan_and_results(args)
    with files.said_if_denied("the page"):
        write.page(plan, results)
    print(write.text(plan, results, []))
    print("\n".join(f"  {path}" for path in write.files(plan, results)))


def _figure(args: argparse.Namespace) -> None:
    from cml_bench.report import write

    for path in write.figures(*_plan_and_results(args), args.figures):
        print(path)


def _check(args: argparse.Namespace) -> None:
    from cml_bench.evidence import gate

    plan, results = _plan_and_results(args)
    if args.update:
        print("\n".join(gate.update(plan, results, args.reference)))
        return
    found = gate.check(plan, results, args.reference)
    print(gate.table(found))
    offenders = sum(bool(item.problem) for item in found)
    if offenders:
        raise UserError(
            f"{offenders} of {len(found)} cells do not hold against {args.reference}. Find the"
            " change that did it; if it is meant, run `make gate-reference` and commit what moved,"
            " with the reason."
        )


def _status(args: argparse.Namespace) -> None:
    from cml_bench.study import status

    plan, results = _plan_and_results(args)
    if args.json:
        print(
            json.dumps(
                [state._asdict() for state in status.states(plan, results).values()], indent=1
            )
        )
    else:
        print(status.text(plan, results))


def _publish(args: argparse.Namespace) -> None:
    from cml_bench.report.publish import publish

    publish(*_plan_and_results(args), partial=args.partial)


def _list(args: argparse.Namespace) -> None:
    from cml_bench import registry

    names = {
        "methods": registry.method_names,
        "data": registry.datasets.names,
        "networks": registry.networks.names,
    }[args.kind]()
    print(json.dumps(names) if args.json else "\n".join(names))


def _describe(args: argparse.Namespace) -> None:
    from cml_bench.costs.describe import describe

    found = describe(
        args.method,
        args.network,
        args.data,
        args.way,
        args.shot,
        args.query,
        args.options,
        args.network_options,
        args.data_options,
    )
    if args.json:
        print(json.dumps(found, indent=1))
        return
    p, f = found["parameters"], found["flops"]
    print(f"{args.method} with {args.network} on {found['data']}, {args.way}-way {args.shot}-shot")
    print(f"  parameters in training {p['training']:,}")
    for head, size in p["test"].items():
        print(f"  parameters at test, head {head}: {size:,}")
    for name, value in f.items():
        print(f"  MFLOP per task, {name}: {value / 1e6:,.1f}")


if __name__ == "__main__":
    sys.exit(main())
