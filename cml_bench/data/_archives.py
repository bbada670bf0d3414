"""Tar and zip archives, read member by member in memory: nothing is unpacked, so nothing can land elsewhere.

An archive with a member that would leave its folder is refused whole all the same: nobody published that.
"""

import contextlib
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cml_bench.errors import UserError

AGAIN = "Delete it and fetch it again, or correct your copy under `sources` in the configuration."


@contextlib.contextmanager
def reading(path: Path, place: str = "") -> Iterator[None]:
    """Whatever goes wrong inside is damage of the file at ``path``, and becomes a UserError that names it.

    Of damaged bytes zipfile, tarfile, pickle, scipy and Pillow raise what they come upon: besides their own errors
    RuntimeError, NotImplementedError, ValueError, SyntaxError, EOFError, KeyError, struct.error, zlib.error and more.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"{path} is damaged{f' at {place}' if place else ''} ({said}). {AGAIN}") from None


def check_names(path: Path, names: Iterable[str]) -> None:
    """Refuse absolute names and those that climb out with ``..``, also as Windows writes them."""
    for name in names:
        plain = PurePosixPath(name.replace("\\", "/"))
        if plain.is_absolute() or ".." in plain.parts or name[1:2] == ":":
            raise UserError(
                f"{path} is refused: its member {name!r} would be written outside of its folder. Nothing was unpacked. "
                "Do not use this file; get it from the published source."
            )


@contextlib.contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose names are checked. Reading members is done inside :func:`reading`."""
    with reading(path):
        archive = zipfile.ZipFile(path)
    with archive:
        check_names(path, archive.namelist())
        yield archive


def members(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """(name, open file) of the regular files of a tar archive, packed or not, in its order: packed archives are slow
    to go back in. Devices and links are passed over, links that leave the folder refused. Read within :func:`reading`.
    """
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            linked = (member.linkname,) if member.issym() or member.islnk() else ()
            check_names(path, (member.name, *linked))
            if member.isreg():
                with archive.extractfile(member) as file:
                    yield member.name, file
