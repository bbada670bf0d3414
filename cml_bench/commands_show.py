"""Commands that show what there is: results of finished runs, and what can be run."""

import json
import shutil
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from cml_bench import command_line
from cml_bench.command_line import (
    DATA_FOLDER,
    PLUGINS,
    RESULTS,
    Commands,
    argument,
    default,
    mapping,
    planned,
    positive,
    study,
)
from cml_bench.errors import UserError
from cml_bench.records import Store
from cml_bench.study import new, offers, selection
from cml_bench.study.plan import Plan

COMMANDS = Commands()
# Arguments that are names of plug-ins: their destination -> the kind of ``list``.
_NAMED = {"data": "data", "method": "methods", "network": "networks"}


def _plan_and_results(args: Namespace) -> tuple[Plan, Path]:
    plan = planned(args)
    results = args.results or Path(plan.study.results)
    return selection.narrowed(plan, Store(results)), results


@COMMANDS.command(
    "table",
    argument("tables", nargs="*", help="keys; default: all of the study"),
    study,
    argument(
        "--part",
        choices=("results", "differences", "cost"),
        help="print this part alone, and write no file",
    ),
    argument("--form", choices=("text", "markdown", "latex"), help="of a part; default: text"),
    help="Render tables from whatever runs are finished.",
    example="""\
python -m cml_bench table table1 --config configs/demo.yaml
python -m cml_bench table table1 --config configs/demo.yaml --part differences --form latex""",
)
def table(args: Namespace) -> None:
    from cml_bench.report import write
    from cml_bench.system import files

    if args.form and not args.part:
        raise UserError("--form is of one part: name it by --part results, differences or cost.")
    plan, results = _plan_and_results(args)
    if args.part:
        print(write.part(plan, results, args.tables, args.part, args.form or "text"))
        return
    with files.said_if_denied("the files of the tables"):
        write.tables(plan, results, args.tables)
    print(write.text(plan, results, args.tables))


@COMMANDS.command(
    "report",
    study,
    help="Write the study's page from whatever runs are finished, and print its tables.",
    example="python -m cml_bench report --config configs/demo.yaml",
)
def report(args: Namespace) -> None:
    from cml_bench.report import write
    from cml_bench.system import files

    plan, results = _plan_and_results(args)
    path = None
    with files.said_if_denied("the page"):
        path = write.page(plan, results)
    print(write.text(plan, results, []))
    if path:
        print(f"Open {path}")


@COMMANDS.command(
    "figure",
    argument("figures", nargs="*", help="keys; default: all of the study"),
    study,
    help="Draw figures from stored runs.",
    example="python -m cml_bench figure figure2 --config configs/demo.yaml",
)
def figure(args: Namespace) -> None:
    from cml_bench.report import write

    for path in write.figures(*_plan_and_results(args), args.figures):
        print(path)


@COMMANDS.command(
    "check",
    argument("name", nargs="?", help="a method, data set or network; default: check finished runs"),
    argument(
        "--config",
        type=Path,
        nargs="+",
        help="default: configs/ci.yaml; with a name, the file whose plug-ins have it",
    ),
    PLUGINS,
    DATA_FOLDER,
    RESULTS,
    argument("--reference", type=Path, default=Path("configs/reference/ci.json")),
    argument(
        "--update", action="store_true", help="make these runs the reference and print what moved"
    ),
    argument("--seeds", type=positive, help="seeds 0..N-1 instead of the configuration's"),
    argument(
        "--accept",
        action="store_true",
        help="with the name of a plug-in: keep its golden trace beside it, if all else holds",
    ),
    default(plan=None),
    help="Try what a method, data set or network must hold; or finished runs against references.",
    example="python -m cml_bench check maml\npython -m cml_bench check --results results/gate",
)
def check(args: Namespace) -> None:
    from cml_bench.evidence import gate

    if args.name:
        _check_laws(args)
        return
    args.config = args.config or [Path("configs/ci.yaml")]
    plan, results = _plan_and_results(args)
    if args.update:
        print("\n".join(gate.update(plan, results, args.reference)))
        return
    cells = gate.check(plan, results, args.reference)
    print(gate.table(cells))
    offenders = sum(bool(cell.problem) for cell in cells)
    if offenders:
        raise UserError(
            f"{offenders} of {len(cells)} cells do not hold against {args.reference}. Find the"
            " change that did it; if it is meant, run `make gate-reference` and commit what moved,"
            " with the reason."
        )


def _check_laws(args: Namespace) -> None:
    """Print each law of a method, data set or network as it is tried."""
    from cml_bench.checks import check

    if args.config:
        from cml_bench.study import config

        config.parse(config.merged(args.config), ", ".join(map(str, args.config)))
    failed = 0
    home = args.data_dir or Path("data")
    for outcome in check.check(args.name, home, args.accept, workflow=True):
        print(check.text(outcome), flush=True)
        failed += bool(outcome.said and not outcome.left_out)
    if failed:
        raise UserError(f"{failed} of the checks of {args.name} fail: see above.")


@COMMANDS.command(
    "status",
    study,
    argument("--json", action="store_true", help="the state of every run, as JSON"),
    argument(
        "--watch",
        action="store_true",
        help="show a study that is running until it ends, as it goes",
    ),
    help="How far a study is: finished, running, failed and missing runs per table.",
    example="python -m cml_bench status --config configs/demo.yaml\n"
    "python -m cml_bench status --watch --config configs/demo.yaml",
)
def status(args: Namespace) -> None:
    from cml_bench.study import status

    plan, results = _plan_and_results(args)
    if args.watch:
        if args.json:
            raise UserError("--watch is for people: leave out --json, or --watch.")
        from rich.console import Console

        from cml_bench.study import view

        view.follow(plan, results, Console(highlight=False))
    elif args.json:
        states = [state._asdict() for state in status.states(plan, results).values()]
        print(json.dumps(states, indent=1))
    else:
        print(status.text(plan, results))


@COMMANDS.command(
    "publish",
    study,
    argument(
        "--partial", action="store_true", help="copy what is finished; leave tables and pages alone"
    ),
    help="Copy a study's records to results/reference, its tables into docs/results.md.",
    example="python -m cml_bench publish --config configs/omniglot_study.yaml",
)
def publish(args: Namespace) -> None:
    from cml_bench.report.publish import publish

    publish(*_plan_and_results(args), partial=args.partial)


@COMMANDS.command(
    "records",
    argument("places", type=Path, nargs="+", help="results folders, or folders of runs"),
    argument("--csv", type=Path, help="file to write; default: print it"),
    argument("--parquet", type=Path, help="file to write; needs pyarrow"),
    argument("--episodes", action="store_true", help="a row for each test episode, too"),
    help="Finished runs as one table: a row a run, reading and number of inner steps.",
    example="""\
python -m cml_bench records results --csv runs.csv
python -m cml_bench records results/reference/demo --episodes --csv episodes.csv""",
)
def records(args: Namespace) -> None:
    from io import BytesIO

    from cml_bench.evidence import frames
    from cml_bench.system.files import write_bytes

    frame = frames.episodes(args.places) if args.episodes else frames.runs(args.places)
    if args.parquet:
        content = BytesIO()
        try:
            frames.of_one_type(frame).to_parquet(content, index=False)
        except ImportError:
            raise UserError("parquet needs pyarrow: pip install pyarrow, or take --csv.") from None
        write_bytes(args.parquet, content.getvalue())
    if args.csv:
        write_bytes(args.csv, frame.to_csv(index=False).encode())
    elif not args.parquet:
        print(frame.to_csv(index=False), end="")


@COMMANDS.command(
    "retrain",
    argument("method", help="x: the runs of x and of x+cml; x+cml: its own alone"),
    study,
    argument("--yes", action="store_true", help="move them; without it they are only named"),
    help="Move a method's runs aside, so that the next start trains them anew. For development.",
    example="python -m cml_bench retrain maml --config configs/demo.yaml",
)
def retrain(args: Namespace) -> None:
    from cml_bench.study import retrain

    plan, results = _plan_and_results(args)
    made = retrain.folders(plan, results, args.method)
    moved = retrain.move(made, results, args.method) if args.yes and made else None
    print(retrain.text(made, results, args.method, moved))


@COMMANDS.command(
    "claims",
    argument(
        "--config", type=Path, nargs="+", help="one study alone; default: every study of the file"
    ),
    RESULTS,
    argument("--claims", type=Path, default=Path("configs/reference/claims.yaml")),
    argument(
        "--publish", action="store_true", help="put the table into docs/claims.md and the README"
    ),
    default(plan=None),
    help="What the runs made here say of each claim of the paper.",
    example="python -m cml_bench claims --config configs/demo.yaml",
)
def claims(args: Namespace) -> None:
    from cml_bench.evidence import claims as evidence
    from cml_bench.report import claims, publish, write

    read = evidence.read(args.claims)
    if args.config:
        if args.publish:
            raise UserError("--publish is for the claims over every study: leave out --config.")
        plan, results = _plan_and_results(args)
        if not (text := write.claims_text(plan, results, args.claims)):
            raise UserError(f"no claim of {args.claims} is decided by {plan.study.study}.")
        print(text)
        return
    shown = claims.grid(read, claims.published(read, args.claims), claims.HEADING)
    print(claims.text(shown))
    if args.publish:
        publish.show_claims(claims.block(shown), claims.brief(shown))


@COMMANDS.command(
    "list",
    argument("kind", nargs="?", choices=offers.KINDS, help="with options; default: all, in short"),
    argument("--json", action="store_true", help="the names alone"),
    PLUGINS,
    help="Methods, data sets or networks: what each is, and its options.",
    example="python -m cml_bench list\npython -m cml_bench list methods --plugins mine",
)
def names(args: Namespace) -> None:
    width = shutil.get_terminal_size((100, 24)).columns
    if args.json:
        every = {kind: offers.names(kind) for kind in offers.KINDS}
        print(json.dumps(every[args.kind] if args.kind else every))
    else:
        print(offers.text(args.kind, width) if args.kind else offers.brief(width))


@COMMANDS.command(
    "new",
    argument("kind", choices=tuple(new.KINDS)),
    argument("name", help="a-z, 0-9 and _; the file is called NAME.py"),
    argument("--folder", type=Path, default=Path(), help="default: the working folder"),
    PLUGINS,
    help="Write a file with which a method, data set or network of your own begins.",
    example="python -m cml_bench new method mymethod --folder mine",
)
def begin(args: Namespace) -> None:
    path = new.write(args.kind, args.name, args.folder)
    print(f"{path} works as it is: change what is marked (1), (2), ...")
    if not path.resolve().is_relative_to(new.PACKAGE):
        named = path if args.folder == Path() else args.folder
        print(f"A configuration knows it by\n  plugins: [{named}]")


@COMMANDS.command(
    "describe",
    *(argument(f"--{name}", required=True) for name in ("method", "network", "data")),
    argument("--way", type=int, help="classes of a task; needed unless the data has none"),
    argument("--shot", type=int, required=True),
    argument("--query", type=int, default=15),
    *(
        argument(f"--{name}", type=mapping, default={}, help="as JSON")
        for name in ("options", "network-options", "data-options")
    ),
    argument("--json", action="store_true"),
    PLUGINS,
    help="Parameters and FLOPs of a method on a network and data set.",
    example="""\
python -m cml_bench describe --method maml+cml --network conv4 --data glyphs --way 5 --shot 1
python -m cml_bench describe --method maml --network mlp --data sinusoid --shot 10""",
)
def describe(args: Namespace) -> None:
    from cml_bench.costs.describe import describe

    description = describe(
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
        print(json.dumps(asdict(description), indent=1))
        return
    parameters = description.parameters
    way = f"{description.way}-way " if description.way > 1 else ""
    print(f"{args.method} with {args.network} on {description.data}, {way}{args.shot}-shot")
    print(f"  parameters in training {parameters.training:,}")
    for head, size in parameters.test.items():
        print(f"  parameters at test, head {head}: {size:,}")
    for name, value in description.flops.items():
        print(f"  MFLOP per task, {name}: {value / 1e6:,.1f}")


@COMMANDS.command(
    "completion",
    argument("shell", choices=("bash", "zsh", "fish")),
    help="Print a script by which a shell completes the commands and options of cml-bench.",
    example="""\
python -m cml_bench completion bash > ~/.local/share/bash-completion/completions/cml-bench""",
)
def completion(args: Namespace) -> None:
    import shtab

    whole: ArgumentParser = args.parser
    whole.prog = "cml-bench"  # the command that pip installs; a shell completes no `python -m`
    for own in command_line.parsers(whole):
        for action in own._actions:
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.dest in _NAMED:
                action.choices = offers.names(_NAMED[action.dest])
    print(shtab.complete(whole, args.shell))
