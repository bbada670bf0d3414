"""Digests of published image sets, by which a repacked copy is known as the same data.

``references.json`` holds them as facts. A digest (``_arrays.hash_unordered``) does not depend on
the order of files and rows, so a copy that somebody else has packed has the same one. Imports no
torch.
"""

import json
from functools import cache
from pathlib import Path

from cml_bench.data.prepared import Digest
from cml_bench.spec import Model
from cml_bench.texts import Line

FILE = Path(__file__).with_name("references.json")
_NOT_PUBLISHED = "an own copy of the data, whose digest is not a published one"
_REPACKED = "a repacked copy, whose images have the reference digest of the published data"


class Reference(Model):
    """The digest of a data set's published images. ``source``: what it was computed from.

    ``compared``: whether somebody has compared it with that of the published files.
    """

    unordered_sha256: Digest
    compared: bool
    source: Line


@cache
def references() -> dict[str, Reference]:
    """Data id -> its reference."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        data_id: Reference.read(item, f"{FILE}, {data_id}") for data_id, item in content.items()
    }


def repacked(data_id: str, unordered: str) -> str:
    """What is said of a verdict on an own copy with this digest: that it is a repacked copy, and
    whether its reference was compared. Empty: it is not known as the published data.
    """
    reference = references().get(data_id)
    if reference is None or reference.unordered_sha256 != unordered:
        return ""
    if reference.compared:
        return "repacked copy"
    return "repacked copy, digest not yet compared with the published file"


def told_of_copy(data_id: str, unordered: str) -> str:
    """How an own copy, whose files are not the published ones, may differ from the published data.

    It does not say whether the reference was compared, since it is stored and that may change.
    """
    return _REPACKED if repacked(data_id, unordered) else _NOT_PUBLISHED


def told(data_id: str, unordered: str, differs: str) -> list[str]:
    """What is said when data was prepared. ``differs``: as in :class:`DataSet`.

    Who prepares the published files can compare the reference with them.
    """
    if differs == _REPACKED:
        return [f"{data_id}: {differs}."]
    if differs:
        return [f"{data_id}: {differs}. Its results are not set against published ones."]
    reference = references().get(data_id)
    if reference is None or not unordered:
        return []
    place = f"{FILE.name} of the package"
    if reference.unordered_sha256 != unordered:
        return [
            f"{data_id}: the published files have the digest {unordered}, and {place} has another:"
            " please report it."
        ]
    if reference.compared:
        return []
    return [
        f"{data_id}: the published files have the reference digest. {place} says that nobody has"
        " compared it yet: please report that you have."
    ]
