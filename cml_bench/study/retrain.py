"""Move a method's runs aside, so that the next start trains them anew. For development.

A finished run is never trained again, and its id does not know of an edit without a new
``version``. Nothing is deleted: the folders go to ``aside`` in the results folder, and can be moved
back. Imports no torch.
"""

import datetime
import os
from pathlib import Path

from cml_bench.errors import UserError, unknown
from cml_bench.records import Store
from cml_bench.registry import CML
from cml_bench.study.plan import Plan
from cml_bench.system.locks import being_written

FOLDER = "aside"


def folders(plan: Plan, results: Path, method: str) -> list[Path]:
    """Folders of a study's runs of ``method`` and ``method+cml`` that are finished or begun.

    A UserError for a method that the study has not, and while one of these runs is being made.
    """
    names = {method, method + CML}
    known = list(dict.fromkeys(spec.method for spec in plan.specs.values()))
    if not names & {*known}:
        raise unknown(f"method of the study {plan.study.study}", method, known)
    store = Store(results)
    every = [store.folder(spec) for spec in plan.specs.values() if spec.method in names]
    made = [folder for folder in every if _holds(folder)]
    if busy := [folder.name for folder in made if being_written(folder)]:
        raise UserError(
            f"{busy[0]} is being made now{f', and {len(busy) - 1} more' * (len(busy) > 1)}: wait"
            " for it, or stop it; nothing was moved."
        )
    return made


def _holds(folder: Path) -> bool:
    """Whether there is a record, or a checkpoint from which a run of the old source would go on."""
    return (folder / "record.json").exists() or any(folder.glob("checkpoint-*.pt"))


def move(made: list[Path], results: Path, method: str) -> Path:
    """Move the folders aside; returns the new folder that holds them."""
    now = datetime.datetime.now(datetime.UTC)
    aside = results / FOLDER / f"{method}-{now:%Y%m%d-%H%M%S-%f}"
    try:
        aside.mkdir(parents=True)
        for folder in made:
            os.rename(folder, aside / folder.name)
        Store(results).write_index()
    except OSError as error:
        raise UserError(
            f"runs cannot be moved from {results / 'runs'} to {aside} ({error.strerror or error}):"
            " mend that and start again; what was moved is there, and nothing is lost."
        ) from None
    return aside


def text(made: list[Path], results: Path, method: str, moved: Path | None) -> str:
    """What was moved, or what would be."""
    whose = f"of {' and '.join(sorted({f.name.partition('-')[0] for f in made} or {method}))}"
    if not made:
        return f"no run {whose} is finished or begun in {results}: nothing to move."
    names = "\n".join(f"  {folder.name}" for folder in made)
    if moved:
        return f"{names}\n{len(made)} runs {whose} are in {moved} now; the next start trains anew."
    return (
        f"{names}\n{len(made)} runs {whose} would be moved to {results / FOLDER}: add --yes to"
        " move them."
    )
