"""Random and damaged archives, pickles, npz and mat files: right data or one clear error.

Never a traceback, never other data. Every example is written into a folder of its own, and nothing
may appear beside it.
"""

import io
import pickle
import re
import resource
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from cml_bench.data import _mini_layouts, _pickles
from cml_bench.data._archives import members, reading
from cml_bench.data._graph_files import npz, planetoid
from cml_bench.data.vgg_flower import _labels
from cml_bench.errors import UserError
from tests.helpers import archives
from tests.helpers.graph_sets import arrays, planetoids
from tests.helpers.image_sets import make
from tests.helpers.mini_layouts import LAYOUTS

QUICK = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
    "derandomize": True,
}


def one_sentence(error: UserError, path: Path) -> None:
    text = str(error)
    assert str(path) in text
    assert text.isprintable()
    assert "Delete" not in text
    assert len(text) < 1500


def tree(folder: Path) -> dict[str, tuple]:
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")
    }


# -- odd members

PARTS = st.sampled_from(
    [
        "a",
        "train",
        "größe ü",
        "x y",
        "n01",
        "ﬁ",
        "a\nb",
        "\udcff",
        "..",
        ".",
        "",
        "C:",
        "._x",
        "日本",
        "b" * 90,
    ]
)
NAMES = st.one_of(
    st.lists(PARTS, min_size=1, max_size=4).map("/".join),
    st.lists(PARTS, min_size=1, max_size=4).map("\\".join),
    st.sampled_from(
        ["/etc/x", "//x", "C:\\x", "..\\x", "__MACOSX/a", "a/.DS_Store", "Thumbs.db", "a/@eaDir/b"]
    ),
)
KINDS = st.sampled_from(
    ["file", "file", "file", "empty", "folder", "link", "hard link", "device", "pipe"]
)
MEMBERS = st.lists(st.tuples(NAMES, KINDS, NAMES), max_size=5)
TYPES = {
    "folder": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "pipe": tarfile.FIFOTYPE,
}


def tar_of(path: Path, odd: list[tuple[str, str, str]], packing: str) -> None:
    with tarfile.open(path, f"w:{packing}") as archive:
        for number, (name, kind, target) in enumerate(odd):
            member = tarfile.TarInfo(name)
            member.type, content = (
                TYPES.get(kind, tarfile.REGTYPE),
                b"%d" % number if kind == "file" else b"",
            )
            member.linkname = target if "link" in kind else ""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def zip_of(path: Path, odd: list[tuple[str, str, str]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, kind, target) in enumerate(odd):
            member = zipfile.ZipInfo("x")
            member.filename = as_utf8(name) + "/" * (kind == "folder")
            member.external_attr = stat.S_IFLNK << 16 if "link" in kind else 0
            held = (
                target.encode("utf-8", "replace")
                if "link" in kind
                else b"%d" % number * (kind == "file")
            )
            archive.writestr(member, held)


def plain(name: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]


def leaves(name: str) -> bool:
    return ".." in plain(name) or name[:1] in ("/", "\\") or name[1:2] == ":"


def hidden(name: str) -> bool:
    return not plain(name) or any(
        p.startswith(".") or p in ("__MACOSX", "Thumbs.db", "@eaDir") for p in plain(name)
    )


def expected(odd: list[tuple[str, str, str]], zipped: bool) -> tuple[dict[str, bytes], bool]:
    """The content that is to be read, by name, and whether the archive is to be refused."""
    kept, wrong = {}, False
    for number, (name, kind, target) in enumerate(odd):
        if zipped:  # a zip has files, folders (a name ending in "/") and links
            name = as_utf8(name)
            kind = (
                "link"
                if "link" in kind
                else "folder"
                if name.endswith(("/", "\\")) or kind == "folder"
                else kind
            )
        wrong |= leaves(name) or ("link" in kind and leaves(target))
        if hidden(name) or kind in ("folder", "link") or (kind in TYPES and not zipped):
            continue
        wrong |= "/".join(plain(name)) in kept
        kept["/".join(plain(name))] = b"%d" % number if kind == "file" else b""
    return kept, wrong


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=150, **QUICK)
@given(odd=MEMBERS, kind=st.sampled_from(["zip", "", "gz", "xz"]))
def test_members_are_read_or_the_archive_is_refused(odd, kind, tmp_path):
    path = tmp_path / "a folder" / "x"
    path.parent.mkdir(exist_ok=True)
    try:
        zip_of(path, odd) if kind == "zip" else tar_of(path, odd, kind)
    except (ValueError, UnicodeError):  # such an archive cannot be written
        return
    before, (kept, wrong) = tree(tmp_path), expected(odd, kind == "zip")
    content = tried(path)
    assert tree(tmp_path) == before
    if isinstance(content, UserError):
        assert wrong, str(content)
    else:
        assert not wrong
        assert list(content.values()) == list(kept.values())
        assert all(name.isprintable() for name in content)


def as_utf8(name: str) -> str:
    return name.encode("utf-8", "replace").decode()


def tried(path: Path) -> dict[str, bytes] | UserError:
    """The content of the archive, or the error why it cannot be read."""
    try:
        with reading(path):
            return {name: file.read() for name, file in members(path)}
    except UserError as error:
        one_sentence(error, path)
        return error


# -- truncated


def cuts(content: bytes, step: int = 1) -> Iterator[bytes]:
    """Places to cut a file: every boundary of blocks and pickle frames, and some between."""
    for end in sorted(
        {*range(0, len(content), step), *range(0, len(content), 512), len(content) - 1}
    ):
        yield content[:end]


@pytest.mark.parametrize("packing", ["", "gz", "bz2", "xz"])
def test_a_tar_truncated_anywhere_is_named(packing, tmp_path):
    path = tmp_path / "x"
    tar_of(path, [(f"a/{i}", "file", "") for i in range(4)], packing)
    whole = path.read_bytes()
    ends = len(whole.rstrip(b"\0")) if not packing else len(whole)
    for content in cuts(whole, 97 if not packing else 3):
        path.write_bytes(content)
        held = tried(path)
        if not isinstance(held, UserError):
            assert not packing
            assert len(content) > ends, "only zeros are missing"
            assert len(held) == 4


def test_a_zip_truncated_anywhere_is_named(tmp_path):
    path = tmp_path / "x"
    zip_of(path, [(f"a/{i}", "file", "") for i in range(4)])
    for content in cuts(path.read_bytes(), 2):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught, reading(path):
            list(members(path))
        one_sentence(caught.value, path)


WRITTEN = [archives.python2_pickle, archives.python3_pickle, *range(6)]


@pytest.mark.parametrize("written", WRITTEN, ids=lambda w: getattr(w, "__name__", str(w)))
def test_a_pickle_truncated_anywhere_is_named(written, tmp_path):
    value = {"image_data": np.zeros((2, 2), np.uint8), "class_dict": {"n01": [0, 1]}}
    content = pickle.dumps(value, written) if isinstance(written, int) else written(value)
    path = tmp_path / "x.pkl"
    for cut in cuts(content, 3):
        path.write_bytes(cut)
        with pytest.raises(UserError) as caught:
            list(_mini_layouts.of_pickle(path, "train"))
        one_sentence(caught.value, path)


@settings(max_examples=200, **QUICK)
@given(
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
    protocol=st.sampled_from([2, 4, 5]),
)
def test_a_pickle_with_another_byte_is_read_or_refused(place, value, protocol, tmp_path):
    kept = {
        "data": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "labels": [0, 1],
        "names": {"n01": 0},
    }
    content = bytearray(pickle.dumps(kept, protocol))
    content[int(place * len(content))] = value
    path = tmp_path / "x.pkl"
    try:
        with reading(path):
            _pickles.load(io.BytesIO(content), str(path))
    except UserError as error:
        one_sentence(error, path)


def test_a_damaged_number_of_remembered_objects_takes_no_memory():
    """The reader in C would take two gigabytes here, and for other numbers thirty times more."""
    content = pickle.dumps({"data": 1}, 2)
    content = content.replace(b"q\x00", b"r" + (1 << 27).to_bytes(4, "little"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert _pickles.load(io.BytesIO(content), "x.pkl") == {"data": 1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18  # KiB


def test_graphs_truncated_anywhere_are_named(tmp_path):
    for path in planetoids(tmp_path).values():
        whole = path.read_bytes()
        for content in cuts(whole, max(1, len(whole) // 40)):
            path.write_bytes(content)
            try:
                graph = planetoid({p.name: p for p in tmp_path.glob("ind.*")})
            except UserError as error:
                one_sentence(error, tmp_path / "ind.small.")
            else:  # the end of a line belongs to no number
                assert (path.name, content) == ("ind.small.test.index", whole[:-1])
                assert graph[1].shape == (9, 4)
        path.write_bytes(whole)


@settings(max_examples=80, **QUICK)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_an_npz_with_another_byte_is_the_same_or_refused(place, value, tmp_path):
    path, whole = tmp_path / "x.npz", io.BytesIO()
    np.savez_compressed(whole, **arrays())
    expected = npz_of(path, whole.getvalue())
    content = bytearray(whole.getvalue())
    content[int(place * len(content))] = value
    try:
        loaded = npz_of(path, bytes(content))
    except UserError as error:
        one_sentence(error, path)
    else:
        assert loaded == expected


def npz_of(path: Path, content: bytes) -> list:
    path.write_bytes(content)
    edges, features, labels = npz(path)
    return [edges.tolist(), features.toarray().tolist(), labels.tolist()]


def test_labels_in_a_mat_file_truncated_anywhere_are_named(tmp_path):
    path, labels = tmp_path / "imagelabels.mat", np.arange(1, 103)
    for given_as in (np.uint8, np.float64):
        for packed in (False, True):
            savemat(path, {"labels": labels[None].astype(given_as)}, do_compression=packed)
            assert np.array_equal(_labels(path), labels), "MATLAB saves doubles"
            for content in cuts(path.read_bytes(), 7):
                path.write_bytes(content)
                try:
                    assert np.array_equal(_labels(path), labels), (
                        "only what fills up the last word is missing"
                    )
                except UserError as error:
                    one_sentence(error, path)
    for wrong in (
        labels + 1,
        labels - 1,
        labels + 0.5,
        labels[:0],
        np.full(3, np.nan),
        np.array(["a"]),
    ):
        savemat(path, {"labels": wrong})
        with pytest.raises(UserError, match=r"labels must be whole numbers from 1 to 102"):
            _labels(path)
    savemat(path, {"other": labels})
    with pytest.raises(UserError, match="holds other; labels are wanted"):
        _labels(path)


# -- layouts of MiniImagenet

FILES = {name: LAYOUTS[name]() for name in ("names and rows", "labels", "lists", "class folders")}
PLACES = {name: sorted(files) for name, files in FILES.items()}


def images_of(path: Path) -> list[tuple[str, bytes]]:
    return [
        (s, i.tobytes()) for s, i in make("miniimagenet").classes({"mini-imagenet.tar.gz": path})
    ]


@pytest.fixture(scope="module")
def right(tmp_path_factory) -> dict[str, list]:
    folder = tmp_path_factory.mktemp("right")
    return {name: images_of(archives.packed(folder / "x", files)) for name, files in FILES.items()}


@settings(max_examples=40, **QUICK)
@given(
    layout=st.sampled_from(sorted(FILES)),
    place=st.floats(0, 1, exclude_max=True),
    end=st.floats(0, 1, exclude_max=True),
    change=st.sampled_from(["gone", "empty", "cut", "moved", "twice", "folder"]),
)
def test_a_layout_with_a_file_changed_is_the_same_or_named(
    layout, place, end, change, right, tmp_path
):
    files = dict(FILES[layout])
    name = PLACES[layout][int(place * len(files))]
    held = files.pop(name)
    more = {
        "gone": {},
        "empty": {name: b""},
        "cut": {name: held[: int(end * len(held))]},
        "folder": {f"{name}/x": held},
        "moved": {f"elsewhere/{name}": held},
        "twice": {name: held, f"copy/{name}": held},
    }[change]
    path = archives.packed(tmp_path / "x", files | more)
    try:
        images = images_of(path)
    except UserError as error:
        one_sentence(error, path)
        return
    # A folder does not say what should be in it; its numbers of images are checked elsewhere.
    if images != right[layout]:
        assert layout == "class folders"
        assert change in ("gone", "moved", "twice", "folder")
        assert sum(len(i) for _, i in images) != sum(len(i) for _, i in right[layout])
