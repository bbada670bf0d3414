"""Containers of an archive's files: folders, zips and tars as people make them."""

import zipfile
from pathlib import Path

import pytest

from cml_bench.errors import UserError
from tests.helpers import archives
from tests.helpers.image_sets import make

LITTER = (
    "__MACOSX/{0}/._{1}",
    "{0}/._{1}",
    ".DS_Store",
    "{0}/.DS_Store",
    "{0}/Thumbs.db",
    "{0}/desktop.ini",
    "{0}/@eaDir/{1}",
    "{0}/.ipynb_checkpoints/{1}",
)


def littered(files: dict[str, bytes]) -> dict[str, bytes]:
    """The members, with the files that operating systems leave beside every tenth one."""
    members = {}
    for number, (name, held) in enumerate(files.items()):
        folder, _, base = name.rpartition("/")
        if number % 10 == 0:
            members |= {form.format(folder or "x", base): b"\0\5\x16\7 no data" for form in LITTER}
        members[name] = held
    return members


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, held in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(held)
    return path


def zip_of(path: Path, files: dict[str, bytes], separator: str = "/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, held in files.items():
            item = zipfile.ZipInfo("x")
            # Set later: ZipInfo's own constructor would keep a backslash as it is.
            item.filename = name.replace("/", separator)
            archive.writestr(item, held)
    return path


FORMS = {
    "tar of a Mac": lambda path, files: archives.packed(path, littered(files)),
    "zip of a Mac": lambda path, files: zip_of(path, littered(files)),
    "zip of Windows": lambda path, files: zip_of(path, files, "\\"),
    "folder": lambda path, files: folder_of(path, littered(files)),
    "deep": lambda path, files: zip_of(
        path, {f"a/größe ü/{name}": held for name, held in files.items()}
    ),
    "without a top folder": lambda path, files: folder_of(
        path, {n.partition("/")[2]: h for n, h in files.items()}
    ),
}


def refused(name: str, path: Path, pattern: str) -> None:
    data = make(name)
    files = dict.fromkeys((file.name for file in data.files), path)
    if name == "miniimagenet":
        files = {"mini-imagenet.tar.gz": path}
    with pytest.raises(UserError, match=pattern) as caught:
        list(data.classes(files))
    assert "elete" not in str(caught.value)
    assert "\n" not in str(caught.value)
