"""Prepared data: where it stands and which files it was made from. Imports no torch.

Its ``index.json`` keeps, under ``files``, every digest by which each file may be asked for. Arrays
made from a user's own copy must not be taken for those of another copy, or of the published files.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from cml_bench.spec import Model

Folder = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]
# Some tools print digests in capitals.
Digest = Annotated[str, AfterValidator(str.lower), Field(pattern="^[0-9a-fA-F]{64}$")]


class LocalCopy(Model):
    """A user's own copy of a published file, perhaps repacked: on this machine or on a mirror, and
    its SHA-256.
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


FIRST = (  # stands for the digest of a file that is published without one, and is no own copy
    "first download"
)


def home(root: Path | str, data_id: str) -> Path:
    """The folder of a data set's arrays under the data folder."""
    return Path(root) / "prepared" / data_id.replace("/", "-")


def index(root: Path | str, data_id: str) -> dict[str, Any]:
    """What is kept of the arrays (``sha256``, ``files``, ``differs``); empty if there are none or
    it is damaged.
    """
    try:
        content = json.loads((home(root, data_id) / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_wanted(
    index: Mapping[str, Any], published: Sequence[Mapping[str, str]], own: Mapping[str, str]
) -> bool:
    """Whether arrays were made from the files that are asked for now: own copies, else one of the
    published editions.

    ``published``: digests by file name of each edition, as in ``RemoteFile.digest``. ``own``:
    SHA-256 by file name. Arrays from before their files were kept pass as the published ones,
    unless they are known to differ from them.
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
        for edition in published
    )


def _holds(digests: Any, asked: str) -> bool:
    return isinstance(digests, list) and (asked or FIRST) in digests
