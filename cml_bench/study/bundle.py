"""A study's finished runs as one file: records, configuration, commit, and a digest of each file.

A bundle is a zip archive of

* ``runs/<run>/``: ``record.json`` and ``episodes.npz`` of each finished run, and its models if they
  were asked for;
* ``configuration.json``: what was run, without what belongs to one machine;
* ``bundle.json``: :class:`Contents`, with the size and the SHA-256 of every other member.

An import believes none of it before it is checked. Imports no torch.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import cml_bench
from cml_bench.errors import UserError
from cml_bench.records import DIVERGED, Record, Store, read
from cml_bench.spec import RunSpec, explain
from cml_bench.study.plan import Plan
from cml_bench.study.portable import plugins_of, portable
from cml_bench.study.schema import Key
from cml_bench.system import sources
from cml_bench.system.files import write_bytes
from cml_bench.system.locks import being_written

IMPORTED = "imported"  # of the results folder: the configurations of bundles
MODELS = ("model", "colearner", "best_co", "last", "ensemble")
_LIST, _CONFIGURATION = "bundle.json", "configuration.json"
_RESULTS = ("record.json", "episodes.npz")  # of a run that diverged there is the first alone
_MEMBER = re.compile(
    rf"{_LIST}|{_CONFIGURATION}|runs/(?!\.)[^/\\]+/"
    rf"(?:record\.json|episodes\.npz|(?:{'|'.join(MODELS)})\.safetensors)"
)
_PACKING = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK = 1 << 20  # bytes
_LONGEST_LIST = 1 << 26  # bytes
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)


class Member(BaseModel):
    """A file of a bundle. ``size``: bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: str
    size: int = Field(ge=0)


class Contents(BaseModel):
    """What ``bundle.json`` says. ``commit``: of the checkout that exported; empty: not known."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    study: Key
    cml_bench: str
    commit: str = ""
    clean: bool | None = None
    files: dict[str, Member]


class Exported(NamedTuple):
    """What was exported. ``left``: runs of the study that are not finished."""

    runs: int
    left: int
    size: int
    sha256: str


class Imported(NamedTuple):
    """What was imported. ``there``: runs that were there already, with the same content.

    ``without_weights``: those of them that have no model here, while the bundle has it.
    ``plugins``: those that the configuration names.
    """

    contents: Contents
    runs: int
    there: int
    without_weights: int
    configuration: Path
    plugins: tuple[str, ...]


# -- export


def write(
    plan: Plan, configuration: dict[str, Any], results: Path, out: Path, weights: bool = False
) -> Exported:
    """Write a study's finished runs to a file. The same runs give the same bytes.

    ``weights``: the models, too. A UserError if no run is finished, and for one that is damaged or
    is being made.
    """
    store = Store(results)
    records = [record for run in plan.runs if (record := _finished(store, run.spec))]
    if not records:
        raise UserError(
            f"{results} holds no finished run of the study {plan.study.study}: name the folder that"
            " has them by --results."
        )
    commit, clean = sources.commit()
    kept = portable(plan, configuration)

    def content(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            files = {_CONFIGURATION: _add(archive, _CONFIGURATION, _json(kept))}
            for record in records:
                for path in _files(record, weights):
                    name = f"runs/{record.folder.name}/{path.name}"
                    files[name] = _add(archive, name, path)
            listed = Contents(
                study=plan.study.study,
                cml_bench=cml_bench.__version__,
                commit=commit,
                clean=clean,
                files=files,
            )
            _add(archive, _LIST, _json(listed.model_dump(mode="json")))

    write_bytes(out, content)
    left = len(plan.runs) - len(records)
    return Exported(len(records), left, out.stat().st_size, digest_of(out))


def digest_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finished(store: Store, spec: RunSpec) -> Record | None:
    record, problem = store.usable(spec)
    if problem:
        raise UserError(f"{problem} Nothing was exported.")
    if record and being_written(record.folder):
        raise UserError(f"{record.folder} is being written: wait for it; nothing was exported.")
    return record


def _files(record: Record, weights: bool) -> list[Path]:
    models = [f"{name}.safetensors" for name in MODELS] if weights else []
    paths = [record.folder / name for name in (*_RESULTS, *models)]
    return [path for path in paths if path.exists()]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def _add(archive: zipfile.ZipFile, name: str, content: Path | bytes) -> Member:
    member = zipfile.ZipInfo(name)  # of 1980, so that the same runs give the same bytes
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    digest, size = hashlib.sha256(), 0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(
            content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
        )
        target = stack.enter_context(archive.open(member, mode="w", force_zip64=True))
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            target.write(chunk)
    return Member(sha256=digest.hexdigest(), size=size)


# -- import


def read_in(path: Path, results: Path) -> Imported:
    """Put a bundle's runs into a results folder: all of them, or none.

    Every file is compared with its digest, and every record with its id, before anything is moved
    to its place. A run that is there already with the same content stays as it is; so do its other
    files. A UserError, which names the member or the run, for a file that is no bundle or was
    changed, and for a run that is there with other content or is begun.
    """
    with _archive(path) as archive, _stage(results) as stage:
        contents = _listed(archive, path)
        home = f"{contents.study}-{hashlib.sha256(archive.read(_LIST)).hexdigest()[:8]}"
        for name, member in contents.files.items():
            inside = name if name.startswith("runs/") else f"{IMPORTED}/{home}/{name}"
            _extract(archive, name, member, stage / inside, path)
        write_bytes(stage / IMPORTED / home / _LIST, archive.read(_LIST))
        folders = sorted((stage / "runs").iterdir())
        records = [_checked(folder, path) for folder in folders]
        there = [record for record in records if _is_there(record, results)]
        known = {record.folder for record in there}
        new = [folder for folder in folders if folder not in known]
        if not (results / IMPORTED / home).exists():
            new.append(stage / IMPORTED / home)
        without = [
            r for r in there if _models(r.folder) - _models(_place(r.folder, stage, results))
        ]
        _move(new, stage, results)
    Store(results).write_index()
    configuration = results / IMPORTED / home / _CONFIGURATION
    named = plugins_of(configuration.read_bytes())
    return Imported(contents, len(records), len(there), len(without), configuration, named)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}.") from None
    except (OSError, *_BROKEN) as error:
        raise UserError(f"{path} is no bundle, or is cut off ({error}): get it anew.") from None
    with archive:
        yield archive


@contextlib.contextmanager
def _stage(results: Path) -> Iterator[Path]:
    """A folder on the file system of the results. At the end nothing that was made is left, but for
    what holds something.
    """
    made = [results / "runs", results / IMPORTED, results, *results.parents]
    made = [folder for folder in made if not folder.exists()]
    for name in ("runs", IMPORTED):
        (results / name).mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".import-", dir=results))
    try:
        yield stage
    finally:
        shutil.rmtree(stage)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _listed(archive: zipfile.ZipFile, path: Path) -> Contents:
    """What the bundle says that it holds, if that is what it holds."""
    members = archive.infolist()
    names = Counter(member.filename for member in members)
    for member in members:
        name = member.filename
        if not _MEMBER.fullmatch(name):
            raise UserError(
                f"{path} has the member {name!r}, which is no file of a bundle (those of a run are"
                " in runs/RUN/): it was changed, get it anew."
            )
        if names[name] > 1:
            raise _changed(path, name, "is there twice")
        if member.compress_type not in _PACKING:
            raise _changed(path, name, "is packed in another way")
    if _LIST not in names:
        raise UserError(f"{path} is no bundle of runs: it has no {_LIST}.")
    if archive.getinfo(_LIST).file_size > _LONGEST_LIST:
        raise _changed(path, _LIST, "is too long")
    try:
        contents = Contents.model_validate_json(archive.read(_LIST))
    except ValidationError as error:
        raise UserError(
            explain(error, f"{path}: {_LIST} is damaged, or of a newer version")
        ) from None
    except _BROKEN as error:
        raise _changed(path, _LIST, f"cannot be read ({error})") from None
    if unlike := sorted({*names} - {_LIST} ^ contents.files.keys()):
        what = "is missing" if unlike[0] in contents.files else f"is not in {_LIST}"
        raise _changed(path, unlike[0], what)
    if _CONFIGURATION not in names or not any(name.startswith("runs/") for name in names):
        raise UserError(f"{path} is no bundle of runs: it has no configuration, or no run.")
    return contents


def _changed(path: Path, name: str, what: str) -> UserError:
    return UserError(f"{path}: its member {name} {what}: the file was changed, get it anew.")


def _extract(archive: zipfile.ZipFile, name: str, member: Member, target: Path, path: Path) -> None:
    digest = hashlib.sha256()

    def content(file: BinaryIO) -> None:
        left = member.size
        with archive.open(name) as packed:
            # One byte more is asked for, so that a member that is longer has another digest.
            while chunk := packed.read(min(_CHUNK, left + 1)):
                left -= len(chunk)
                digest.update(chunk)
                file.write(chunk)
                if left < 0:
                    return

    try:
        write_bytes(target, content)
    except _BROKEN as error:
        raise _changed(path, name, f"cannot be read ({error})") from None
    if digest.hexdigest() != member.sha256:
        raise _changed(path, name, "has another digest than when it was written")


def _checked(folder: Path, path: Path) -> Record:
    """The record of a run's folder, if its parts belong together."""
    name = f"runs/{folder.name}"
    try:
        record = read(folder)
        if record and record.status != DIVERGED:
            _ = record.arrays
    except UserError as error:
        told = str(error).replace(f"{folder}/", "").partition(". Move the folder away")[0]
        raise UserError(f"{path}, {name}: {told}: get it anew.") from None
    if record is None:
        raise _changed(path, f"{name}/record.json", "is missing")
    if record.spec.folder != folder.name:
        raise _changed(path, f"{name}/record.json", f"is of the run {record.spec.folder}")
    return record


def _place(staged: Path, stage: Path, results: Path) -> Path:
    return results / staged.relative_to(stage)


def _models(folder: Path) -> set[str]:
    return {name for name in MODELS if (folder / f"{name}.safetensors").exists()}


def _is_there(record: Record, results: Path) -> bool:
    """Whether the results have this very run already. A UserError if they have another in its
    place.
    """
    place = results / "runs" / record.folder.name
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return False
    here = read(place)
    if here is None:
        raise UserError(
            f"{place} is a run that is begun and not finished: let it end, or move the folder away;"
            " nothing was imported."
        )
    if unlike := _unlike(record, here):
        raise UserError(
            f"{place} is there already with other content ({', '.join(unlike)}): move it away, or"
            " import into another folder by --results; nothing was imported."
        )
    return True


def _unlike(record: Record, here: Record) -> list[str]:
    """In what two records of a run differ: keys of ``record.json``, series of episodes, models."""
    a, b = record.content, here.content
    unlike = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    if record.status != DIVERGED:  # committed records have the series that tables show, not all
        x, y = record.arrays, here.arrays
        unlike += [key for key in x.keys() & y.keys() if not np.array_equal(x[key], y[key])]
    for name in sorted(_models(record.folder) & _models(here.folder)):
        file = f"{name}.safetensors"
        if digest_of(record.folder / file) != digest_of(here.folder / file):
            unlike.append(file)
    return unlike


def _move(folders: list[Path], stage: Path, results: Path) -> None:
    """Move folders from the stage to their places; if one cannot be moved, all go back."""
    moved: list[Path] = []
    try:
        for folder in folders:
            os.rename(folder, _place(folder, stage, results))
            moved.append(folder)
    except BaseException as error:
        for folder in moved:
            os.rename(_place(folder, stage, results), folder)
        if isinstance(error, OSError):
            raise UserError(
                f"{_place(folder, stage, results)} cannot be made ({error.strerror or error}):"
                " mend that and start again; nothing was imported."
            ) from None
        raise
