"""Prepared data: where its arrays stand, and which files they were made from. Imports no torch.

``index.json`` beside the arrays keeps, under ``files``, all digests of each file. By these the
arrays of a user's own copy are told from those of another copy, and of the published files.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from cml_bench.spec import Model

Folder = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]
# Some tools print a digest in capitals.
Digest = Annotated[str, AfterValidator(str.lower), Field(pattern="^[0-9a-fA-F]{64}$")]


class LocalCopy(Model):
    """A user's own copy of a published file, on this machine or on a mirror, and its SHA-256.

    The copy may be repacked.
    """

    path: Folder | None = Field(
        None,
        description="where it is on this machine: a file, or the folder of what an archive holds",
    )
    url: str | None = Field(
        None, pattern=r"^https?://[^\s/]+/\S+$", description="where a mirror has it"
    )
    sha256: Digest

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path (a file on this machine) or url (of a mirror)")
        return self


FIRST = "first download"  # stands for the digest of a file that is published without one


def home(root: Path | str, data_id: str) -> Path:
    """The folder of a data set's arrays under the data folder."""
    return Path(root) / "prepared" / data_id.replace("/", "-")


def index(root: Path | str, data_id: str) -> dict[str, Any]:
    """The content of ``index.json`` (``sha256``, ``files``, ``differs``, ...).

    Empty if there are no arrays, or if the file is damaged.
    """
    return read(home(root, data_id) / "index.json")


def read(path: Path) -> dict[str, Any]:
    """The content of an ``index.json``; empty as in :func:`index`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_wanted(
    index: Mapping[str, Any], editions: Sequence[Mapping[str, str]], own: Mapping[str, str]
) -> bool:
    """Whether arrays were made from the files that are asked for now.

    These are the user's own copies (``own``: SHA-256 by file name), and for the rest the files of a
    published edition (``editions``: for each of them, digests by file name, as in
    ``RemoteFile.digest``). An old ``index`` does not say which files its arrays were made from:
    these count as the published ones, unless ``differs`` says otherwise.
    """
    if not index:
        return False
    made_from = index.get("files")
    if not isinstance(made_from, dict):
        return not own and not index.get("differs")
    return any(
        made_from.keys() == edition.keys() >= own.keys()
        and all(
            _holds(made_from[name], f"sha256:{own[name]}" if name in own else edition[name])
            for name in edition
        )
        for edition in editions
    )


def _holds(digests: Any, asked: str) -> bool:
    return isinstance(digests, list) and (asked or FIRST) in digests
