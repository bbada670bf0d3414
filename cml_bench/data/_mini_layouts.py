"""Reads MiniImagenet in the layouts in which people keep it.

These are pickles, lists (.csv) with a folder of images, and folders of classes. Each reader yields
(split, class name, images uint8 (n, 84, 84, 3)), split by split, classes in the order of their
names.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cml_bench.data import _pickles
from cml_bench.data._archives import AGAIN, PICKLE, described, escaped, members, reading
from cml_bench.data._images import as_bytes, decode
from cml_bench.data.episodes import SPLITS
from cml_bench.errors import UserError

SIDE = 84
Classes = Iterator[tuple[str, str, np.ndarray]]
_SPLIT = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
# Of miniImageNet_category_split_train_phase_{train,val,test}.pickle only the first counts: the
# other two are more images of the training classes.
_NAMED = re.compile(r"(?:phase_train|(?<!phase_)(train|val|validation|test))\.(?:pkl|pickle)$")
_PICTURES = (".jpg", ".jpeg", ".png")
WANTED = (
    "Wanted are three pickles, or train.csv, val.csv and test.csv (columns filename, label) with"
    " their images, or folders train, val and test of a folder for each class"
)


def of_pickle(path: Path, split: str) -> Classes:
    """Read the pickle of one split."""
    with reading(path, wanted=PICKLE), open(path, "rb") as file:
        content = _pickles.load(file, str(path))
    yield from _by_class(content, path, split)


def of_archive(path: Path) -> Classes:
    """Read an archive or a folder of all splits.

    If it holds several layouts, pickles are taken before lists, and lists before folders.
    """
    names, lists = [], {}
    with reading(path):
        for name, file in members(path):
            names.append(name)
            place = PurePosixPath(name)
            if place.suffix == ".csv" and place.stem in _SPLIT:
                lists[name] = file.read()
    pickles = {
        name: _SPLIT[match[1] or "train"] for name in names if (match := _NAMED.search(name))
    }
    folders = {
        name: _SPLIT[parts[-3]]
        for name in names
        if len(parts := name.split("/")) > 2 and parts[-3] in _SPLIT
    }
    folders = {name: split for name, split in folders.items() if name.lower().endswith(_PICTURES)}
    if pickles:
        yield from _of_pickles(path, _one_each(path, pickles))
    elif lists:
        yield from _of_images(
            path,
            _listed(
                path,
                _one_each(path, {n: _SPLIT[PurePosixPath(n).stem] for n in lists}),
                lists,
                names,
            ),
        )
    elif folders:
        classes: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
        for name in sorted(folders):
            classes[folders[name]].setdefault(name.split("/")[-2], []).append(name)
        yield from _of_images(path, classes)
    else:
        raise UserError(f"{path} holds {described(names)}. {WANTED}. {AGAIN}")


def _one_each(path: Path, split_of: Mapping[str, str]) -> dict[str, str]:
    """The one file of each split. A UserError if a split has none, or several."""
    for split in SPLITS:
        of_split = sorted(name for name, its in split_of.items() if its == split)
        if len(of_split) != 1:
            said = (
                f"{len(of_split)} files of the {split} split ({', '.join(of_split)})"
                if of_split
                else (f"{described(list(split_of))}, and none of the {split} split")
            )
            raise UserError(f"{path} holds {said}. {WANTED}. {AGAIN}")
    return {split: name for name, split in split_of.items()}


# ---- pickles


def _of_pickles(path: Path, names: Mapping[str, str]) -> Classes:
    """Read one split after another, since the largest takes about 2 GB of memory."""
    for split in SPLITS:
        with reading(path):
            for member, file in members(path):  # to the end: `members` checks every name
                if member == names[split]:
                    content = _pickles.load(file, f"{path}, {member}")
        yield from _by_class(content, path, split)
        del content


def _by_class(content: Any, path: Path, split: str) -> Classes:
    with reading(path, f"its {split} split"):
        keys = {_pickles.text(key) for key in content} if isinstance(content, dict) else set()
        if not keys >= {"image_data", "class_dict"} and not keys >= {"data", "labels"}:
            what = (
                f"a dict of {', '.join(sorted(map(str, keys)))}"
                if keys
                else f"a {type(content).__name__}"
            )
            raise UserError(
                f"{path}: its {split} split is {escaped(what)[:200]}. A dict of image_data and"
                f" class_dict, or of data and labels, is wanted. {AGAIN}"
            )
        kept = "image_data" if "image_data" in keys else "data"
        images = _pictures(_pickles.field(content, kept), f"{path}, its {split} split,")
        rows = (
            _pickles.field(content, "class_dict")
            if kept == "image_data"
            else _labelled(content, len(images))
        )
        rows = {_pickles.text(name): np.asarray(of_class) for name, of_class in rows.items()}
        every = np.concatenate(list(rows.values()))
        if every.dtype.kind not in "iu" or every.min() < 0 or len(np.unique(every)) != len(every):
            raise ValueError(
                "rows of classes that are negative, no whole numbers or in two classes"
            )
        for name in sorted(rows):
            yield split, escaped(str(name)), images[rows[name]]


def _pictures(images: np.ndarray, where: str) -> np.ndarray:
    """uint8 (N, 84, 84, 3)."""
    if images.shape[1:] == (3, SIDE, SIDE):
        images = images.transpose(0, 2, 3, 1)
    if images.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"images {images.dtype} {images.shape}")
    return as_bytes(images, where)


def _labelled(content: Any, count: int) -> dict[Any, np.ndarray]:
    """The rows of each class, by its name.

    ``labels`` has one number for each row. ``catname2label`` gives their names; without it the
    number is the name.
    """
    labels = np.asarray(_pickles.field(content, "labels"))
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(f"{count} images with labels {labels.dtype} {labels.shape}")
    names = {int(number): number for number in np.unique(labels)}
    if "catname2label" in map(_pickles.text, content):
        told = {
            int(number): _pickles.text(name)
            for name, number in _pickles.field(content, "catname2label").items()
        }
        names = {number: told[number] for number in names}
    return {name: np.flatnonzero(labels == number) for number, name in names.items()}


# ---- images


def _listed(
    path: Path, lists: Mapping[str, str], contents: Mapping[str, bytes], names: Sequence[str]
) -> dict[str, dict[str, list[str]]]:
    """The members of each class of each split, in the order of the lists."""
    pictures: dict[str, list[str]] = {}
    for name in names:
        if name.lower().endswith(_PICTURES):
            pictures.setdefault(PurePosixPath(name).name, []).append(name)
    classes: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    taken = set()
    for split, member in lists.items():
        with reading(path, member):
            table = csv.DictReader(io.StringIO(contents[member].decode("utf-8-sig"), newline=""))
            if not {"filename", "label"} <= set(table.fieldnames or ()):
                said = escaped(", ".join(table.fieldnames or ("none",)))
                raise UserError(
                    f"{path}, {member} has the columns {said}; filename and label are wanted."
                )
            for line in table:
                picture = _picture_of(line["filename"] or "", pictures, f"{path}, {member}")
                if picture in taken or not line["label"]:
                    wrong = "a second time" if picture in taken else "without a label"
                    raise UserError(
                        f"{path}, {member}, line {table.line_num} names {picture} {wrong}. {AGAIN}"
                    )
                taken.add(picture)
                classes[split].setdefault(line["label"], []).append(picture)
    return classes


def _picture_of(name: str, pictures: Mapping[str, list[str]], where: str) -> str:
    """The member that a list calls ``name``. In the archive it may stand in further folders."""
    namesakes = pictures.get(PurePosixPath(name).name, [])
    exact = [member for member in namesakes if f"/{member}".endswith(f"/{name}")]
    meant = exact or namesakes
    if len(meant) != 1:
        said = f"stands for {' and '.join(meant[:2])}" if meant else "is not there"
        raise UserError(f"{where} names {escaped(name)!r}, which {said}. {AGAIN}")
    return meant[0]


def _of_images(path: Path, classes: Mapping[str, Mapping[str, list[str]]]) -> Classes:
    """Decode all images in the order of the archive, and keep them in memory: 1.3 GB."""
    order = [
        (split, name, classes[split][name]) for split in SPLITS for name in sorted(classes[split])
    ]
    every = [member for _, _, of_class in order for member in of_class]
    rows = {member: row for row, member in enumerate(every)}
    images = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
    with reading(path):
        for member, file in members(path):
            if member in rows:
                images[rows[member]] = _decoded(file.read, path, member)
    first = 0
    for split, name, of_class in order:
        yield split, escaped(name), images[first : first + len(of_class)]
        first += len(of_class)


def _decoded(read: Callable[[], bytes], path: Path, member: str) -> np.ndarray:
    """One image as uint8 (84, 84, 3).

    Another size is squashed with Pillow's Lanczos filter, as MAML's script for these lists does.
    """
    with reading(path, member):
        return decode(read(), f"{path}, {member}", 3, SIDE, "LANCZOS").transpose(1, 2, 0)
