"""The command of sweeps: which setting of each is selected."""

from argparse import Namespace
from pathlib import Path

from cml_bench.command_line import Commands, argument, planned, study
from cml_bench.errors import UserError

COMMANDS = Commands()


@COMMANDS.command(
    "select",
    study,
    argument("--out", type=Path, help="write all settings and the selected ones to this JSON file"),
    help="Which setting of each sweep is selected, by validation tasks alone.",
    example="python -m cml_bench select --config configs/omniglot_tuned.yaml",
)
def select(args: Namespace) -> None:
    from cml_bench.records import Store
    from cml_bench.study import selection
    from cml_bench.system import files

    resolved = planned(args)
    found = selection.selections(resolved, Store(args.results or resolved.study.results))
    if not found:
        raise UserError(f"the study {resolved.study.study} has no `sweep`: nothing is selected.")
    for one in found:
        print(f"{selection.budget(one.sweep)}; {selection.outcome(one)}")
    if args.out:
        files.write_json(args.out, selection.content(resolved, found))
