"""Malicious or damaged archives and pickles: named, nothing of them executed, nothing left."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cml_bench.data import _pickles
from cml_bench.data._archives import check_names, members
from cml_bench.data._source import sha256_of
from cml_bench.data.prepared import LocalCopy
from cml_bench.errors import UserError
from tests.helpers import archives
from tests.helpers.archives import Command
from tests.helpers.damage import flip
from tests.helpers.image_sets import copies, make


def load(content: bytes):
    return _pickles.load(io.BytesIO(content), "x.pkl")


def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path):
    touched = tmp_path / "touched"
    for protocol in range(6):
        content = pickle.dumps({"image_data": Command(touched)}, protocol)
        with pytest.raises(UserError, match=r"x\.pkl is refused: it holds (posix|nt)\.system"):
            load(content)
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    path.write_bytes(pickle.dumps({"image_data": Command(touched), "class_dict": {}}))
    others = [LocalCopy(path=str(path), sha256=sha256_of(path))] * 3
    own = {file.name: copy for file, copy in zip(make("miniimagenet").files, others, strict=True)}
    with pytest.raises(UserError, match=r"Nothing of it was executed\. Do not use this file"):
        make("miniimagenet").prepare(tmp_path / "data", own)
    assert not (tmp_path / "data" / "prepared").exists()
    assert not touched.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array([{}], dtype=object),
        np.zeros(2, dtype=[("a", "i4")]),
        eval,
        np.load,
        io.BytesIO(b""),
        Path("x"),
        slice(1),
        type(None),
    ],
    ids=["objects", "records", "eval", "np.load", "file", "path", "slice", "type"],
)
def test_only_arrays_of_numbers_and_plain_containers_are_admitted(value):
    for protocol in (2, 5):
        with pytest.raises(UserError, match=r"x\.pkl is refused"):
            load(pickle.dumps([value], protocol))


def test_crafted_types_of_arrays_are_refused():
    """numpy itself would take the bytes for pointers, or for another number of bytes."""
    plain = pickle.dumps(np.arange(4, dtype="<i4"), 2)
    crafted = plain.replace(b"i4", b"O8")
    assert crafted != plain
    with pytest.raises(UserError, match="an array of type 'O8'"):
        load(crafted)
    with pytest.raises(ValueError):
        load(plain.replace(b"i4", b"i8"))


ARRAYS = [
    np.arange(12, dtype=np.uint8).reshape(3, 4),
    np.arange(300, dtype="<i8"),
    np.arange(5, dtype=">f4"),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(True),
    np.zeros((0, 3)),
    np.array([b"ab", b"c"]),
    np.array(["ä", "bc"]),
    np.float32(1.5),
    np.int64(-3),
    np.arange(256, dtype=np.uint8),
    np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
]


@pytest.mark.parametrize(
    "written",
    [archives.python3_pickle, archives.python2_pickle, *range(6)],
    ids=lambda w: getattr(w, "__name__", str(w)),
)
def test_every_kind_of_pickle_is_read(written):
    value = {
        "a": ARRAYS,
        "b": ({1, 2}, frozenset((3,)), [None, True, -(2**70), 1.5, "text", b"\xff\x00"]),
    }
    content = pickle.dumps(value, written) if isinstance(written, int) else written(value)
    loaded = load(content)
    for array, expected in zip(loaded["a"], ARRAYS, strict=True):
        assert np.array_equal(array, expected)
        assert array.dtype.newbyteorder("=") == expected.dtype.newbyteorder("="), (
            "numpy may turn the bytes over"
        )
    if written is not archives.python2_pickle:  # Python 2 knows bytes as str only
        assert loaded["b"] == value["b"]


def test_objects_of_named_classes_come_as_their_attributes():
    """An object becomes a mapping of its attributes, such as a sparse matrix in Planetoid's files.

    No code of scipy runs.
    """
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(np.eye(3, dtype=np.float32))
    content = pickle.dumps([matrix], 2)
    with pytest.raises(UserError, match="csr_matrix"):
        load(content)
    kind = (type(matrix).__module__, "csr_matrix")
    (attributes,) = _pickles.load(io.BytesIO(content), "x", records=[kind])
    assert np.array_equal(attributes.indices, matrix.indices)
    assert attributes._shape == (3, 3)


def tar_with(path: Path, member: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return path


def link(target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("inside")
    member.type, member.linkname = kind, target
    return member


ESCAPES = {
    "dots": lambda: tarfile.TarInfo("../evil"),
    "absolute": lambda: tarfile.TarInfo("/tmp/evil"),
    "deep dots": lambda: tarfile.TarInfo("a/../../evil"),
    "symlink": lambda: link("/etc/passwd", tarfile.SYMTYPE),
    "hard link": lambda: link("../../evil", tarfile.LNKTYPE),
}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_a_tar_that_leaves_its_folder_is_refused(escape, tmp_path):
    path = tar_with(tmp_path / "cifar-100-python.tar.gz", escape(), b"")
    with pytest.raises(UserError, match=r"is refused: its member .* would be written outside"):
        list(members(path))
    with pytest.raises(UserError, match="Nothing was unpacked"):
        make("cifar_fs").prepare(tmp_path / "data", copies([path]))
    assert names(tmp_path) == ["cifar-100-python.tar.gz"]


def names(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


def test_a_zip_that_leaves_its_folder_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "images_background.zip", "w") as archive:
        archive.writestr("../evil.png", b"x")
    own = copies([tmp_path / "images_background.zip"] * 2)
    own["images_evaluation.zip"] = own["images_background.zip"]
    with pytest.raises(UserError, match="is refused"):
        make("omniglot").prepare(tmp_path / "data", own)
    for name in ("C:\\evil", "a\\..\\..\\evil", "\\evil"):
        with pytest.raises(UserError, match="outside of its folder"):
            check_names(tmp_path, [name])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "cut": cut,
    "flipped": lambda path: flip(path, path.stat().st_size // 2, 0xFF),
    "empty": lambda path: path.write_bytes(b""),
    "page": lambda path: path.write_text("<html>quota</html>"),
}
CASES = [  # a flipped bit of an unpacked pickle or a photograph is only another pixel
    (name, damage)
    for name in ("tar", "miniimagenet", "fc100", "vgg_flower")
    for damage in DAMAGE
    if damage != "flipped" or name in ("tar", "fc100")
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_damage_is_named_and_leaves_nothing(name, kind, minis, tmp_path):
    paths = [tmp_path / path.name for path in minis[name]]
    for old, path in zip(minis[name], paths, strict=True):
        path.write_bytes(old.read_bytes())
    DAMAGE[kind](paths[0])
    with pytest.raises(UserError, match=rf"{paths[0].name} .* Name another copy under `sources`"):
        make("miniimagenet" if name == "tar" else name).prepare(tmp_path / "data", copies(paths))
    assert names(tmp_path) == sorted(path.name for path in paths), (
        "a user's own copy stays where it is"
    )


def test_contents_that_do_not_fit_are_named(minis, tmp_path):
    def mini(**changed):
        path = tmp_path / "mini-imagenet-cache-train.pkl"
        content = {
            "image_data": archives.images(0, 4, 84),
            "class_dict": {"n1": [0, 1], "n2": [2, 3]},
        }
        path.write_bytes(archives.python3_pickle(content | changed))
        return [path, *minis["miniimagenet"][1:]]

    for changed, pattern in (
        ({}, "the train split has 2 classes, 64 are published"),
        ({"class_dict": {"n1": [0, 7]}}, "IndexError"),
        ({"image_data": np.zeros((4, 80, 80, 3), np.uint8)}, r"images uint8 \(4, 80, 80, 3\)"),
        ({"class_dict": 3}, "is damaged"),
    ):
        with pytest.raises(UserError, match=pattern):
            make("miniimagenet").prepare(tmp_path / "data", copies(mini(**changed)))
    empty = archives.packed(tmp_path / "cifar-100-python.tar.gz", {"cifar-100-python/train": b""})
    with pytest.raises(UserError, match=r"cifar-100-python\.tar\.gz is damaged"):
        make("fc100").prepare(tmp_path / "data", copies([empty]))
    twice = [tmp_path / path.name for path in minis["miniimagenet"]]
    first = next(archives.mini_contents(each=2))[1]
    for path in twice:
        path.write_bytes(archives.python3_pickle(first))
    with pytest.raises(UserError, match=r"-validation\.pkl: class n00000000 is in two splits"):
        make("miniimagenet").prepare(tmp_path / "data", copies(twice))
    assert not (tmp_path / "data" / "prepared").exists()
