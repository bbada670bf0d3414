"""Writing files so that a reader sees either the old content or the new one, whole."""

import contextlib
import errno
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cml_bench.errors import UserError

DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}  # this user may read the folder, not write


@contextlib.contextmanager
def said_if_denied(what: str) -> Iterator[None]:
    """If there is no permission to write, say so on standard error and go on.

    A user who may only read a study can still look at it. ``what`` names the file in the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DENIED:
            raise
        print(
            f"{what} cannot be written ({error.strerror}: {error.filename}).",
            file=sys.stderr,
            flush=True,
        )


def write_bytes(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all: to a temporary name in its folder, then flush and rename.

    ``content`` is bytes, or a function that writes to the open file. On any error, such as a full
    disk, the temporary file is removed and the old file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    # Not mkstemp: only their owner could read its files. The user's umask decides the mode here.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """:func:`write_bytes` for JSON, on one line unless ``indent`` is given.

    A ValueError for NaN, which JSON does not have: write None for it.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file. A UserError if the file is missing or holds no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.") from None
