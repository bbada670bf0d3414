"""Miniature archives in the exact formats of the published ones: all classes, few small images.

``python -m tests.helpers.archives FOLDER`` writes all of them, and ``FOLDER/sources.yaml``, a piece
of configuration that names them with their digests. A study runs on them as ``snakemake
--configfile STUDY.yaml FOLDER/sources.yaml``. Images of a class share a pattern, so that there is
something to learn. The bytes depend on ``seed`` only.
"""

import gzip
import io
import json
import os
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from cml_bench import data as package
from cml_bench.data._source import sha256_of

EACH = 20  # images of a class: enough for 5 support and 15 query images
MINI = {"train": 64, "validation": 16, "test": 20}


def images(number: int, each: int, side: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Pictures of class ``number``: coarse squares with a little noise.

    uint8 (each, side, side, channels). As in photographs, bytes of the upper half are as frequent
    as those of the lower half.
    """
    cells = 7 if side % 7 == 0 else 8
    pattern = np.random.default_rng((seed, number)).integers(0, 200, (1, cells, cells, channels))
    noise = np.random.default_rng((seed, number, 1)).integers(0, 56, (each, cells, cells, channels))
    return (
        (pattern + noise)
        .astype(np.uint8)
        .repeat(side // cells, axis=1)
        .repeat(side // cells, axis=2)
    )


# -- pickles


def python3_pickle(value: Any) -> bytes:
    """A pickle as Python 3 wrote it with protocol 2 before numpy 2.

    Bytes are latin1 text, and numpy's core is ``numpy.core``.
    """
    return pickle.dumps(value, protocol=2).replace(b"cnumpy._core.", b"cnumpy.core.")


class _Python2(pickle._Pickler):
    """A pickler that writes strings and bytes as Python 2 wrote its str.

    The opcodes are BINSTRING and SHORT_BINSTRING.
    """

    def save_string(self, value: str | bytes) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        short = len(content) < 256
        head = pickle.SHORT_BINSTRING if short else pickle.BINSTRING
        self.write(head + len(content).to_bytes(1 if short else 4, "little") + content)
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, str: save_string, bytes: save_string}


def python2_pickle(value: Any) -> bytes:
    """A pickle as Python 2 wrote it with protocol 2: the files of CIFAR and Planetoid."""
    buffer = io.BytesIO()
    _Python2(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


# -- data sets


def mini_contents(each: int = EACH, seed: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pairs (split, content of its pickle).

    The rows of a class do not stand together, nor in the order of the names.
    """
    first = 0
    for split, count in MINI.items():
        pictures = np.stack([images(first + c, each, 84, seed) for c in range(count)], axis=1)
        names = [f"n{(first + c) * 7919 % 10**6:08d}" for c in range(count)]
        rows = {name: list(range(c, count * each, count)) for c, name in enumerate(names)}
        yield split, {"image_data": pictures.reshape(-1, 84, 84, 3), "class_dict": rows}
        first += count


def miniimagenet(folder: Path, each: int = EACH, seed: int = 0) -> list[Path]:
    """The three pickles of MiniImagenet as they are on Zenodo."""
    paths = []
    for split, content in mini_contents(each, seed):
        paths.append(Path(folder) / f"mini-imagenet-cache-{split}.pkl")
        paths[-1].write_bytes(python3_pickle(content))
    return paths


def miniimagenet_tar(folder: Path, each: int = EACH, seed: int = 0) -> list[Path]:
    """``mini-imagenet.tar.gz``: the same images in another order.

    Its validation split is called val.
    """
    members = {
        f"mini-imagenet-cache-{split.replace('validation', 'val')}.pkl": python3_pickle(content)
        for split, content in mini_contents(each, seed)
    }
    return [packed(Path(folder) / "mini-imagenet.tar.gz", dict(sorted(members.items())))]


def packed(path: Path, members: dict[str, bytes]) -> Path:
    """A tar.gz of these members: the same bytes at each call."""
    with (
        gzip.GzipFile(path, "wb", compresslevel=1, mtime=0) as raw,
        tarfile.open(fileobj=raw, mode="w") as archive,
    ):
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def _split(name: str) -> dict[str, Any]:
    return json.loads((Path(package.__file__).parent / f"{name}.json").read_text())


def cifar100(folder: Path, train: int = 20, test: int = 5, seed: int = 0) -> list[Path]:
    """``cifar-100-python.tar.gz``: the pickles train, test and meta of Python 2.

    The rows of the classes are mixed.
    """
    split = _split("cifar_fs")
    tree: dict[str, list[str]] = {}
    for part in ("train", "validation", "test"):
        for coarse, names in split[part].items():
            tree.setdefault(coarse, []).extend(names)
    coarse_names = sorted(tree)
    fine = sorted(
        (name, coarse_names.index(coarse)) for coarse, names in tree.items() for name in names
    )
    every = [
        images(number, train + test, 32, seed).transpose(0, 3, 1, 2) for number in range(len(fine))
    ]
    members = {}
    for part, rows in (("test", slice(train, None)), ("train", slice(0, train))):
        pictures = np.stack([of_class[rows] for of_class in every], axis=1).reshape(-1, 3 * 32 * 32)
        labels = list(range(len(fine))) * (len(pictures) // len(fine))
        content = {
            "data": pictures,
            "fine_labels": labels,
            "coarse_labels": [fine[label][1] for label in labels],
            "filenames": [f"{fine[label][0]}_s_{i:06d}.png" for i, label in enumerate(labels)],
            "batch_label": f"{part}ing batch 1 of 1",
        }
        members[f"cifar-100-python/{part}"] = python2_pickle(content)
    names = {"fine_label_names": [name for name, _ in fine], "coarse_label_names": coarse_names}
    members["cifar-100-python/meta"] = python2_pickle(names)
    members["cifar-100-python/file.txt~"] = b""
    return [packed(Path(folder) / "cifar-100-python.tar.gz", members)]


def flowers(folder: Path, each: int = EACH, seed: int = 0) -> list[Path]:
    """``102flowers.tgz`` with jpg/image_00001.jpg and so on, and ``imagelabels.mat``.

    The pictures have many shapes, and the classes are mixed.
    """
    from scipy.io import savemat

    labels = np.random.default_rng(seed).permutation(
        np.repeat(np.arange(1, 103), each + np.arange(102) % 3)
    )
    pictures = {number: iter(images(number, each + 2, 40, seed)) for number in range(1, 103)}
    members = {}
    for i, label in enumerate(labels, start=1):
        buffer = io.BytesIO()
        picture = Image.fromarray(next(pictures[label])).resize((50 + i % 7, 60 - i % 11))
        picture.save(buffer, format="jpeg", quality=90)
        members[f"jpg/image_{i:05d}.jpg"] = buffer.getvalue()
    order = np.random.default_rng((seed, 1)).permutation(len(members))
    names = list(members)
    archive = packed(Path(folder) / "102flowers.tgz", {names[i]: members[names[i]] for i in order})
    savemat(Path(folder) / "imagelabels.mat", {"labels": labels[None].astype(np.uint8)})
    return [archive, Path(folder) / "imagelabels.mat"]


def omniglot(folder: Path, seed: int = 0) -> list[Path]:
    """The two zips with all 1,623 characters and 20 drawings of each.

    The drawings of one character are the same bars, moved a little.
    """
    split = _split("omniglot")
    rng = np.random.default_rng(seed)
    paths = []
    for name in ("images_background", "images_evaluation"):
        paths.append(Path(folder) / f"{name}.zip")
        alphabets: dict[str, set[int]] = {}
        for part in ("train", "validation", "test"):
            for alphabet, (first, last) in split[part].get(name, {}).items():
                alphabets.setdefault(alphabet, set()).update(range(first, last + 1))
        with zipfile.ZipFile(paths[-1], "w") as archive:
            for alphabet in sorted(alphabets):
                for character in sorted(alphabets[alphabet]):
                    cells = rng.random((7, 7)) < 0.3
                    for drawing in range(1, 21):
                        ink = np.roll(
                            cells.repeat(15, 0).repeat(15, 1), rng.integers(-3, 4, 2), (0, 1)
                        )
                        buffer = io.BytesIO()
                        Image.fromarray(~ink).save(buffer, format="png", compress_level=1)
                        drawn = f"{character:04d}_{drawing:02d}.png"
                        place = f"{name}/{alphabet}/character{character:02d}/{drawn}"
                        archive.writestr(zipfile.ZipInfo(place), buffer.getvalue())
    return paths


def sources(files: dict[str, list[Path]]) -> dict[str, Any]:
    """The keys ``sources`` and ``acknowledged`` of a configuration that names these files."""
    own = {
        name: {
            path.name: {"path": str(path.absolute()), "sha256": sha256_of(path)} for path in paths
        }
        for name, paths in files.items()
    }
    return {"sources": own, "acknowledged": ["miniimagenet"] if "miniimagenet" in files else []}


def write_all(folder: Path) -> Path:
    """Write every miniature archive, and ``sources.yaml``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cifar = cifar100(folder)
    files = {
        "miniimagenet": miniimagenet(folder),
        "cifar_fs": cifar,
        "fc100": cifar,
        "vgg_flower": flowers(folder),
        "omniglot": omniglot(folder),
    }
    (folder / "sources.yaml").write_text(yaml.safe_dump(sources(files)))
    return folder / "sources.yaml"


if __name__ == "__main__":
    print(write_all(Path(sys.argv[1])))


class Command:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)
