"""The classes of each split by name: lists that are published, and a user's own.

A list is a JSON file that maps train, validation (or val) and test to names of classes. Those of
``lists/`` are here already, each with its source, and are meant by their name alone.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cml_bench.data._archives import escaped, some
from cml_bench.data.episodes import SPLITS
from cml_bench.errors import UserError, unknown

_HERE = Path(__file__).with_name("lists")
_MAY_BE_MISSING = "source"
T = TypeVar("T")


def shipped() -> list[str]:
    """The names of the lists that are here."""
    return sorted(path.stem for path in _HERE.glob("*.json"))


def is_shipped(lists: str) -> bool:
    """Whether ``lists`` is the name of such a list, and no path."""
    return lists in shipped()


def path_of(lists: str) -> Path:
    """The file that ``lists`` means. A UserError if there is none."""
    path = _HERE / f"{lists}.json" if is_shipped(lists) else Path(lists)
    if not lists or not path.is_file():
        raise UserError(
            f"`lists: {lists}` is no file: `split_by: classes` takes the names of the classes from"
            f" a JSON file, or from one of {', '.join(shipped())}."
        )
    return path


def read(path: Path) -> dict[str, list[str]]:
    """The names of the classes of each split. A UserError names what is wrong with the file."""
    try:
        content = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=functools.partial(_once, path)
        )
    except (UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} is no JSON ({error}): correct it.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must map train, validation and test to names of classes.")
    if {"val", "validation"} <= content.keys():
        raise UserError(f"{path} has val and validation, which are one split: leave one out.")
    content = {"validation" if key == "val" else key: value for key, value in content.items()}
    for key in content:
        if key not in (*SPLITS, _MAY_BE_MISSING):
            raise UserError(f"{path}: {unknown('split', key, SPLITS)}")
    names = {split: _names(path, split, content.get(split)) for split in SPLITS}
    place: dict[str, str] = {}
    for split, of_split in names.items():
        for name in of_split:
            if name in place:
                where = f"the splits {place[name]} and {split}" if place[name] != split else split
                raise UserError(f"{path} has the class {escaped(name)!r} twice, in {where}.")
            place[name] = split
    return names


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose keys must differ: Python would take the last of those alike."""
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"{path} has the key {escaped(key)!r} twice: leave one out.")
    return dict(pairs)


def _names(path: Path, split: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise UserError(f"{path}: {split} must be a list of names of classes.")
    return value


def chosen(
    classes: Mapping[str, T], names: Mapping[str, Sequence[str]], path: Path, root: Path
) -> dict[str, dict[str, T]]:
    """The classes of each split, called as the list calls them; those of no list are left out.

    A folder of exactly that name counts first. For other names letters and digits count, since a
    name with ``/`` cannot be that of a folder, and copies differ in spaces and capitals. A
    UserError names the classes that are not there, and names that mean one folder or two.
    """
    every = [name for split in SPLITS for name in names[split]]
    alike: dict[str, list[str]] = {}
    for folder in classes:
        alike.setdefault(_plain(folder), []).append(folder)
    exact = set(every) & set(classes)
    taken: dict[str, str] = {}  # folder -> name in the list
    for name in every:
        near = alike.get(_plain(name), [])
        folders = [name] if name in exact else [f for f in near if f not in exact] or near
        if len(folders) > 1:
            raise UserError(
                f"{root} has the classes {escaped(folders[0])!r} and {escaped(folders[1])!r}, which"
                f" are one name but for signs, and {path} has {escaped(name)!r}: rename one."
            )
        for folder in folders:
            other = taken.setdefault(folder, name)
            if other != name:
                raise UserError(
                    f"{path} has the classes {escaped(other)!r} and {escaped(name)!r}, which are"
                    f" both the folder {escaped(folder)!r} of {root}: leave one out."
                )
    meant = {name: folder for folder, name in taken.items()}
    if missing := [name for name in every if name not in meant]:
        raise UserError(
            f"{root} lacks {len(missing)} of the {len(every)} classes of {path}: {some(missing)};"
            f" it has {some(sorted(classes))}."
        )
    return {split: {name: classes[meant[name]] for name in names[split]} for split in SPLITS}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
