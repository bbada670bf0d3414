"""The one place where a path that a user wrote becomes a path of this machine.

``~`` and ``~user`` are home folders, ``$NAME`` and ``${NAME}`` are variables of the environment,
and ``$$`` is a dollar sign. A relative path stays relative to the working folder. Paths are
expanded once, where the user's text comes in: in a configuration (``config.parse``), on the command
line (``from_command_line``) and in the Python API (``given``). After that, also in a plan, a dollar
sign is a character like any other.
"""

import contextlib
import os
import re
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cml_bench.errors import UserError

_DOLLAR = re.compile(
    r"\$(?:(?P<itself>\$)|\{(?P<braced>[^{}]*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))"
)


def expanded(text: str, named: str) -> str:
    """The path that the user means by ``text``.

    A UserError if a variable or a home folder does not exist; it begins with ``named``, the key
    that holds the path.
    """

    def value(match: re.Match[str]) -> str:
        if match["itself"]:
            return "$"
        name = match["bare"] or match["braced"] or ""
        if not (held := os.environ.get(name)):  # an empty one would turn $SCRATCH/data into /data
            raise UserError(
                f"{named} is {text!r}, and the variable {name!r} is not set here: set it, or write"
                " the path without it (a dollar sign in a name is written $$)."
            )
        return held

    path = _DOLLAR.sub(value, text)
    with contextlib.suppress(ValueError):  # a null character: no user has such a name
        path = os.path.expanduser(path)
    if path.startswith("~"):
        user = path.split("/")[0]
        raise UserError(
            f"{named} is {text!r}, and there is no home folder {user} here: correct it (a folder of"
            " that name itself is written with its full path)."
        )
    return path


def expanded_in(options: Mapping[str, Any], keys: Iterable[str], named: str) -> dict[str, Any]:
    """The options with the paths under these keys :func:`expanded`. Whatever is no text stays.

    ``named`` stands before the key in the message.
    """
    paths = {key: options[key] for key in keys if isinstance(options.get(key), str)}
    return {**options, **{key: expanded(path, f"{named}{key}") for key, path in paths.items()}}


def given(path: Any, named: str) -> Path:
    """The path that the Python API got as its argument ``named``. A UserError if it is no path."""
    if not isinstance(path, str | os.PathLike) or not isinstance(text := os.fspath(path), str):
        raise UserError(
            f"{named} must be a path, as a word or a pathlib.Path, not {type(path).__name__}."
        )
    if not text or "\0" in text:
        raise UserError(f"{named} must be a path, not {text!r}.")
    return Path(expanded(text, named))


def from_command_line(args: Namespace) -> None:
    """Expand every path among the arguments of a command, in place.

    The workflow sets ``CML_BENCH_PLAN``, and its commands get the paths of a plan. Those are
    expanded already, so they are left alone.
    """
    if os.environ.get("CML_BENCH_PLAN"):
        return
    for name, value in vars(args).items():
        option = name.replace("_", "-")
        if isinstance(value, Path):
            setattr(args, name, given(value, option))
        elif isinstance(value, list):
            setattr(
                args,
                name,
                [given(item, option) if isinstance(item, Path) else item for item in value],
            )
