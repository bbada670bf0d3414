"""Command line: every step of a study, from files to files."""

import os
import sys

from cml_bench import (
    command_line,
    commands_run,
    commands_select,
    commands_share,
    commands_show,
    plugins,
)
from cml_bench.errors import UserError
from cml_bench.system import paths, utf8

EXAMPLE = """\
python -m cml_bench run configs/demo.yaml --cores 2
python -m cml_bench list"""
COMMANDS = (
    *commands_run.COMMANDS,
    *commands_select.COMMANDS,
    *commands_show.COMMANDS,
    *commands_share.COMMANDS,
)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    An error that the user can mend is printed as one paragraph; its exit code is 2.
    """
    if argv is None:  # as a program, not from Python
        utf8.restart()
    utf8.streams()
    args = command_line.parser(__doc__, COMMANDS, EXAMPLE).parse_args(argv)
    try:
        paths.from_command_line(args)
        plugins.use(getattr(args, "plugins", ()), "--plugins")
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


if __name__ == "__main__":
    sys.exit(main())
