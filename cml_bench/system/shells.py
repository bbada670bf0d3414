"""Refuses paths that Snakemake, or its way of sending jobs to a cluster, cannot take.

The checks run before anything is made. All other paths are quoted where they are used. Imports no
torch.
"""

import re
from collections.abc import Iterable

from cml_bench.errors import UserError

# Snakemake takes braces for wildcards. Control characters spoil its matching and its messages.
_NO_NAME = re.compile(r"[{}\x00-\x1f\x7f]")
_ONE_WORD = re.compile(r"[\w@%+=:,./-]+")
# A leading "-" makes an option; the others are expanded even within the quotes that Snakemake sets.
_EXPANDED = re.compile(r"^-|[$`\\]")


def check_path(path: str, named: str) -> None:
    """A UserError if Snakemake cannot take the path. ``named`` says where the path comes from."""
    if match := _NO_NAME.search(path):
        raise UserError(
            f"{named}: Snakemake cannot take {match[0]!r} in a path; choose one without braces and"
            f" line breaks, not {path!r}."
        )


def check_clone(folder: str) -> None:
    """A UserError if Snakemake cannot read a workflow in this folder."""
    try:
        check_path(folder, f"the folder of the Snakefile, {folder!r}")
    except UserError as error:
        raise UserError(f"{error} Move it.") from None


def check_cluster(python: str, others: Iterable[str]) -> None:
    """A UserError if a job's command would reach another machine changed.

    ``python`` is the interpreter: Snakemake does not quote it in that command. ``others`` are paths
    and settings: Snakemake quotes them, but a shell still expands ``$``, backticks and backslashes
    there, and a leading ``-`` makes an option.
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
