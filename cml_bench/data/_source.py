"""Gets the files of data sets: from the user's own copies, or from mirrors, tried in order.

Downloads stand in ``downloads/STORE`` of the data folder. While one is under way it stands in
``.incoming`` there; it gets its name when its digest is verified. If a file is published without a
digest, the SHA-256 of the first download is kept in ``digests.json``, and a file that differs from
it later is refused.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cml_bench.data._archives import files_of, reading
from cml_bench.data.prepared import FIRST, LocalCopy
from cml_bench.errors import UserError
from cml_bench.system.files import write_json
from cml_bench.system.locks import run_lock

_ARCHIVES = (".zip", ".tar.gz", ".tgz")  # an own copy of these may be a folder of their content
Say = Callable[[str], None]


class RemoteFile(NamedTuple):
    """A published file.

    ``urls`` are its addresses, tried in order; a file that must be fetched by hand has none.
    ``size`` is in bytes; 0 if it is not published. ``sha256`` and ``md5`` are the published
    digests; if both are empty, the first download counts. ``page`` is where a person finds the
    file.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    sha256: str = ""
    page: str = ""
    md5: str = ""

    @property
    def digest(self) -> str:
        """The strongest published digest: ``sha256:...``, else ``md5:...``, else empty."""
        return (
            f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}" if self.md5 else ""
        ).lower()


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file or of a folder. For a folder it is what this command prints:

    ``(cd FOLDER && find -L . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum``
    """
    if not path.is_dir():
        return _digest(path, "sha256")
    digest = hashlib.sha256()
    for name, file in sorted(
        (os.fsencode(file.relative_to(path)), file) for file in files_of(path)
    ):
        digest.update(_line(_digest(file, "sha256").encode(), name))
    return digest.hexdigest()


def _line(digest: bytes, name: bytes) -> bytes:
    """A line as ``sha256sum`` prints it.

    If a name has a backslash or a line break, these are escaped, and the line begins with a
    backslash.
    """
    plain = name.replace(b"\\", rb"\\").replace(b"\n", rb"\n").replace(b"\r", rb"\r")
    return b"\\"[: plain != name] + digest + b"  ./" + plain + b"\n"


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def digests_of(file: RemoteFile, path: Path, own: LocalCopy | None) -> list[str]:
    """All digests by which the verified file at ``path`` may be asked for later.

    A digest that is known already is not computed again.
    """
    digests = [f"sha256:{own.sha256 if own else file.sha256.lower() or sha256_of(path)}"]
    if file.md5 and not file.sha256 and not path.is_dir():
        digests.append(f"md5:{_digest(path, 'md5') if own else file.md5.lower()}")
    return digests if own or file.digest else [*digests, FIRST]


def to_stderr(text: str) -> None:
    """Print a line on standard error: the usual ``say``."""
    print(text, file=sys.stderr, flush=True)


def obtain_all(
    files: Sequence[RemoteFile],
    folder: Path,
    own: Mapping[str, LocalCopy],
    more_bytes: int = 0,
    say: Say = to_stderr,
) -> dict[str, Path]:
    """The paths of the verified files by name: the user's ``own`` copies, else files in ``folder``.

    What is not in ``folder`` is downloaded. If no mirror delivers a file, or a digest is wrong, a
    UserError names the file and says what to do. Before anything is downloaded, the disk must have
    room for all files and for ``more_bytes`` that will be made from them. A second process waits
    until the first has the files.
    """
    folder = Path(folder)
    paths = {
        file.name: _own(file, own[file.name])
        for file in files
        if file.name in own and own[file.name].path
    }
    wanted = [_mirrored(file, own.get(file.name)) for file in files if file.name not in paths]
    if not wanted:
        check_room(folder, more_bytes)
        return paths
    with run_lock(folder, wait=say, setting="`data_dir`"):
        missing = []
        for file in wanted:
            path = folder / file.name
            if path.is_dir():
                raise UserError(
                    f"{path} is a folder, where the file {file.name} belongs. Move it elsewhere,"
                    " and name it under `sources` in the configuration if it is that file"
                    " unpacked."
                )
            if path.exists() and _verified(file, path, say):
                paths[file.name] = path
            else:
                missing.append(file)
        check_room(
            folder,
            more_bytes + sum(file.size - _received(file, folder) for file in missing if file.urls),
        )
        for file in missing:
            paths[file.name] = _fetched(file, folder, say)
    names = {_mirrored(file, own.get(file.name)).name: file.name for file in files}
    return {names.get(name, name): path for name, path in paths.items()}


def check_room(folder: Path, needed: int) -> None:
    """A UserError if the disk of ``folder`` has fewer free bytes than ``needed``."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"{folder} has room for {free / 1e9:,.2f} GB, and {needed / 1e9:,.2f} GB are needed for"
            " the files and what is made from them. Free some, or name another folder under"
            " `data_dir` in the configuration."
        )


def _own(file: RemoteFile, own: LocalCopy) -> Path:
    assert own.path is not None, "the caller has looked"
    path = Path(own.path)
    if not path.exists():
        raise UserError(
            f"the local copy of {file.name} is not there: {path}. Correct its path under `sources`."
        )
    if path.is_dir() and not file.name.endswith(_ARCHIVES):
        raise UserError(
            f"the local copy of {file.name} is a folder: {path}. Give the path of the file."
        )
    with reading(path):
        sha256 = sha256_of(path)
    if sha256 != own.sha256:
        raise UserError(
            f"{path} has SHA-256 {sha256}, the configuration says {own.sha256}. Correct the one or"
            " the other."
        )
    return path


def _mirrored(file: RemoteFile, own: LocalCopy | None) -> RemoteFile:
    """The file with the user's mirror as an address.

    If the mirror's file has another digest than the published one, it gets a name of its own.
    """
    if own is None or own.url is None:
        return file
    if own.sha256 == file.sha256.lower():
        return file._replace(urls=(own.url, *file.urls))
    return RemoteFile(f"{own.sha256[:8]}-{file.name}", (own.url,), 0, own.sha256)


def _received(file: RemoteFile, folder: Path) -> int:
    part = _part(file, folder)
    return min(file.size, part.stat().st_size) if part.exists() else 0


def _part(file: RemoteFile, folder: Path) -> Path:
    return folder / ".incoming" / f"{file.name}.part"


# ---- digests


def _recorded(folder: Path) -> dict[str, str]:
    path = folder / "digests.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(digest).lower() for name, digest in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({' '.join(str(error).split())}). It holds the SHA-256 of files"
            " that are published without one: move it away to take the files as they are now."
        ) from None


def _wanted_digest(file: RemoteFile, folder: Path) -> str:
    recorded = _recorded(folder).get(file.name) if not file.digest else None
    return f"sha256:{recorded}" if recorded else file.digest


def _verified(file: RemoteFile, path: Path, say: Say) -> bool:
    """Whether the file is the wanted one. If no digest is published, the first file seen is."""
    wanted = _wanted_digest(file, path.parent)
    if wanted:
        algorithm, _, digest = wanted.partition(":")
        size = path.stat().st_size
        same = size == (file.size or size) and _digest(path, algorithm) == digest
        if not same and not file.digest:
            raise UserError(
                f"{path} is not the file of the first download: {_changed(file, path.parent)}"
            )
        return same
    _record(file, path, say)
    return True


def _record(file: RemoteFile, path: Path, say: Say) -> None:
    digest = sha256_of(path)
    write_json(path.parent / "digests.json", _recorded(path.parent) | {file.name: digest}, indent=1)
    say(
        f"{file.name} is published without a digest. Its SHA-256 is {digest}; from now on it must"
        " stay the same."
    )


def _changed(file: RemoteFile, folder: Path) -> str:
    return (
        f"its SHA-256 is not {_recorded(folder)[file.name][:12]}…, which {folder / 'digests.json'}"
        f" keeps. If you trust the new one, take the line of {file.name} out of it."
    )


# ---- downloads


def _fetched(file: RemoteFile, folder: Path, say: Say) -> Path:
    failures = []
    for url in file.urls:
        say(f"getting {file.name}{f' ({file.size / 1e6:,.1f} MB)' if file.size else ''} from {url}")
        problem = _download(url, file, folder, say)
        if problem is None:
            return folder / file.name
        say(f"{url}: {problem}")
        failures.append(f"{url}: {problem}")
    raise UserError(_what_to_do(file, folder / file.name, failures))


def _what_to_do(file: RemoteFile, path: Path, failures: list[str]) -> str:
    size = f"{file.size:,} bytes, " if file.size else ""
    algorithm, _, digest = (_wanted_digest(file, path.parent) or "no digest:").partition(":")
    name = {"sha256": "SHA-256 ", "md5": "MD5 "}.get(algorithm, "no digest is published")
    what = f"the file ({size}{name}{f'{digest[:12]}…' if digest else ''})"
    if not file.urls:
        wrong = ", where another file is now" if path.exists() else ""
        return (
            f"{file.name} must be fetched by hand: get {what} from {file.page} and put it at"
            f" {path}{wrong}, or name your copy under `sources` in the configuration."
        )
    by_hand = f", or get it from {file.page}" if file.page else ""
    return (
        f"{file.name} could not be fetched. {'; '.join(failures)}. Check the connection, put {what}"
        f" at {path} yourself{by_hand}, or name a copy of yours under `sources` in the"
        " configuration."
    )


def _download(url: str, file: RemoteFile, folder: Path, say: Say) -> str | None:
    """Download a file: pooch writes it to a temporary name, verifies and renames it.

    Returns what went wrong, or None.
    """
    import pooch

    from cml_bench.data._download import Failed, Resuming

    part, digest = _part(file, folder), _wanted_digest(file, folder)
    part.parent.mkdir(parents=True, exist_ok=True)
    # Left by a process that was killed while pooch verified. No other runs: we hold the lock.
    for stray in part.parent.glob("tmp*"):
        stray.unlink()
    pooch.get_logger().setLevel("WARNING")  # `say` announces the download, with its size
    downloader = Resuming(part, file.size, bool(digest), say)
    problem = None
    for again in (True, False):
        try:
            pooch.retrieve(
                url,
                known_hash=digest or None,
                fname=file.name,
                path=part.parent,
                downloader=downloader,
            )
        except Failed as error:
            problem = str(error)
        except ValueError:
            if downloader.resumed and again:  # perhaps parts of two files: once more, whole
                continue
            problem = "the file has another digest than the published one"
            if not file.digest:
                problem = _changed(file, folder)
        break
    if problem is None:
        os.replace(part.parent / file.name, folder / file.name)
        if not file.digest and not digest:
            _record(file, folder / file.name, say)
    if not any(part.parent.glob("*.part")):
        shutil.rmtree(part.parent)
    return problem
