"""What a download leaves in its folder, and what it says when it fails."""

from pathlib import Path

import pytest

from cml_bench.data._source import LocalCopy, RemoteFile, obtain_all, to_stderr
from cml_bench.errors import UserError


def obtain(file: RemoteFile, folder: Path, own: LocalCopy | None = None, say=to_stderr) -> Path:
    """The path of one file."""
    return obtain_all((file,), folder, {file.name: own} if own else {}, say=say)[file.name]


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name != ".lock")


def refused(file: RemoteFile, folder, pattern: str) -> str:
    with pytest.raises(UserError, match=pattern) as caught:
        obtain(file, folder, say=lambda text: None)
    return str(caught.value)


def part_of(tmp_path, content: bytes) -> None:
    (tmp_path / ".incoming").mkdir()
    (tmp_path / ".incoming" / "file.bin.part").write_bytes(content)
