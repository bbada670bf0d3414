"""Writing files so that a reader sees the old content or the new, never a half."""

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

DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}  # a folder that is there for others to read


@contextlib.contextmanager
def said_if_denied(what: str) -> Iterator[None]:
    """Without permission to write, say so on standard error and go on: what is read can be shown
    all the same.
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
    """Write to a temporary name in the same folder, flush to disk, rename.

    ``content`` is bytes or a function that writes to the open file. On any error (a full disk, say)
    the temporary file is removed and the old file, if any, stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    # Not mkstemp, whose files are the owner's alone: the kernel gives them the mode that the user's
    # umask leaves.
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
    """:func:`write_bytes` for JSON (one line unless ``indent``); NaN is refused by JSON, so use
    null.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file. A UserError names a file that is missing or holds something
    else.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.") from None
