"""Where the workflow stands: in the clone, or where an installation has put it."""

import contextlib
import importlib.metadata
from pathlib import Path

from cml_bench.errors import UserError

CLONE = Path(__file__).parent.parent.parent
_INSTALLED = "share/cml_bench/Snakefile"  # see data-files in pyproject.toml


def snakefile() -> Path:
    """The Snakefile. Rules and profiles are beside it. A UserError if there is none."""
    # The second is where `pip install --target` puts it: its list of files says another place.
    for found in (CLONE / "Snakefile", CLONE / _INSTALLED):
        if found.is_file():
            return found
    try:
        files = importlib.metadata.files("cml_bench") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix().endswith(_INSTALLED) and (path := Path(str(file.locate()))).is_file():
            return path.resolve()
    raise UserError(
        f"the workflow is missing: there is neither {CLONE / 'Snakefile'} nor an installed"
        f" {_INSTALLED}. Install cml_bench anew, or run snakemake in a clone."
    )


def here_or_shipped(path: str) -> str:
    """The path itself, or that of the project's own file of this name, if nothing is here.

    So ``configs/tables/table1.yaml`` is found from every folder. Only names below ``configs`` are
    looked for.
    """
    if not path.startswith("configs/") or Path(path).exists():
        return path
    with contextlib.suppress(UserError):
        if (shipped := snakefile().parent / path).exists():
            return str(shipped)
    return path


def command(config: Path, rest: list[str], assignments: list[str] | None = None) -> list[str]:
    """The arguments of ``python -m snakemake`` for this configuration file.

    A file that is not in the working folder is looked for beside the Snakefile, where
    ``configs/demo.yaml`` is. ``rest``: targets and options of Snakemake, which come last, so that
    they count. ``assignments``: those of ``--set``. A UserError for a file that is in neither
    place.
    """
    found = snakefile()
    there = Path(here_or_shipped(config.as_posix()))
    if not there.is_file():
        raise UserError(f"there is no configuration file {config}, here or in {found.parent}.")
    given = [f"set={' '.join(assignments)}"] if assignments else []
    if given and "--config" in rest:  # Snakemake takes the last one alone
        place = rest.index("--config") + 1
        rest, given = [*rest[:place], *given, *rest[place:]], []
    return [
        *(["--config", *given] if given else []),
        f"--snakefile={found}",
        f"--workflow-profile={found.parent / 'profiles' / 'default'}",
        f"--configfile={there}",
        "--cores=all",
        *rest,
    ]
