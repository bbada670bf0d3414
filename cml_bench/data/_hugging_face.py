"""Reads a copy on disk of a data set of Hugging Face's hub: parquet, imagefolder or arrow.

The library ``datasets`` reads it, an optional extra of this package. The bytes of the images are
taken as they were published, so parquet and a folder of the same files are the same set.
"""

import atexit
import functools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cml_bench.data._archives import escaped
from cml_bench.errors import UserError

_FOLDERS = "set `reads: folders`, which takes every folder as it stands."
_OF_FILES = "imagefolder"  # the library's name of a folder of images
_ARROW = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves in a folder


class Row(NamedTuple):
    """An image of a table. It is read when it is needed."""

    table: Any
    column: str
    number: int
    place: str  # for messages

    def read_bytes(self) -> bytes:
        """The file of the image, as it was published."""
        held = self.table[self.number][self.column]
        if held is None or (held["bytes"] is None and held["path"] is None):
            raise UserError(f"{self} has no image: remove the row.")
        return held["bytes"] if held["bytes"] is not None else Path(held["path"]).read_bytes()

    def __str__(self) -> str:
        return f"{self.place}, row {self.number}"


def tables(root: Path, parts: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Split -> table of the copy in the folder ``root``, and the names of the splits left out.

    ``parts`` are the splits to take; empty: all. A UserError names one that is not there.
    """
    every = _tables(root)
    for part in parts:
        if part not in every:
            raise UserError(
                f"{root} has no part {escaped(part)!r}: `parts` takes some of"
                f" {escaped(', '.join(sorted(every)))}."
            )
    taken = {split: table for split, table in every.items() if not parts or split in parts}
    return taken, tuple(sorted(set(every) - set(taken)))


def rows(root: Path, tables: Mapping[str, Any], label: str) -> Iterator[tuple[str, str, Row]]:
    """Split, class and image of every row of the ``tables`` of :func:`tables`.

    ``label`` is the column of the classes. A UserError says what is missing. In a folder of images
    the library takes words such as train in a name for a split, those of classes, too; what it then
    reads twice, or without a class, is refused.
    """
    for split, table in tables.items():
        column, names, table = _columns(table, label, f"{root}, {split}")
        of_files = table.builder_name == _OF_FILES
        if of_files and (twice := _twice([held["path"] for held in table[column]])):
            raise UserError(
                f"{root}: {twice} is read twice, since a folder's name is taken for a split's:"
                f" {_FOLDERS}"
            )
        for number, value in enumerate(table[label]):
            if value is None or (names and not 0 <= value < len(names)):
                what = _FOLDERS if of_files else "remove the row."
                raise UserError(f"{root}, {split}, row {number} has no {label}: {what}")
            name = names[value] if names else str(value)
            yield split, name, Row(table, column, number, f"{root}, {split}")


def _twice(paths: Sequence[str]) -> str:
    """A path that is there twice; empty: none is."""
    return next((path for path, number in Counter(paths).items() if number > 1), "")


def _tables(root: Path) -> dict[str, Any]:
    """Split -> table of the library."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            "`reads: hugging_face` needs the package datasets: pip install"
            " 'cml_bench[hugging-face]'."
        ) from None
    datasets.disable_progress_bars()
    try:
        if any((root / name).is_file() for name in _ARROW):
            whole = datasets.load_from_disk(str(root))
        else:
            whole = datasets.load_dataset(str(root), cache_dir=_scratch())
    except Exception as error:  # the library raises all sorts
        said = escaped(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        raise UserError(
            f"{root} is no data set that the package datasets can read ({said}): fetch it anew, or"
            " set `reads: folders`."
        ) from None
    return dict(whole) if isinstance(whole, dict) else {"train": whole}


@functools.cache
def _scratch() -> str:
    """A folder for the library's own copies, which is removed at the end of the process."""
    folder = tempfile.TemporaryDirectory(prefix="cml_bench-hugging-face-")
    atexit.register(folder.cleanup)
    return folder.name


def _columns(table: Any, label: str, place: str) -> tuple[str, list[str], Any]:
    """The column of images, the names of the classes (empty: values are names), and the table with
    images as bytes.
    """
    from datasets import ClassLabel, Image

    features = table.features
    images = [name for name, kind in features.items() if isinstance(kind, Image)]
    if len(images) != 1 or label not in features:
        raise UserError(
            f"{place} has the columns {escaped(', '.join(features)) or 'none'}: one of images and"
            f" {label!r} are wanted. `label` names that of the classes"
            f"{'' if table.builder_name != _OF_FILES else f'. Or {_FOLDERS[:-1]}'}."
        )
    names = features[label].names if isinstance(features[label], ClassLabel) else []
    return images[0], names, table.cast_column(images[0], Image(decode=False))
