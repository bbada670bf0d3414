"""How commands and their arguments are declared: each beside the function that runs it."""

import argparse
import json
import math
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cml_bench.errors import UserError

if TYPE_CHECKING:
    from cml_bench.study.plan import Plan

Declare = Callable[[argparse.ArgumentParser], object]
Run = Callable[[argparse.Namespace], None]


class Command(NamedTuple):
    """One command of ``python -m cml_bench``."""

    name: str
    help: str
    example: str  # one or several lines to type, shown by ``--help``
    arguments: tuple[Declare, ...]
    run: Run


class Commands(list[Command]):
    """The commands of one module, in the order of ``--help``."""

    def command(
        self, name: str, *arguments: Declare, help: str, example: str
    ) -> Callable[[Run], Run]:
        """Decorator of the function that runs the command."""

        def add(run: Run) -> Run:
            self.append(Command(name, help, example, arguments, run))
            return run

        return add


def parser(
    description: str | None, commands: Iterable[Command], example: str
) -> argparse.ArgumentParser:
    """The parser of all commands, with an example as that of a command.

    What it returns has the chosen command's function as ``run``, and as ``parser`` the parser
    itself, which ``completion`` reads.
    """
    whole = argparse.ArgumentParser(
        prog="cml_bench", description=description, **_exemplified(example)
    )
    parsers = whole.add_subparsers(required=True, metavar="command")
    for command in commands:
        own = parsers.add_parser(
            command.name,
            help=command.help,
            description=command.help,
            **_exemplified(command.example),
        )
        own.set_defaults(run=command.run, parser=whole)
        for declare in command.arguments:
            declare(own)
    return whole


def _exemplified(example: str) -> dict[str, Any]:
    """Arguments of a parser whose help ends with an example."""
    title = "examples:" if "\n" in example else "example:"
    return {
        "epilog": f"{title}\n{textwrap.indent(example, '  ')}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,  # keeps an example's lines
    }


def parsers(whole: argparse.ArgumentParser) -> Iterable[argparse.ArgumentParser]:
    """The parser of each command."""
    return next(
        action.choices.values()
        for action in whole._actions
        if isinstance(action, argparse._SubParsersAction)
    )


# -- declarations of arguments --


def argument(*names: str, **settings: Any) -> Declare:
    """One argument, declared as by :meth:`argparse.ArgumentParser.add_argument`."""
    return lambda own: own.add_argument(*names, **settings)


def default(**values: Any) -> Declare:
    """Values that the command line cannot change."""
    return lambda own: own.set_defaults(**values)


DATA_FOLDER = argument(
    "--data-dir", type=Path, help="where data sets are kept; default: the plan's, or data"
)
CONFIG = argument(
    "--config",
    required=True,
    type=Path,
    nargs="+",
    help="configuration files, joined as by Snakemake",
)
SET = argument(
    "--set",
    action="extend",
    nargs="+",
    default=[],
    metavar="OPTION=VALUE",
    help="EXPERIMENT.METHOD.OPTION=VALUE sets an option; several values, with commas, are a sweep",
)
PLUGINS = argument(
    "--plugins",
    type=Path,
    nargs="+",
    default=[],
    help="files and folders of your own methods, data sets and networks",
)
RESULTS = argument("--results", type=Path, help="default: the configuration's")


def study(own: argparse.ArgumentParser) -> None:
    """The study that a command is about: configuration files or a plan, and its results."""
    configured(own, required=True)
    RESULTS(own)


def configured(own: argparse.ArgumentParser, required: bool = False) -> None:
    """A study by its configuration files or its plan."""
    source = own.add_mutually_exclusive_group(required=required)
    source.add_argument(
        "--config", type=Path, nargs="+", help="configuration files, joined as by Snakemake"
    )
    source.add_argument("--plan", type=Path, help="a resolved plan")
    SET(own)


def planned(args: argparse.Namespace) -> "Plan":
    """The plan of ``--plan``, or of ``--config`` with ``--set`` and ``--seeds``."""
    from cml_bench.study import config, plan

    assignments = getattr(args, "set", ())
    if args.plan:
        if assignments:
            raise UserError("--set changes a configuration, and --plan has none: give --config.")
        return plan.read_plan(args.plan)
    content = config.merged(args.config, assignments)
    where = ", ".join(map(str, args.config))
    config.parse(content, where)
    if getattr(args, "seeds", None):
        content["seeds"] = args.seeds
    return plan.cached(content, where)


# -- types of arguments --


def mapping(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no JSON object, such as '{{\"size\": 28}}' ({error})"
        ) from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object, such as '{{\"size\": 28}}'")
    return value


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def amount(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value
