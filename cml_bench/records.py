"""What a run leaves behind, and the store of runs.

A run folder ``results/runs/<method>-<data>-<way>w<shot>s-s<seed>-<id8>/`` holds

* ``record.json``: complete on its own: spec, versions, machine, engine, timings, peak memory, hash
  of the decoded data, curves, diagnostics, selected steps, and the mean of every evaluation;
* ``episodes.npz``: the result of every test episode (number of correct answers, or squared error);
* ``model.safetensors`` (psi, theta of the selected step), ``colearner.safetensors`` (phi of the
  same step), ``best_co.safetensors`` and ``last.safetensors`` (complete), ``ensemble.safetensors``
  where models are averaged;
* ``run.log``; while it trains also a lock, checkpoints and ``progress.json``; after a failure
  ``error.log``.

The report side reads these files and imports no torch.
"""

import contextlib
import io
import json
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, ValidationError

from cml_bench.content import Content
from cml_bench.errors import UserError
from cml_bench.spec import Evaluation, RunSpec, explain
from cml_bench.system.files import write_bytes, write_json

FORMAT = 1
_AGAIN = "Move the folder away and start again: the run is then trained anew."


FINISHED, DIVERGED, COLLAPSED = "finished", "diverged", "collapsed"
STATUSES = (FINISHED, DIVERGED, COLLAPSED)


def run_status(
    losses: ArrayLike,
    right: ArrayLike | None = None,
    answers: int | None = None,
    way: int | None = None,
) -> str:
    """How a run ended: ``diverged``, ``collapsed`` or ``finished``.

    ``losses``: the training losses, any shape; one that is not finite makes the run ``diverged``,
    whatever the rest.  ``right``: shape (episodes,), integers: the right answers among ``answers``
    in each episode of the run's last validation; a mean within 2 standard errors of ``answers`` /
    ``way`` makes it ``collapsed``. Leave ``way`` out for regression.

    Raises ``ValueError`` if ``way`` is given without counts from 0 to ``answers``, or is below 2:
    of one class every answer is right.
    """
    if not np.isfinite(np.asarray(losses, dtype=np.float64)).all():
        return DIVERGED
    if way is None:
        return FINISHED
    counts = np.asarray([] if right is None else right)
    whole = counts.ndim == 1 and counts.size > 0 and np.issubdtype(counts.dtype, np.integer)
    if not whole or answers is None or counts.min() < 0 or counts.max() > answers:
        raise ValueError(
            "a classification run needs its validation's right answers: whole numbers, one an"
            " episode"
        )
    if way < 2:
        raise ValueError(f"a classification run needs at least 2 ways, got {way}")
    return COLLAPSED if _at_chance([int(count) for count in counts], answers, way) else FINISHED


def _at_chance(right: list[int], answers: int, way: int) -> bool:
    """Whether the mean of the counts is within 2 standard errors of ``answers`` / ``way``.

    The inequality |mean - chance| <= 2 sqrt(variance / n), squared and freed of fractions.  A head
    that always names one class is exactly at chance in every episode, without spread: whole numbers
    leave no rounding to decide on it. One episode has no spread, so it is at chance only if it is
    exactly there.
    """
    n, total = len(right), sum(right)
    spread = (
        n * sum(count * count for count in right) - total * total
    )  # n (n - 1) times the variance
    off = way * total - n * answers
    return max(n - 1, 1) * off * off <= 4 * way * way * spread


def evaluation_key(reading: str, steps: int) -> str:
    """``co_paired@1``: name of one series of episode results."""
    return f"{reading}@{steps}"


def own_steps(spec: RunSpec) -> int:
    """Inner steps of the method's training; 0 for a method that does not adapt."""
    return spec.options.get("inner_steps", 0)


class Record(Content):
    """A finished run as read from its folder."""

    folder: Path = Field(exclude=True)

    @property
    def content(self) -> dict[str, Any]:
        """The record as plain values: what ``record.json`` holds."""
        return self.model_dump(mode="json", exclude_unset=True)

    @property
    def evaluated(self) -> Evaluation:
        """What the stored episode results cover."""
        return self.evaluation

    @property
    def scale(self) -> float:
        """100 for accuracies, which are shown in percent; 1 for squared errors."""
        return 100.0 if self.kind == "classification" else 1.0

    def lacks(self, wanted: Evaluation) -> str:
        """Which of the wanted test results are not stored, as a clause; empty: none, or the run has
        no model that could be tested.
        """
        done = self.evaluation
        if self.status == DIVERGED or done.covers(wanted):
            return ""
        if done.query != wanted.query:
            return (
                f"it was tested with {done.query} queries a class, and {wanted.query} are asked for"
            )
        if done.tasks < wanted.tasks:
            return f"{done.tasks:,} test tasks are stored, and {wanted.tasks:,} are asked for"
        steps = ", ".join(map(str, sorted({*wanted.inner_steps} - {*done.inner_steps})))
        return f"no results after {steps} inner steps are stored, which are asked for"

    @property
    def testable(self) -> bool:
        """Whether the run can be tested further: its weights are stored, or its method has none."""
        return (self.folder / "model.safetensors").exists() or not self.parameters.train

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The stored results of every test episode. A UserError if the file is missing or
        damaged.
        """
        return read_arrays(self.folder / "episodes.npz", _AGAIN)

    def episodes(self, key: str, tasks: int | None = None) -> np.ndarray:
        """Scores of the first ``tasks`` test episodes: accuracy in [0, 1], or squared error.
        float64 (tasks,).
        """
        if key not in self.arrays:
            raise UserError(
                f"{self.folder / 'episodes.npz'} has no results for {key!r}, only for "
                f"{', '.join(self.arrays) or 'nothing'}. {_AGAIN}"
            )
        values = self.arrays[key]
        if tasks is not None and len(values) < tasks:
            raise UserError(
                f"{self.folder} has {len(values)} test episodes for {key!r}; {tasks} are asked for."
                f" {_AGAIN}"
            )
        values = values[:tasks].astype(np.float64)
        return values / self.answers_per_episode if self.kind == "classification" else values


class Store:
    """The runs under a results folder."""

    def __init__(self, results: Path | str):
        self.runs = Path(results) / "runs"

    def folder(self, spec: RunSpec) -> Path:
        """Where this run is or will be."""
        return self.runs / spec.folder

    def read(self, spec: RunSpec) -> Record | None:
        """The record of this very run (same id), or None if it is not finished."""
        return read(self.folder(spec), spec)

    def all(self) -> list[Record]:
        """Every finished run; those whose record is damaged are passed over (``status`` names
        them).
        """
        folders = sorted(self.runs.iterdir()) if self.runs.is_dir() else []
        records = []
        for folder in folders:
            with contextlib.suppress(UserError):
                records.append(read(folder))
        return [record for record in records if record]

    def usable(self, spec: RunSpec) -> tuple[Record | None, str]:
        """The record, if it and its episodes can be read; else None and, where there is something,
        what is wrong.
        """
        try:
            record = self.read(spec)
            if record is not None and record.status != "diverged":
                _ = record.arrays
        except UserError as error:
            return None, str(error)
        return record, ""

    def write_index(self) -> None:
        """``index.csv`` beside ``runs/``: one line a run."""
        lines = ["folder,id,method,data,way,shot,seed,steps,status"]
        for record in self.all():
            s = record.spec
            lines.append(
                f"{record.folder.name},{s.id},{s.method},{s.data_id},{s.way},{s.shot},{s.seed},{s.steps},{record.status}"
            )
        write_bytes(self.runs.parent / "index.csv", ("\n".join(lines) + "\n").encode())


def read(folder: Path, spec: RunSpec | None = None) -> Record | None:
    """The record in a folder, or None; an error if it cannot be read or belongs to another run."""
    path = Path(folder) / "record.json"
    if not path.exists():
        return None
    record = _typed(path)
    stored, computed = record.id, record.spec.id
    if stored != computed:
        raise UserError(
            f"{path} was changed: its specification does not belong to its id {stored[:8]} (which"
            f" would be {computed[:8]}). {_AGAIN}"
        )
    if spec is not None and stored != spec.id:
        raise UserError(
            f"{path} belongs to another run (its id {stored[:8]}, expected {spec.id[:8]}). Move the"
            " folder away."
        )
    return record


def _typed(path: Path) -> Record:
    """What ``record.json`` says; a UserError if a key that readers rely on is missing or wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no mapping of keys to values")
        return Record.model_validate({**content, "folder": path.parent})
    except ValidationError as error:
        raise UserError(f"{explain(error, f'{path} is damaged')} {_AGAIN}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}). {_AGAIN}") from None


def untestable(record: Record, wanted: Evaluation) -> str:
    """Why test results that are wanted of a record cannot be had, and the way out; empty: they are
    there, or can.
    """
    lacks = record.lacks(wanted)
    if not lacks or record.testable:
        return ""
    return (
        f"its record is without weights (committed results have none), and {lacks}: ask for what it"
        " has, or move its folder away and start again, which trains it anew"
    )


def refuse_untestable(record: Record, wanted: Evaluation) -> None:
    """A UserError with the reason of :func:`untestable`, if there is one."""
    if reason := untestable(record, wanted):
        raise UserError(f"{record.folder}: {reason}.")


def read_arrays(path: Path, way_out: str) -> dict[str, np.ndarray]:
    """The arrays of an npz file. A UserError with the way out if it is missing or damaged."""
    try:
        with (
            open(path, "rb") as file,
            np.load(file) as arrays,
        ):  # np.load leaves a damaged file open
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise UserError(f"{path} is missing or damaged (no such file). {way_out}") from None
    # TypeError: a single array under this name; RuntimeError: an archive that says it is packed in
    # another way.
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(
            f"{path} is missing or damaged ({' '.join(str(error).split())}). {way_out}"
        ) from None


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def write_episodes(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """``episodes.npz``; written before the record that speaks of it."""
    write_arrays(folder / "episodes.npz", arrays)


def write_record(folder: Path, content: dict[str, Any]) -> Record:
    """``record.json``, the last file of a run to be written: where it stands, the run is
    finished.
    """
    write_json(folder / "record.json", content)
    return _typed(folder / "record.json")


def write_progress(folder: Path, progress: dict[str, Any]) -> None:
    """``progress.json``: step, steps, loss and seconds left of a training under way, for
    ``status``.
    """
    write_json(folder / "progress.json", progress)


def forget_progress(folder: Path) -> None:
    """The training has ended."""
    (folder / "progress.json").unlink(missing_ok=True)


def write_failure(folder: Path, text: str) -> Path:
    """``error.log``: why the last attempt failed."""
    write_bytes(folder / "error.log", text.encode())
    return folder / "error.log"


def forget_failure(folder: Path) -> None:
    """A new attempt begins."""
    (folder / "error.log").unlink(missing_ok=True)
