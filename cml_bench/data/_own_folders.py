"""Finds the classes of a user's own folder of images, and what identifies them.

The images stand in a folder for each class, or in a copy of a set of Hugging Face's. The split of
the classes is drawn by shares, is that of three lists of files (.csv, as MiniImagenet has them), of
one list of classes, or of the folders train, val and test. What identifies the set does not depend
on names: it is the SHA-256 of each split's multiset of classes, where a class is a multiset of
files. Classes and files stand in an order that follows from the same digests, so equal sets give
equal episodes.
"""

import csv
import functools
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from cml_bench import seeding
from cml_bench.data import _hugging_face, class_lists
from cml_bench.data._archives import escaped, files_of, is_system, some, state
from cml_bench.data._images import check_picture
from cml_bench.data.episodes import SPLITS
from cml_bench.errors import UserError

# The names of split folders and lists.
_NAMES = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}
_SPLIT = {name: split for split, names in _NAMES.items() for name in names}


class Source(Protocol):
    """Where the bytes of an image are: a path, or a row of a table. Its text is for messages."""

    def read_bytes(self) -> bytes:
        """The file of the image."""
        ...


Files = dict[str, list[str]]  # class -> names of its files, from the root on
Sources = Mapping[str, Sequence[Source]]  # class -> its images


class OwnClass(NamedTuple):
    """A class. ``files``: SHA-256 (hex) and place of each, in the order of the digests."""

    name: str
    files: tuple[tuple[str, Source], ...]


class Found(NamedTuple):
    """What a folder holds. ``left_out``: classes with fewer images than asked for.

    ``parts_left_out``: splits of a copy of Hugging Face's that are not among those asked for.
    """

    splits: dict[str, tuple[OwnClass, ...]]
    sha256: str
    left_out: tuple[str, ...]
    parts_left_out: tuple[str, ...]


class Asked(NamedTuple):
    """How a folder is read. ``shares``: of train, validation and test, if classes are drawn.

    Of a copy of a set of Hugging Face's, ``label`` is the column of the classes, and ``parts`` are
    the splits that are taken; empty: all.
    """

    root: str
    reads: str
    label: str
    parts: tuple[str, ...]
    split_by: str
    lists: str
    shares: tuple[float, float, float]
    split_seed: int
    least_images: int


@functools.lru_cache(maxsize=8)
def found(asked: Asked, state: str) -> Found:
    """The classes of each split. A UserError for a folder that cannot be taken.

    ``state`` changes with the files (``_archives.state``), so that they are read once a process.
    """
    root = Path(asked.root)
    if not root.is_dir():
        raise UserError(f"{root} is no folder: `root` names the folder of the images.")
    try:
        parts_left_out: tuple[str, ...] = ()
        if asked.reads == "hugging_face":
            splits, parts_left_out = _of_hugging_face(root, asked)
        else:
            splits = _of_folder(root, asked)
        if asked.split_by == "classes":
            lists = class_lists.path_of(asked.lists)
            splits = class_lists.chosen(splits[""], class_lists.read(lists), lists, root)
        splits, left_out = _large_enough(splits, asked.least_images, root)
        if asked.split_by == "shares":
            splits = _drawn(splits[""], asked)
        told = {split: _ordered(splits[split]) for split in SPLITS}
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read ({error.strerror}).") from None
    return Found(told, _digest(told), left_out, parts_left_out)


def changes_with(asked: Asked) -> str:
    """What changes if the folder or its lists do: the ``state`` of :func:`found`."""
    if asked.split_by == "classes":
        lists = class_lists.path_of(asked.lists)
        return state(asked.root) + lists.read_text(encoding="utf-8", errors="replace")
    return state(asked.root) + (state(asked.lists) if asked.lists else "")


def _of_folder(root: Path, asked: Asked) -> Mapping[str, Sources]:
    """The classes of each split; if the split is not that of the files, all under ""."""
    if asked.parts:
        raise UserError("`parts` is of `reads: hugging_face`: set that, or leave `parts` out.")
    files = list(_files(root))
    if not files:
        raise UserError(f"{root} holds no files: `root` names a folder of images.")
    if asked.split_by == "folders":
        splits = _by_folders(root, files)
    elif asked.split_by == "csv":
        splits = _by_lists(root, Path(asked.lists or root), files)
    else:
        splits = {"": _by_class(root, files)}
    if asked.split_by in ("shares", "folders"):
        _check_none_is_empty(root, splits)
    return {
        split: {name: [root / file for file in of_class] for name, of_class in classes.items()}
        for split, classes in splits.items()
    }


def _check_none_is_empty(root: Path, splits: Mapping[str, Files]) -> None:
    """A UserError for a class's folder without a file: its images are missing."""
    homes = [root] if "" in splits else [root / name for name in sorted(_SPLIT)]
    for home in homes:
        for folder in sorted(home.iterdir()) if home.is_dir() else ():
            named = any(folder.name in classes for classes in splits.values())
            if folder.is_dir() and not named and not is_system(folder.name):
                raise UserError(f"{folder} holds no images: put them there, or remove the folder.")


def _of_hugging_face(root: Path, asked: Asked) -> tuple[Mapping[str, Sources], tuple[str, ...]]:
    """The same of a copy of a set of Hugging Face's, whose splits are in place of the folders.

    Also the names of its splits that are not among ``parts``.
    """
    if asked.split_by == "csv":
        raise UserError("`split_by: csv` names files: with `reads: hugging_face` use classes.")
    splits: dict[str, dict[str, list[Source]]] = {}
    place: dict[str, str] = {}
    tables, left_out = _hugging_face.tables(root, asked.parts)
    for its_split, name, row in _hugging_face.rows(root, tables, asked.label):
        split = ""
        if asked.split_by == "folders":
            if its_split not in _SPLIT:
                continue
            split = _SPLIT[its_split]
            if place.setdefault(name, its_split) != its_split:
                raise _in_two(root, name, place[name], its_split)
        splits.setdefault(split, {}).setdefault(name, []).append(row)
    if missing := [s for s in ([""] if asked.split_by != "folders" else SPLITS) if s not in splits]:
        raise UserError(f"{root} has no rows of a split {missing[0]}".rstrip() + ".")
    return splits, left_out


def _files(root: Path) -> Iterator[str]:
    """The names of all files from the root on, without hidden ones and those of systems."""
    for file in files_of(root):
        name = file.relative_to(root)
        if not any(map(is_system, name.parts)):
            yield name.as_posix()


# ---- the split


def _by_class(root: Path, files: Iterable[str]) -> Files:
    """Class -> its files. Files beside the folders of classes are not looked at."""
    classes: Files = {}
    for name in files:
        folder, slash, _ = name.partition("/")
        if slash:
            classes.setdefault(folder, []).append(name)
    if not classes:
        raise UserError(f"{root} holds files and no folders: a folder for each class is wanted.")
    if set(classes) <= set(_SPLIT):
        raise UserError(
            f"{root} holds the folders {', '.join(sorted(classes))}, which are splits: set"
            " `split_by: folders`."
        )
    return classes


def _by_folders(root: Path, files: Iterable[str]) -> dict[str, Files]:
    """The classes below the folders train, val and test."""
    splits: dict[str, Files] = {split: {} for split in SPLITS}
    place: dict[str, str] = {}
    for name in files:
        folder, *inner = name.split("/")
        if folder not in _SPLIT or len(inner) < 2:
            continue
        if place.setdefault(inner[0], folder) != folder:
            raise _in_two(root, inner[0], place[inner[0]], folder)
        splits[_SPLIT[folder]].setdefault(inner[0], []).append(name)
    for split, names in _NAMES.items():
        if not splits[split]:
            raise UserError(
                f"{root} has no folder {' or '.join(names[:2])} with a folder for each class:"
                f" `split_by: folders` takes the {split} split from it."
            )
    return splits


def _by_lists(root: Path, lists: Path, files: Iterable[str]) -> dict[str, Files]:
    """The classes of train.csv, val.csv and test.csv, with the columns filename and label."""
    by_name: dict[str, list[str]] = {}
    for name in files:
        by_name.setdefault(PurePosixPath(name).name, []).append(name)
    splits: dict[str, Files] = {}
    place: dict[str, Path] = {}
    taken: set[str] = set()
    for split, names in _NAMES.items():
        every = [lists / f"{name}.csv" for name in names]
        path = next((path for path in every if path.is_file()), None)
        if path is None:
            raise UserError(
                f"{every[0]} is not there: `split_by: csv` takes the {split} split from it"
                " (columns filename and label). `lists` names the folder of the lists."
            )
        splits[split] = {}
        for where, filename, label in _lines(path):
            file = _file_of(filename, by_name, where, root)
            if file in taken:
                raise UserError(f"{where} names {file}, which was named before: name it once.")
            taken.add(file)
            if place.setdefault(label, path) != path:
                raise _in_two(root, label, place[label].name, path.name)
            splits[split].setdefault(label, []).append(file)
    return splits


def _in_two(root: Path, name: str, one: str, other: str) -> UserError:
    return UserError(
        f"{root}: the class {escaped(name)!r} is in two splits, {one} and {other}: it may be in"
        " one."
    )


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """Place, filename and label of each line of a list."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        table = csv.DictReader(io.StringIO(text, newline=""))
        if not {"filename", "label"} <= set(table.fieldnames or ()):
            said = escaped(", ".join(table.fieldnames or ("none",)))
            raise UserError(f"{path} has the columns {said}: filename and label are wanted.")
        for line in table:
            where = f"{path}, line {table.line_num}"
            if not line["filename"] or not line["label"]:
                raise UserError(f"{where} lacks a filename or a label: give both.")
            yield where, line["filename"], line["label"]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no list in UTF-8 ({error}): save it as one.") from None


def _file_of(name: str, by_name: Mapping[str, list[str]], where: str, root: Path) -> str:
    """The file that a list calls ``name``. It may stand in further folders of the root."""
    namesakes = by_name.get(PurePosixPath(name).name, [])
    exact = [file for file in namesakes if f"/{file}".endswith(f"/{name}")]
    meant = [file for file in exact if file == name] or exact or namesakes
    if len(meant) != 1:
        said = f"is {' and '.join(meant[:2])}" if meant else "is not there"
        raise UserError(
            f"{where} names {escaped(name)!r}, which {said} in {root}: write its path from there."
        )
    return meant[0]


def _large_enough(
    splits: Mapping[str, Sources], least: int, root: Path
) -> tuple[dict[str, Sources], tuple[str, ...]]:
    """The classes with at least ``least`` images, and the names of the others."""
    kept: dict[str, Sources] = {
        split: {name: files for name, files in classes.items() if len(files) >= least}
        for split, classes in splits.items()
    }
    small = [name for split in splits for name in splits[split] if name not in kept[split]]
    if not any(kept.values()):
        raise UserError(
            f"{root}: no class has `least_images: {least}`; the largest has"
            f" {max(len(files) for of in splits.values() for files in of.values())}. Lower it."
        )
    return kept, tuple(sorted(small))


def _drawn(classes: Sources, asked: Asked) -> dict[str, Sources]:
    """Each class at random in one split; the same names and seed give the same split."""
    names = sorted(classes)
    key = seeding.key("image_folder", "split", asked.split_seed)
    order = seeding.smallest(seeding.words(key, 0, 1, len(names))[0], len(names))
    train = round(asked.shares[0] * len(names))
    last = round((asked.shares[0] + asked.shares[1]) * len(names))
    ends = {"train": (0, train), "validation": (train, last), "test": (last, len(names))}
    return {
        split: {names[number]: classes[names[number]] for number in order[first:end]}
        for split, (first, end) in ends.items()
    }


# ---- the content


def _ordered(classes: Sources) -> tuple[OwnClass, ...]:
    """The classes of a split with the digests of their files, in the order of the digests."""
    every = []
    for name, files in classes.items():
        digests = sorted(((_sha256(file), file) for file in files), key=lambda of: of[0])
        every.append(OwnClass(escaped(name), tuple(digests)))
    return tuple(sorted(every, key=_class_digest))


def _sha256(source: Source) -> str:
    content = source.read_bytes()
    check_picture(content, escaped(str(source)))
    return hashlib.sha256(content).hexdigest()


def _class_digest(own: OwnClass) -> str:
    return hashlib.sha256("".join(digest for digest, _ in own.files).encode()).hexdigest()


def _digest(splits: Mapping[str, tuple[OwnClass, ...]]) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"{split} {len(splits[split])} ".encode())
        digest.update("".join(map(_class_digest, splits[split])).encode())
    return digest.hexdigest()


def told_of(found: Found, least: int) -> str:
    """A line about classes and splits that are left out, and about images that are there twice;
    empty: there are none.
    """
    number, parts = len(found.left_out), len(found.parts_left_out)
    told = []
    if parts:
        told.append(f"{parts} part{'s' * (parts > 1)} left out: {some(found.parts_left_out)}")
    if number:
        are = "classes" if number > 1 else "class"
        few = f"with fewer than {least} images"
        told.append(f"{number} {are} {few} left out: {some(found.left_out)}")
    files = [file for classes in found.splits.values() for one in classes for file in one.files]
    places = Counter(digest for digest, _ in files)
    if twice := [str(source) for digest, source in files if places[digest] > 1]:
        told.append(
            f"{len(twice)} files have the content of another one, so one picture may be support and"
            f" query, or of two splits: {some(twice)}"
        )
    return "; ".join(told)
