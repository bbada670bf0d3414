"""What a run leaves behind, and the store of runs.

A run folder ``results/runs/<method>-<data>-<way>w<shot>s-s<seed>-<id8>/`` holds

* ``record.json``: all that is known of the run (see ``content.py``): spec, versions, machine,
  engine, timings, peak memory, hash of the decoded data, curves, diagnostics, selected steps, and
  the mean of every series of test results;
* ``episodes.npz``: the result of every test episode (number of correct answers, or squared error);
* ``model.safetensors`` (psi, theta of the selected step), ``colearner.safetensors`` (phi of the
  same step), ``best_co.safetensors`` and ``last.safetensors`` (complete), ``ensemble.safetensors``
  where models are averaged;
* ``run.log``; while the run trains also a lock, checkpoints and ``progress.json``; after a failure
  ``error.log``.

Imports no torch.
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
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cml_bench.content import Content
from cml_bench.errors import UserError
from cml_bench.readings import CO, META, reading_and_steps
from cml_bench.spec import Evaluation, RunSpec, explain
from cml_bench.system.files import write_bytes, write_json, write_text
from cml_bench.texts import score

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

    ``losses``, of any shape, are the training losses: one that is not finite makes the run
    ``diverged``. ``right``, shape (episodes,), counts the right answers among ``answers`` in each
    episode of the last validation: a mean within 2 standard errors of ``answers`` / ``way`` makes
    the run ``collapsed``. For regression, ``way`` is left out.

    Raises ``ValueError`` if ``way`` is given without counts from 0 to ``answers``, or is below 2:
    with one class every answer is right.
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

    The inequality |mean - chance| <= 2 sqrt(variance / n) is squared and freed of fractions, so
    that rounding never decides: a head that always names one class is exactly at chance in every
    episode, without any spread. A single episode has no spread either.
    """
    n, total = len(right), sum(right)
    # n (n - 1) times the variance
    spread = n * sum(count * count for count in right) - total * total
    off = way * total - n * answers
    return max(n - 1, 1) * off * off <= 4 * way * way * spread


class Record(Content):
    """A finished run as read from its folder."""

    folder: Path = Field(exclude=True)

    @property
    def content(self) -> dict[str, Any]:
        """The record as plain values: what ``record.json`` holds."""
        return self.model_dump(mode="json", exclude_unset=True)

    @property
    def scale(self) -> float:
        """100 for accuracies, which are shown in percent; 1 for squared errors."""
        return 100.0 if self.kind == "classification" else 1.0

    @property
    def told(self) -> str:
        """The test results of the method's own inner steps, in one line for a terminal:
        ``test 52.1 %, co-learner 50.3 %``. Empty if there are none.
        """
        shown = []
        for reading, name in ((META, "test"), (CO, "co-learner")):
            keys = [
                key
                for key in self.results
                if reading_and_steps(key)[0] == reading and "," not in key
            ]
            if keys:
                steps = [reading_and_steps(key)[1] for key in keys]
                own = self.spec.inner_steps
                key = keys[steps.index(own if own in steps else max(steps))]
                shown.append(f"{name} {score(self.results[key], self.kind)}")
        return ", ".join(shown)

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
        if ways := sorted({*wanted.normalised_with} - {*done.normalised_with}):
            return f"no results with queries normalised with {ways[0]} are stored"
        steps = ", ".join(map(str, sorted({*wanted.inner_steps} - {*done.inner_steps})))
        return f"no results after {steps} inner steps are stored, which are asked for"

    @property
    def testable(self) -> bool:
        """Whether the run can be tested further: its weights are stored, or its method has none."""
        return (self.folder / "model.safetensors").exists() or not self.parameters.train

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Key -> results of every test episode, shape (tasks,). A UserError if the file is missing
        or damaged.
        """
        return read_arrays(self.folder / "episodes.npz", _AGAIN)

    def episodes(self, key: str, tasks: int | None = None) -> np.ndarray:
        """Scores of the first ``tasks`` test episodes, float64 (tasks,): accuracy in [0, 1], or
        squared error. A UserError if fewer are stored.
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
        """The folder of this run, which may not exist yet."""
        return self.runs / spec.folder

    def read(self, spec: RunSpec) -> Record | None:
        """The record of the run with this very id; None if the run is not finished."""
        return read(self.folder(spec), spec)

    def all(self) -> list[Record]:
        """Every finished run but those with a damaged record, which ``status`` names."""
        folders = sorted(self.runs.iterdir()) if self.runs.is_dir() else []
        records = []
        for folder in folders:
            with contextlib.suppress(UserError):
                records.append(read(folder))
        return [record for record in records if record]

    def usable(self, spec: RunSpec) -> tuple[Record | None, str]:
        """The record, if it and its episodes can be read; else None, and what is wrong with its
        files, if there are any.
        """
        try:
            record = self.read(spec)
            if record is not None and record.status != DIVERGED:
                _ = record.arrays
        except UserError as error:
            return None, str(error)
        return record, ""

    def write_index(self) -> None:
        """Write ``index.csv`` beside ``runs/``: one line a run."""
        lines = ["folder,id,method,data,way,shot,seed,steps,status"]
        for record in self.all():
            s = record.spec
            of_spec = (s.id, s.method, s.data_id, s.way, s.shot, s.seed, s.steps)
            lines.append(",".join(map(str, (record.folder.name, *of_spec, record.status))))
        write_bytes(self.runs.parent / "index.csv", ("\n".join(lines) + "\n").encode())


def read(folder: Path, spec: RunSpec | None = None) -> Record | None:
    """The record in a folder; None if there is none. A UserError if it is damaged, or belongs to
    another run than ``spec``.
    """
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
    """Why wanted test results are not stored and cannot be made, and the way out; empty if they are
    or can.
    """
    lacks = record.lacks(wanted)
    if not lacks or record.testable:
        return ""
    return (
        f"its record is without weights (committed results have none), and {lacks}: ask for what it"
        " has, or move its folder away and start again, which trains it anew"
    )


def refuse_untestable(record: Record, wanted: Evaluation) -> None:
    """Raise a UserError with the reason of :func:`untestable`, if there is one."""
    if reason := untestable(record, wanted):
        raise UserError(f"{record.folder}: {reason}.")


def read_arrays(path: Path, way_out: str) -> dict[str, np.ndarray]:
    """The arrays of an npz file. A UserError with the way out if it is missing or damaged."""
    try:
        # Opened here, since np.load leaves a damaged file open.
        with open(path, "rb") as file, np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise UserError(f"{path} is missing or damaged (no such file). {way_out}") from None
    # TypeError: the file is a single array. RuntimeError: an archive that is packed in another way.
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
    """Write an npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def write_episodes(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write ``episodes.npz``. It comes before the record, which describes it."""
    write_arrays(folder / "episodes.npz", arrays)


def write_record(folder: Path, content: dict[str, Any]) -> Record:
    """Write ``record.json``, the last file of a run: where it stands, the run is finished."""
    write_json(folder / "record.json", content)
    return _typed(folder / "record.json")


class Progress(BaseModel):
    """How far a training is, in ``progress.json``, for ``status`` and the terminal.

    ``loss``: of the meta-learner in training. ``left``: seconds, None if the pace is not known yet.
    ``validation``: the meta-learner's scores so far; by ``kind``, accuracies in [0, 1] or squared
    errors.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    step: int
    steps: int
    loss: float | None = None
    left: int | None = None
    validation: tuple[float | None, ...] = ()
    kind: str = "classification"


def write_progress(folder: Path, progress: Progress) -> None:
    """Write ``progress.json``."""
    write_text(folder / "progress.json", progress.model_dump_json())


def read_progress(folder: Path) -> Progress | None:
    """What ``progress.json`` says; None if it is not there yet, or damaged."""
    try:
        return Progress.model_validate_json((folder / "progress.json").read_bytes())
    except (OSError, ValueError):
        return None


def forget_progress(folder: Path) -> None:
    """Remove ``progress.json``: the training has ended."""
    (folder / "progress.json").unlink(missing_ok=True)


def write_failure(folder: Path, text: str) -> Path:
    """Write ``error.log``: why the last attempt failed."""
    write_bytes(folder / "error.log", text.encode())
    return folder / "error.log"


def forget_failure(folder: Path) -> None:
    """Remove ``error.log``: a new attempt begins."""
    (folder / "error.log").unlink(missing_ok=True)
