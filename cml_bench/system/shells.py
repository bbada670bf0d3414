"""Paths that Snakemake, or what sends jobs to a cluster, cannot take: refused by name before
anything is made.

Everything else is quoted where it is used. Imports no torch.
"""

import re
from collections.abc import Iterable

from cml_bench.errors import UserError

_NO_NAME = re.compile(
    r"[{}\x00-\x1f\x7f]"
)  # braces are wildcards; control characters spoil matching and messages
_ONE_WORD = re.compile(r"[\w@%+=:,./-]+")
_EXPANDED = re.compile(
    r"^-|[$`\\]"
)  # an option, or expanded also within the quotes that Snakemake sets


def check_path(path: str, named: str) -> None:
    """A UserError that says what ``named`` the path, if Snakemake cannot take it."""
    if match := _NO_NAME.search(path):
        raise UserError(
            f"{named}: Snakemake cannot take {match[0]!r} in a path; choose one without braces and"
            f" line breaks, not {path!r}."
        )


def check_clone(folder: str) -> None:
    """A UserError if Snakemake cannot read a workflow that lies there."""
    try:
        check_path(folder, f"the folder of the Snakefile, {folder!r}")
    except UserError as error:
        raise UserError(f"{error} Move it.") from None


def check_cluster(python: str, others: Iterable[str]) -> None:
    """A UserError if a job's command would not reach another machine as it is.

    ``python`` is the interpreter, which Snakemake does not quote there. ``others`` are the paths
    and settings that it does quote, in a way that does not keep ``$``, backticks, backslashes and a
    leading ``-``.
    """
    if not _ONE_WORD.fullmatch(python):
        raise UserError(
            f"a cluster's jobs cannot be started by {python!r}: Snakemake does not quote it. Make"
            " the environment in a folder whose path has only letters, digits and @%+=:,./_-"
            " in it."
        )
    for text in others:
        if match := _EXPANDED.search(text):
            raise UserError(
                f"{text!r} does not reach a cluster's jobs as it is, since the command there reads"
                f" the {match[0]!r} in it: choose a name without one."
            )
