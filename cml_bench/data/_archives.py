"""Reads tar and zip archives and folders, file by file in memory.

Nothing is unpacked, so no file can land outside its folder. An archive with a member that would is
still refused whole: no publisher made it. Files that operating systems leave behind, such as
``.DS_Store``, are skipped.
"""

import contextlib
import hashlib
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Self

from cml_bench.errors import UserError

AGAIN = (
    "Name another copy under `sources` in the configuration; or, if this one was downloaded, move"
    " it away and start again: it is then fetched anew."
)
ARCHIVE = "an archive (tar or zip), or the folder of what it holds,"
PICKLE, ZIP, MATLAB = "a pickle", "a zip archive", "a MATLAB file"
_KINDS = (  # how a file begins, and what it then is
    (rb"PK(\x03\x04|\x05\x06)", ZIP),
    (rb"\x1f\x8b|BZh|\xfd7zXZ", "a packed file (gzip, bzip2 or xz)"),
    (rb".{257}ustar", "a tar archive"),
    (rb"\x80[\x02-\x05]", PICKLE),
    (rb"7z\xbc\xaf", "a 7z archive"),
    (rb"Rar!", "a RAR archive"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8", "a picture"),
    (rb"\x93NUMPY", "a npy array"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"PAR1", "a Parquet file"),
    (rb"MATLAB 5", MATLAB),
    (rb"MATLAB 7", "a MATLAB 7.3 file"),
    (
        rb"version https://git-lfs",
        "a pointer of Git LFS, which stands for a file that was not fetched",
    ),
    (rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|!--)", "a web page"),
)
_SYSTEM = {
    "__macosx",
    "thumbs.db",
    "desktop.ini",
    "@eadir",
    "$recycle.bin",
    "system volume information",
}


def what_is(path: Path) -> str:
    """What is at ``path``, by its first bytes: "a zip archive", "a folder", ... Empty: unknown."""
    if path.is_dir():
        return "a folder"
    with open(path, "rb") as file:
        beginning = file.read(512)
    if not beginning:
        return "empty"
    kinds = (
        kind for start, kind in _KINDS if re.match(start, beginning, re.IGNORECASE | re.DOTALL)
    )
    return next(kinds, "")


@contextlib.contextmanager
def reading(path: Path, place: str = "", wanted: str = "") -> Iterator[None]:
    """Turns every error inside the ``with`` block into a UserError that names the file ``path``.

    ``place`` names the part of the file that is read. ``wanted`` is the kind of file that is
    needed, in the words of :func:`what_is`: a file of another kind is then named as what it is.
    All errors are caught, since zipfile, tarfile, pickle, scipy and Pillow raise all sorts on
    damaged bytes: RuntimeError, NotImplementedError, ValueError, SyntaxError, EOFError, KeyError,
    struct.error, zlib.error and more.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise UserError(f"{error.filename} cannot be read ({error.strerror}).") from None
        if wanted and (kind := what_is(path)) not in ("", wanted):
            raise UserError(f"{path} is {kind}; {wanted} is wanted. {AGAIN}") from None
        said = escaped(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        raise UserError(
            f"{path} is damaged{f' at {place}' if place else ''} ({said}). {AGAIN}"
        ) from None


def escaped(name: str) -> str:
    """A name for a message: if it has characters that cannot be printed, with Python's escapes."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def some(names: Sequence[str]) -> str:
    """``a, b, c, …``: the first three names, for a message."""
    return ", ".join(map(escaped, names[:3])) + ", …" * (len(names) > 3)


def described(names: Sequence[str]) -> str:
    """``3 files (a, b, c)``: their number, and the first three names."""
    if not names:
        return "no files"
    more = ", ..." * (len(names) > 3)
    return f"{len(names):,} file{'s' * (len(names) > 1)} ({', '.join(sorted(names)[:3])}{more})"


def check_names(path: Path, names: Iterable[str]) -> None:
    """Refuse absolute names and names with ``..``, also as Windows writes them."""
    for name in names:
        plain = PurePosixPath(name.replace("\\", "/"))
        if plain.is_absolute() or ".." in plain.parts or name[1:2] == ":":
            raise UserError(
                f"{path} is refused: its member {name!r} would be written outside of its folder."
                " Nothing was unpacked. Do not use this file; get it from the published source."
            )


def members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield (name, open file) for each file in a tar archive, a zip archive or a folder.

    Names have ``/`` on every system and can be printed. The files come in the order of the archive,
    since going back in a packed one is slow. Hidden files, system files, devices and links inside
    archives are skipped. A UserError for a link or a name that leaves the archive, and for a name
    that comes twice. Use it within :func:`reading`, and to the end, so that all names are checked.
    """
    if path.is_dir():
        content = _of_folder(path)
    elif (kind := what_is(path)) == ZIP:
        content = _of_zip(path)
    elif kind.startswith(("a tar", "a packed")) or (not kind and tarfile.is_tarfile(path)):
        content = _of_tar(path)
    else:
        raise UserError(
            f"{path} is {kind or 'a file of an unknown kind'}; {ARCHIVE} is wanted. {AGAIN}"
        )
    seen = set()
    for name, file in content:
        plain = PurePosixPath(name.replace("\\", "/"))
        if not plain.parts or any(map(is_system, plain.parts)):
            continue
        shown = escaped(str(plain))
        if shown in seen:
            raise UserError(f"{path} holds {shown} twice, and nobody knows which is meant. {AGAIN}")
        seen.add(shown)
        yield shown, file


def state(folder: str) -> str:
    """What changes with the files below a folder: their names, sizes and times. Nothing is read.

    Empty if the folder is not there, or cannot be looked at: who reads it says why.
    """
    digest = hashlib.sha256()
    try:
        for file in files_of(Path(folder)):
            about = file.stat()
            digest.update(ascii((str(file), about.st_size, about.st_mtime_ns)).encode())
    except (OSError, ValueError, UserError):
        return ""
    return digest.hexdigest()


def is_system(name: str) -> bool:
    """Whether a name is a hidden file or one of a system: ``._a.png`` and ``.DS_Store`` (macOS),
    ``Thumbs.db`` (Windows), ``@eaDir`` (Synology).
    """
    return name.startswith(".") or name.lower() in _SYSTEM


class _Member(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """As in tarfile, but a damaged or cut header is an error. tarfile would take it for the end
        of the archive, whose true mark is a block of zeros.
        """
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed does not list it
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _of_tar(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path, "r:*", tarinfo=_Member) as archive:
        for member in archive:
            linked = (member.linkname,) if member.issym() or member.islnk() else ()
            check_names(path, (member.name, *linked))
            if member.isreg():
                content = archive.extractfile(member)
                assert content is not None, "only members that are no files have no content"
                with content as file:
                    yield member.name, file
        assert archive.fileobj is not None, "a tar file that is open has one"
        while archive.fileobj.read(1 << 20):  # to the end, where a packed file has its checksum
            pass


def _of_zip(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            check_names(path, (member.filename,))
            if stat.S_ISLNK(member.external_attr >> 16):
                check_names(path, (archive.read(member).decode("utf-8", "replace"),))
            elif not member.filename.endswith(("/", "\\")):
                with archive.open(member) as file:
                    yield member.filename, file


def _of_folder(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    for file in files_of(path):
        with open(file, "rb") as opened:
            yield file.relative_to(path).as_posix(), opened


def files_of(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """All files below a folder of the user's, in the order of their names; links are followed.

    A UserError for a link that leads nowhere, or to a folder that contains it.
    """
    real = os.path.realpath(folder)
    if real in above:
        raise UserError(
            f"{folder} is a link to a folder that it stands in. Name a folder without it."
        )
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from files_of(Path(entry.path), (*above, real))
        elif entry.is_file():
            yield Path(entry.path)
        elif entry.is_symlink():
            raise UserError(
                f"{entry.path} is a link to {os.readlink(entry.path)}, which is not there."
                " Correct it."
            )
