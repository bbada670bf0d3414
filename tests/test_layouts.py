"""A user's copies in other known layouts: the same data, or named for what they are."""

import hashlib
import io
import json
import pickle
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cml_bench.data import _mini_layouts
from cml_bench.data._archives import members
from cml_bench.data._source import RemoteFile, sha256_of
from cml_bench.data.episodes import SPLITS
from cml_bench.data.prepared import LocalCopy
from cml_bench.data.stored import ImageArrays, hash_images
from cml_bench.errors import UserError
from tests.helpers import archives
from tests.helpers.fetched import obtain
from tests.helpers.image_sets import make
from tests.helpers.layouts import FORMS, folder_of, refused, zip_of


def digest(data, paths: dict[str, Path]) -> str:
    """A digest of the decoded data, as prepared arrays have it."""
    decoded: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for split, images in data.classes(paths):
        decoded[split].append(np.array(images))
    every = [images for split in SPLITS for images in decoded[split]]
    ends = np.cumsum([len(decoded[split]) for split in SPLITS])
    splits = dict(zip(SPLITS, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
    return hash_images(
        ImageArrays(np.concatenate(every), np.array([len(images) for images in every]), splits)
    )


def content(path: Path) -> dict[str, bytes]:
    return {name: file.read() for name, file in members(path)}


@pytest.fixture(scope="module")
def plain(minis) -> dict[str, str]:
    return {
        name: digest(make(name), {p.name: p for p in minis[name]})
        for name in ("cifar_fs", "fc100", "vgg_flower")
    }


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *(("fc100", form) for form in FORMS),
        *(("vgg_flower", form) for form in ("tar of a Mac", "folder")),
    ],
)
def test_archives_and_folders_of_other_systems_are_the_same_data(
    name, form, minis, plain, tmp_path
):
    paths = {path.name: path for path in minis[name]}
    archive = minis[name][0]
    paths[archive.name] = FORMS[form](tmp_path / "copy", content(archive))
    assert digest(make(name), paths) == plain[name]


@pytest.fixture(scope="module")
def drawings() -> dict[str, bytes]:
    """Distinct drawings of the first two characters of each split, as in images_background."""
    pictures, data = {}, make("omniglot")
    for split in SPLITS:
        for archive, alphabet, number in data.characters[split][:2]:
            for drawing in range(20):
                pixels = np.full((105, 105), 255, np.uint8)
                pixels[len(pictures) % 90 :, drawing : drawing + 3] = 0
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, format="png")
                pictures[f"{archive}/{alphabet}/character{number:02d}/{drawing:04d}.png"] = (
                    buffer.getvalue()
                )
    return pictures


@pytest.mark.parametrize("form", [*FORMS, "both in one"])
def test_omniglot_in_archives_and_folders_of_other_systems(form, drawings, tmp_path):
    data = make("omniglot")
    data.characters = {split: characters[:2] for split, characters in data.characters.items()}
    parts = {
        key: {n: h for n, h in drawings.items() if n.startswith(key)}
        for key in ("images_background", "images_evaluation")
    }
    plain = {f"{key}.zip": zip_of(tmp_path / f"{key}.zip", files) for key, files in parts.items()}
    # torchvision and the authors' repository have a smaller set beside it.
    if form == "both in one":
        small = {
            n.replace("images_background", "images_background_small1"): b""
            for n in parts["images_background"]
        }
        both = folder_of(tmp_path / "omniglot-py", {**drawings, **small})
        other = dict.fromkeys(plain, both)
    else:
        other = {
            f"{key}.zip": FORMS[form](tmp_path / f"{key} copy", files)
            for key, files in parts.items()
        }
    assert np.array_equal(data.build(other).images, data.build(plain).images)


# -- CIFAR-100


def repickled(path: Path, target: Path, protocol: int = 4, **changes) -> Path:
    """The published pickles, read with ``encoding="bytes"`` and written again by Python 3."""
    files = {}
    for name, held in content(path).items():
        if name.endswith(("train", "test", "meta")):
            values = pickle.loads(held, encoding="bytes")
            held = pickle.dumps(
                {key: changes.get(key.decode(), lambda v: v)(v) for key, v in values.items()},
                protocol,
            )
        files[name] = held
    return archives.packed(target, files)


def as_rows(data: np.ndarray) -> np.ndarray:
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    "changes", [{}, {"data": as_rows}, {"fine_labels": np.array}], ids=["", "rows", "arrays"]
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_cifar_with_names_as_bytes_is_the_same_data(protocol, changes, minis, plain, tmp_path):
    (path,) = minis["cifar_fs"]
    again = repickled(path, tmp_path / "again.tar.gz", protocol, **changes)
    assert digest(make("cifar_fs"), {path.name: again}) == plain["cifar_fs"]


def test_what_is_not_cifar_100_is_named_for_what_it_is(minis, tmp_path):
    (path,) = minis["fc100"]
    ten = archives.packed(
        tmp_path / "ten.tar.gz", {f"cifar-10-batches-py/data_batch_{i}": b"" for i in range(1, 6)}
    )
    refused(
        "fc100",
        ten,
        r"holds 5 files \(cifar-10-batches-py/data_batch_1, .*Wanted are CIFAR-100's pickles train",
    )
    few = zip_of(tmp_path / "few.zip", {"FC100_train.pickle": b"", "FC100_val.pickle": b""})
    refused(
        "cifar_fs",
        few,
        r"holds 2 files \(FC100_train\.pickle, FC100_val\.pickle\)\. Wanted are CIFAR-100",
    )
    twice = {**content(path), "again/train": b""}
    refused(
        "fc100",
        archives.packed(tmp_path / "x.tar", twice),
        r"holds cifar-100-python/train and again/train, and",
    )
    cut = repickled(path, tmp_path / "cut.tar.gz", data=lambda data: data[:, :3071])
    refused("fc100", cut, r"train holds images \(2000, 3071\) and labels .*; rows of 3,072 bytes")
    fewer = repickled(path, tmp_path / "fewer.tar.gz", fine_labels=lambda labels: labels[:-1])
    refused("fc100", fewer, r"holds images \(2000, 3072\) and labels int64 \(1999,\)")


KINDS = {
    "a web page": b"<!DOCTYPE html>\n<html>sign in</html>",
    "empty": b"",
    "a pickle": pickle.dumps({}),
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "a picture": b"\x89PNG\r\n",
    "a file of an unknown kind": b"some text\n",
    "a RAR archive": b"Rar!\x1a\7\0",
    "an HDF5 file": b"\x89HDF\r\n",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_named_for_what_it_is(kind, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(KINDS[kind])
    for name in ("fc100", "omniglot", "miniimagenet"):
        refused(
            name,
            path,
            rf"/x is {kind}.*; an archive \(tar or zip\), or the folder of what it holds, is"
            r" wanted",
        )
    if kind not in ("a pickle", "a file of an unknown kind"):
        with pytest.raises(UserError, match=rf"/x is {kind}.*; a pickle is wanted"):
            list(_mini_layouts.of_pickle(path, "train"))
        with pytest.raises(UserError, match=rf"/x is {kind}.*; a MATLAB file is wanted"):
            list(make("vgg_flower").classes({"imagelabels.mat": path, "102flowers.tgz": path}))
    with pytest.raises(UserError, match="/x"):
        list(_mini_layouts.of_pickle(path, "train"))


# -- folders under `sources`


def test_a_folder_has_the_digest_of_a_plain_command(tmp_path):
    folder = folder_of(
        tmp_path / "größe ü", {"b/x y": b"1", "b.c": b"2", "a\\b\nc": b"3", "B": b"", "ü": b"5"}
    )
    (folder / "link").symlink_to(folder / "B")
    shell = (
        '(cd "$1" && find -L . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum'
    )
    done = subprocess.run(
        ["bash", "-c", shell, "-", str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == sha256_of(folder)
    assert shell.replace('"$1"', "FOLDER").replace("\\", "") in sha256_of.__doc__
    before = sha256_of(folder)
    (folder / "b.c").rename(folder / "C")
    assert sha256_of(folder) != before
    assert sha256_of(folder / "ü") == hashlib.sha256(b"5").hexdigest()


def test_a_folder_is_prepared_with_its_digest_and_stays_as_it_is(minis, tmp_path):
    (path,) = minis["fc100"]
    folder = folder_of(tmp_path / "copy", content(path))
    before = {
        file: (file.stat().st_mtime_ns, file.read_bytes())
        for file in folder.rglob("*")
        if file.is_file()
    }
    own = {path.name: LocalCopy(path=str(folder), sha256=sha256_of(folder))}
    make("fc100").prepare(tmp_path / "data", own)
    index = json.loads(
        (make("fc100").folder(tmp_path / "data") / "index.json").read_text(encoding="utf-8")
    )
    assert index["files"] == {path.name: [f"sha256:{own[path.name].sha256}"]}
    (folder / "more").write_bytes(b"")
    with pytest.raises(UserError, match=r"has SHA-256 .*, the configuration says"):
        make("fc100").prepare(tmp_path / "other", own)
    (folder / "more").unlink()
    after = {
        file: (file.stat().st_mtime_ns, file.read_bytes())
        for file in folder.rglob("*")
        if file.is_file()
    }
    assert after == before


def test_folders_that_cannot_be_read_are_named(tmp_path):
    folder = folder_of(tmp_path / "copy", {"train/a/x.png": b""})
    file = RemoteFile("x.mat", (), 1)
    with pytest.raises(
        UserError, match=r"copy of x\.mat is a folder: .*copy\. Give the path of the file"
    ):
        obtain(file, tmp_path, LocalCopy(path=str(folder), sha256="0" * 64))
    (tmp_path / "y.mat").mkdir()
    with pytest.raises(UserError, match=r"y\.mat is a folder, where the file y\.mat belongs"):
        obtain(RemoteFile("y.mat", ("http://127.0.0.1:9/",), 1), tmp_path)
    (folder / "round").symlink_to(folder)
    refused("miniimagenet", folder, "round is a link to a folder that it stands in")
    (folder / "round").unlink()
    (folder / "gone").symlink_to(folder / "nowhere")
    refused("miniimagenet", folder, "gone is a link to .*nowhere, which is not there")
    (folder / "gone").unlink()
    shutil.copytree(folder / "train", tmp_path / "elsewhere")
    (folder / "val").symlink_to(tmp_path / "elsewhere")
    assert [name for name, _ in members(folder)] == ["train/a/x.png", "val/a/x.png"], (
        "a link to another folder is read"
    )


def test_a_tar_that_ends_early_between_two_members_is_noticed(tmp_path):
    """tarfile takes such a tar for whole, and one with a damaged header in its middle too."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a", "b", "c"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    whole = path.read_bytes()
    assert [name for name, _ in members(path)] == ["a", "b", "c"]
    for changed in (
        whole[:512],
        whole[:1024],
        whole[:1536],
        whole[:512] + b"b" * 512 + whole[1024:],
    ):
        path.write_bytes(changed)
        with tarfile.open(path) as archive:
            assert len(archive.getnames()) < 4
        with pytest.raises(tarfile.ReadError):
            list(members(path))
