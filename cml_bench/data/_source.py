"""Where files of data sets come from: mirrors in order, verified by digest before they have their name."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from cml_bench.config import LocalCopy
from cml_bench.errors import UserError


class RemoteFile(NamedTuple):
    """A published file: its name, addresses (tried in order), size in bytes and SHA-256.

    A file that must be fetched by hand has no addresses; ``page`` says where a person finds it.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    sha256: str
    page: str = ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file (hex)."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def obtain(file: RemoteFile, folder: Path, local: LocalCopy | None = None) -> Path:
    """The verified file: a local copy if one is given, else from ``folder``, else downloaded into it.

    A UserError names the file and what to do when no mirror delivers it or a digest is wrong.
    """
    if local is not None:
        return _local(file, local)
    path = Path(folder) / file.name
    if path.exists() and sha256_of(path) == file.sha256:
        return path
    failures = []
    for url in file.urls:
        problem = _download(url, file, path)
        if problem is None:
            return path
        failures.append(f"{url}: {problem}")
    what = f"the file ({file.size:,} bytes, SHA-256 {file.sha256[:12]}…)"
    if not file.urls:
        wrong = ", where another file is now" if path.exists() else ""
        raise UserError(
            f"{file.name} must be fetched by hand: get {what} from {file.page} and put it at {path}{wrong}, or name "
            "your copy under `sources` in the configuration."
        )
    raise UserError(
        f"{file.name} could not be fetched. {'; '.join(failures)}. Check the connection, put {what} at {path} "
        "yourself, or name a copy of yours under `sources` in the configuration."
    )


def _local(file: RemoteFile, local: LocalCopy) -> Path:
    path = Path(os.path.expanduser(local.path))  # of a user who does not exist: left as it is
    if not path.is_file():
        raise UserError(f"the local copy of {file.name} is not there: {path}. Correct its path under `sources`.")
    found = sha256_of(path)
    if found != local.sha256:
        raise UserError(
            f"{path} has SHA-256 {found}, the configuration says {local.sha256}. Correct the one or the other."
        )
    return path


def _download(url: str, file: RemoteFile, path: Path) -> str | None:
    """None, or what went wrong. pooch writes to a temporary name, verifies, renames."""
    import pooch
    import requests

    try:
        pooch.retrieve(
            url, known_hash=f"sha256:{file.sha256}", fname=path.name, path=path.parent,
            downloader=pooch.HTTPDownloader(progressbar=False, timeout=30),
        )  # fmt: skip
    except requests.RequestException as error:
        return type(error).__name__ if error.response is None else f"status {error.response.status_code}"
    except ValueError:
        return "the file has another digest than the published one"
    return None
