"""What a download leaves in its folder, and what it says when it fails."""

import pytest

from cml_bench.data._source import RemoteFile, obtain
from cml_bench.errors import UserError


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name != ".lock")


def refused(file: RemoteFile, folder, pattern: str) -> str:
    with pytest.raises(UserError, match=pattern) as caught:
        obtain(file, folder, say=lambda text: None)
    return str(caught.value)


def part_of(tmp_path, content: bytes) -> None:
    (tmp_path / ".incoming").mkdir()
    (tmp_path / ".incoming" / "file.bin.part").write_bytes(content)
