"""Writing files so that a reader sees the old content or the new, never a half."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from cml_bench.errors import UserError


def write_bytes(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write to a temporary name in the same folder, flush to disk, rename.

    ``content`` is bytes or a function that writes to the open file. On any error (a full disk, say) the
    temporary file is removed and the old file, if any, stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """:func:`write_bytes` for JSON (one line unless ``indent``); NaN is refused by JSON, so use null."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file. A UserError names a file that is missing or holds something else."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.") from None
