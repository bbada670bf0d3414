"""Omniglot: miniature archives, a local server, and the real drawings where they are at hand."""

import functools
import hashlib
import http.server
import re
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cml_bench import registry
from cml_bench.data import _source, references
from cml_bench.data._source import RemoteFile, sha256_of
from cml_bench.data.episodes import Episodes
from cml_bench.data.omniglot import Omniglot
from cml_bench.data.prepared import LocalCopy
from cml_bench.errors import UserError
from tests.helpers.damage import flip
from tests.helpers.fetched import obtain
from tests.helpers.omniglot import archive, without_the_end

DECODED = "b112bbaec2585715416bd50eeb768861af19297983239de57624b4f0bb191cd9"


def test_the_split_is_torchmetas():
    data = Omniglot(Omniglot.Options())
    assert data.class_counts == {"train": 1028, "validation": 172, "test": 423}
    parts = [set(characters) for characters in data.characters.values()]
    assert len(set.union(*parts)) == 1623
    assert {(a, alphabet) for a, alphabet, _ in parts[1]} == {
        ("images_background", name)
        for name in ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
    }
    assert sum(alphabet == "Gurmukhi" for _, alphabet, _ in parts[0]) == 41
    turned = Omniglot(Omniglot.Options(rotations=True))
    assert turned.class_counts["test"] == 4 * 423
    assert turned.data_id != data.data_id


def test_a_local_copy_is_prepared_and_drawn_from(miniature, tmp_path):
    data, copies = miniature
    data.prepare(tmp_path / "data", copies)
    data.open(tmp_path / "data", torch.device("cpu"), torch.float32)
    assert data.arrays.images.shape == (9 * 20, 1, 28, 28)
    x = Episodes(data, "test", 3, 2, 4).batch(0, 2).query.x
    assert x.shape == (2, 12, 1, 28, 28)
    assert x.max() == 1, "paper is white"
    again = Omniglot(Omniglot.Options())
    again.open(tmp_path / "data", torch.device("cpu"), torch.float32)
    assert again.sha256 == data.sha256


def test_repacked_archives_are_the_same_data(miniature, tmp_path):
    data, copies = miniature
    data.prepare(tmp_path / "a", copies)
    for name, copy in copies.items():
        with (
            zipfile.ZipFile(copy.path) as old,
            zipfile.ZipFile(tmp_path / "new.zip", "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for item in reversed(old.namelist()):
                new.writestr(item, old.read(item))
        (tmp_path / "new.zip").replace(copy.path)
        copies[name] = LocalCopy(path=copy.path, sha256=sha256_of(Path(copy.path)))
    data.prepare(tmp_path / "b", copies)
    hashes = [
        data.open(tmp_path / n, torch.device("cpu"), torch.float32).sha256 for n in ("a", "b")
    ]
    assert hashes[0] == hashes[1]


def test_rotations_are_classes(miniature, tmp_path):
    data, copies = miniature
    turned = Omniglot(Omniglot.Options(rotations=True))
    turned.characters = data.characters
    arrays = turned.build({name: Path(copy.path) for name, copy in copies.items()})
    assert len(arrays.sizes) == 36
    first = arrays.images.reshape(36, 20, 28, 28)[:4]
    for k in range(4):
        assert np.array_equal(first[k], np.rot90(first[0], k, axes=(1, 2)))


def test_bad_copies_are_refused_by_name_and_leave_nothing(miniature, tmp_path):
    data, copies = miniature
    wrong = {
        **copies,
        "images_background.zip": LocalCopy(
            path=copies["images_background.zip"].path, sha256="0" * 64
        ),
    }
    with pytest.raises(
        UserError, match=r"images_background\.zip has SHA-256 .* the configuration says 0000"
    ):
        data.prepare(tmp_path / "data", wrong)
    gone = {**copies, "images_evaluation.zip": LocalCopy(path="/nowhere.zip", sha256="0" * 64)}
    with pytest.raises(
        UserError, match=r"local copy of images_evaluation\.zip is not there: /nowhere\.zip"
    ):
        data.prepare(tmp_path / "data", gone)
    with pytest.raises(UserError, match=r"unknown file of omniglot 'images\.zip'"):
        data.prepare(tmp_path / "data", {"images.zip": copies["images_background.zip"]})
    short = tmp_path / "images_evaluation.zip"
    archive(
        short,
        [c for characters in data.characters.values() for c in characters if c[0] == short.stem],
        drawings=19,
    )
    fewer = {**copies, short.name: LocalCopy(path=str(short), sha256=sha256_of(short))}
    with pytest.raises(UserError, match="19 drawings; 20 are expected"):
        data.prepare(tmp_path / "data", fewer)
    assert not (tmp_path / "data" / "prepared").exists()


@pytest.fixture
def server(tmp_path):
    """A local server with one good and one wrong file."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "good.bin").write_bytes(b"the file")
    (served / "bad.bin").write_bytes(b"<html>quota exceeded</html>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=served)
    ) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def remote(*urls: str) -> RemoteFile:
    return RemoteFile("file.bin", urls, 8, hashlib.sha256(b"the file").hexdigest())


def test_mirrors_are_tried_in_order_and_the_digest_decides(server, tmp_path):
    file = remote(server + "gone.bin", server + "bad.bin", server + "good.bin")
    path = obtain(file, tmp_path / "downloads")
    assert path.read_bytes() == b"the file"
    assert [p.name for p in path.parent.iterdir() if p.name != ".lock"] == ["file.bin"]


def test_without_a_good_mirror_the_error_says_what_to_do(server, tmp_path):
    with pytest.raises(
        UserError, match=r"gone\.bin: status 404; .*bad\.bin: the server answered.*quota.*`sources`"
    ):
        obtain(remote(server + "gone.bin", server + "bad.bin"), tmp_path / "downloads")
    assert [p.name for p in (tmp_path / "downloads").iterdir()] == [".lock"]


def test_a_damaged_download_is_fetched_again(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"half")
    assert obtain(remote(server + "good.bin"), tmp_path).read_bytes() == b"the file"


def test_a_verified_file_is_not_fetched_again(tmp_path, monkeypatch):
    (tmp_path / "file.bin").write_bytes(b"the file")
    monkeypatch.setattr(_source, "_download", lambda *args: pytest.fail("fetched again"))
    obtain(remote("http://127.0.0.1:9/"), tmp_path)


@pytest.mark.slow
def test_the_real_drawings(real_data, tmp_path):
    folder = real_data / "omniglot"
    names = ("images_background.zip", "images_evaluation.zip")
    copies = {
        name: LocalCopy(path=str(folder / name), sha256=sha256_of(folder / name)) for name in names
    }
    data = registry.datasets.get("omniglot")(Omniglot.Options())
    data.prepare(tmp_path, copies)
    data.open(tmp_path, torch.device("cpu"), torch.float32)
    assert data.arrays.images.shape == (32_460, 1, 28, 28)
    assert data.sha256 == DECODED, "pixels, class sizes and split, whatever archive they came in"
    assert references.repacked(data.data_id, data.unordered_sha256).startswith("repacked copy")
    assert set(data.arrays.sizes.tolist()) == {20}
    ink = 1 - data.arrays.images.mean() / 255
    assert 0.05 < ink < 0.12


def with_a_flipped_bit(path: Path) -> None:
    flip(path, path.read_bytes().index(b"IDAT") + 6, 0xFF)


def with_first_drawing(change) -> object:
    """The archive packed anew with another first drawing."""

    def damage(path: Path) -> None:
        with zipfile.ZipFile(path) as old:
            members = {name: old.read(name) for name in old.namelist()}
        first = next(iter(members))
        members[first] = change(members[first])
        with zipfile.ZipFile(path, "w") as new:
            for name, content in members.items():
                new.writestr(name, content)

    return damage


def with_a_shorter_chunk(png: bytes) -> bytes:
    end = png.index(b"IDAT")
    return png[: end - 1] + bytes([png[end - 1] - 9]) + png[end:]


def with_members_marked(offset: int, value: int) -> object:
    """Give every member the flags (offset 6) or the compression (8) of a flipped bit.

    Both headers of a member are changed.
    """

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        for signature, place in ((b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)):
            header = content.find(signature)
            while header >= 0:
                content[header + place] = value
                header = content.find(signature, header + 4)
        path.write_bytes(bytes(content))

    return damage


DAMAGE = {
    "text": lambda path: path.write_text("<html>"),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": without_the_end,
    "bit flipped": with_a_flipped_bit,  # zipfile.BadZipFile
    "encrypted": with_members_marked(6, 1),  # RuntimeError
    "unknown compression": with_members_marked(8, 99),  # NotImplementedError
    "no picture": with_first_drawing(lambda png: b"no picture"),  # UnidentifiedImageError
    "half a picture": with_first_drawing(lambda png: png[:60]),  # OSError
    "broken chunk": with_first_drawing(with_a_shorter_chunk),  # SyntaxError
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_archive_is_named_and_leaves_nothing(damage, miniature, tmp_path):
    """The digest that the user names is that of the damaged file."""
    data, copies = miniature
    path = Path(copies["images_background.zip"].path)
    damage(path)
    copies = {**copies, path.name: LocalCopy(path=str(path), sha256=sha256_of(path))}
    with pytest.raises(
        UserError, match=r"images_background\.zip is (damaged|empty|a web page)"
    ) as caught:
        data.prepare(tmp_path / "data", copies)
    assert re.search(r"Name another copy under `sources`", str(caught.value))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data" / "prepared").exists()


def test_wherever_a_byte_changes_it_is_noticed_or_without_effect(miniature):
    """The archive has one character; one byte at a time is another."""
    data, copies = miniature
    data.characters = {split: characters[-1:] for split, characters in data.characters.items()}
    paths = {name: Path(copy.path) for name, copy in copies.items()}
    path = paths["images_background.zip"]
    archive(
        path,
        [c for characters in data.characters.values() for c in characters if c[0] == path.stem],
    )
    before, content, rng = data.build(paths).images, path.read_bytes(), np.random.default_rng(0)
    noticed = 0
    for place, value in zip(
        rng.integers(len(content), size=150), rng.integers(256, size=150), strict=True
    ):
        path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
        try:
            assert np.array_equal(data.build(paths).images, before)
        except UserError as error:
            noticed += "images_background.zip" in str(error)
    assert noticed > 75


def test_a_file_for_which_there_is_no_address_is_asked_for(tmp_path):
    file = RemoteFile("file.bin", (), 8, "0" * 64, page="https://example.org/ask")
    with pytest.raises(
        UserError,
        match=r"by hand: get the file \(8 bytes.* from https://example\.org/ask and put it at",
    ):
        obtain(file, tmp_path)
    (tmp_path / "file.bin").write_bytes(b"another")
    with pytest.raises(
        UserError, match="where another file is now, or name your copy under `sources`"
    ):
        obtain(file, tmp_path)
    with pytest.raises(UserError, match=r"local copy of file\.bin is not there: ~nobody-here/x"):
        obtain(file, tmp_path, LocalCopy(path="~nobody-here/x", sha256="0" * 64))
