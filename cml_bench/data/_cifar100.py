"""The common part of ``cifar_fs`` and ``fc100``, two few-shot splits of CIFAR-100.

CIFAR-100 has 60,000 colour photographs of 32x32 pixels in 100 classes. Alex Krizhevsky made it at
the University of Toronto (2009); it has no licence text. Both sets take all 600 images of a class:
first the 500 training images, then the 100 test images, as torchmeta does.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cml_bench.data import _pickles
from cml_bench.data._archives import AGAIN, described, members, reading
from cml_bench.data._images import as_bytes
from cml_bench.data.base import RemoteFile
from cml_bench.data.episodes import SPLITS
from cml_bench.data.stored import ImageSet
from cml_bench.errors import UserError
from cml_bench.spec import Options

_SIDE, _EACH = 32, 600


class Cifar100(ImageSet):
    """Colour images (3, 32, 32), 600 of each class.

    A subclass gives ``split_file``, the list of classes of each split, and ``split_id``, its name.
    """

    input_shape = (3, _SIDE, _SIDE)
    smallest_class = _EACH
    image_count = 100 * _EACH
    store = "cifar100"
    files = (
        # The second address is the university's newer one for the same page. Other people's
        # downloaders name it; we have not fetched from it. Every download must have the published
        # digest.
        RemoteFile(
            "cifar-100-python.tar.gz",
            (
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                "https://cave.cs.toronto.edu/kriz/cifar-100-python.tar.gz",
            ),
            169_001_437,
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            page="https://www.cs.toronto.edu/~kriz/cifar.html",
        ),
    )
    licence = (
        "CIFAR-100 has no licence text; it is for research, and Krizhevsky (2009) is to be cited."
    )
    split_file: Path
    split_id: str

    def __init__(self, options: Options):
        super().__init__(options)
        lists = json.loads(self.split_file.read_text(encoding="utf-8"))
        self.names = {split: sorted(itertools.chain(*lists[split].values())) for split in SPLITS}
        self.class_counts = {split: len(names) for split, names in self.names.items()}

    @property
    def data_id(self) -> str:
        """Split and size."""
        return f"{self.name}/{self.split_id}/{_SIDE}px"

    def class_name(self, split: str, place: int) -> str:
        """The class by its name in CIFAR-100."""
        return f"class {self.names[split][place]}"

    def classes(self, paths: dict[str, Path]) -> Iterator[tuple[str, np.ndarray]]:
        """One class after another, within each split in the order of their names."""
        (path,) = paths.values()
        with reading(path):
            content = _contents(path)
            numbers = _numbers(content["meta"], path)
            parts = [_images(content[part], f"{path}, {part}") for part in ("train", "test")]
            images, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
            for split in SPLITS:
                for name in self.names[split]:
                    if name not in numbers:
                        raise UserError(f"{path} has no class {name}. {AGAIN}")
                    yield split, images[labels == numbers[name]]


def _contents(path: Path) -> dict[str, Any]:
    """The three pickles train, test and meta, by name, from any place in the archive or folder."""
    pickles: dict[str, Any] = {}
    names: dict[str, str] = {}
    every = []
    for name, file in members(path):
        every.append(name)
        if (part := PurePosixPath(name).name) in ("train", "test", "meta"):
            if part in pickles:
                raise UserError(
                    f"{path} holds {names[part]} and {name}, and nobody knows which is meant."
                    f" {AGAIN}"
                )
            pickles[part], names[part] = _pickles.load(file, f"{path}, {name}"), name
    if missing := sorted({"train", "test", "meta"} - set(pickles)):
        raise UserError(
            f"{path} holds {described(every)}. Wanted are CIFAR-100's pickles train, test and meta;"
            f" there is no file {missing[0]}. {AGAIN}"
        )
    return pickles


def _numbers(meta: Any, path: Path) -> dict[str, int]:
    """The label of each class, by the name of the class."""
    names = [_pickles.text(name) for name in _pickles.field(meta, "fine_label_names")]
    if len(set(names)) != len(names):
        raise UserError(f"{path}, meta names a class twice. {AGAIN}")
    return {name: i for i, name in enumerate(names)}


def _images(content: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 3, 32, 32) and labels (N,) of a pickle.

    The pickle holds rows of 3,072 bytes, or images (N, 32, 32, 3) or (N, 3, 32, 32).
    """
    images, labels = (np.asarray(_pickles.field(content, key)) for key in ("data", "fine_labels"))
    count, shape = len(labels), (3, _SIDE, _SIDE)
    if images.shape == (count, _SIDE, _SIDE, 3):
        images = images.transpose(0, 3, 1, 2)
    if (
        images.shape not in ((count, 3 * _SIDE**2), (count, *shape))
        or labels.dtype.kind not in "iu"
    ):
        raise UserError(
            f"{where} holds images {images.shape} and labels {labels.dtype} {labels.shape}; rows of"
            f" 3,072 bytes and a number for each are wanted. {AGAIN}"
        )
    return as_bytes(images, f"{where},").reshape(-1, *shape), labels
