"""What ``cifar_fs`` and ``fc100`` share: both regroup the classes of CIFAR-100 (Krizhevsky 2009).

Of each class the 500 training and the 100 test images are taken, in this order, as torchmeta does.
32x32, [0, 1].
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
    """Colour images (3, 32, 32), 600 of each class. A subclass names its ``split_file`` and its
    ``split_id``.
    """

    input_shape = (3, _SIDE, _SIDE)
    smallest_class = _EACH
    image_count = 100 * _EACH
    store = "cifar100"
    files = (
        # The second address is the university's newer one for the same page, known from other
        # people's downloaders and from no list of ours; what comes from there must have the
        # published digest like everything else.
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
        """CIFAR-100's name of it."""
        return f"class {self.names[split][place]}"

    def classes(self, paths: dict[str, Path]) -> Iterator[tuple[str, np.ndarray]]:
        """In the order of their names within each split."""
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
    """The three pickles by name, wherever in an archive or a folder they stand: train, test,
    meta.
    """
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
    """Class -> number."""
    names = [_pickles.text(name) for name in _pickles.field(meta, "fine_label_names")]
    if len(set(names)) != len(names):
        raise UserError(f"{path}, meta names a class twice. {AGAIN}")
    return {name: i for i, name in enumerate(names)}


def _images(content: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 3, 32, 32) and labels (N,) of a pickle; its rows may be laid out as images,
    in either way.
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
