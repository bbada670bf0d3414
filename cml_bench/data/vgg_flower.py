"""``vgg_flower``: 8,189 photographs of 102 kinds of flowers, 40 to 258 of each kind.

Nilsback and Zisserman (2008) made the set at the University of Oxford, from which it is fetched.
The photographs belong to third parties and have no licence. Classes are split as in Meta-Dataset
(Triantafillou et al. 2020), 71 / 15 / 16; BOIL and CML use the same lists. As in their code, the
whole photograph is squashed to 32x32, whatever its shape. Their code names no filter, so it uses
Pillow's default, bicubic since Pillow 7. learn2learn does not resize the photographs.
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import Field

from cml_bench.data._archives import AGAIN, MATLAB, described, escaped, members, reading
from cml_bench.data._images import decode
from cml_bench.data.base import RemoteFile
from cml_bench.data.episodes import SPLITS
from cml_bench.data.stored import ImageSet
from cml_bench.errors import UserError
from cml_bench.registry import datasets
from cml_bench.spec import Options

_SPLIT_FILE = Path(__file__).with_name("vgg_flower.json")
_PAGE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"


def _file(name: str, size: int, sha256: str) -> RemoteFile:
    return RemoteFile(name, (_PAGE + name,), size, sha256, _PAGE)


class FlowerOptions(Options):
    """The size of the images."""

    size: int = Field(32, ge=16, le=128, description="pixels per side (32 in BOIL and CML)")


@datasets.register("vgg_flower")
class VggFlower(ImageSet):
    """Colour images (3, size, size), 40 to 258 of each class.

    ``vgg_flower.json`` lists the class split.
    """

    Options = FlowerOptions
    options: FlowerOptions
    smallest_class = 40
    image_count = 8189
    files = (
        _file(
            "102flowers.tgz",
            344_862_509,
            "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
        ),
        _file(
            "imagelabels.mat", 0, "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d"
        ),
    )
    licence = (
        "The photographs belong to third parties, and no licence allows passing them on; use them"
        " for research."
    )

    def __init__(self, options: FlowerOptions):
        super().__init__(options)
        self.input_shape = (3, options.size, options.size)
        lists = json.loads(_SPLIT_FILE.read_text(encoding="utf-8"))
        self.numbers = {split: lists[split] for split in SPLITS}
        self.class_counts = {split: len(numbers) for split, numbers in self.numbers.items()}

    @property
    def data_id(self) -> str:
        """Name, split and size."""
        return f"vgg_flower/meta-dataset/{self.options.size}px"

    def class_name(self, split: str, place: int) -> str:
        """The class by its number in ``imagelabels.mat``."""
        return f"class {self.numbers[split][place]}"

    def classes(self, paths: dict[str, Path]) -> Iterator[tuple[str, np.ndarray]]:
        """One class after another, within each split in the order of their numbers.

        The photographs of a class come in the order of their numbers, too.
        """
        labels = _labels(paths["imagelabels.mat"])
        images = self._photographs(paths["102flowers.tgz"], len(labels))
        for split in SPLITS:
            for number in self.numbers[split]:
                yield split, images[labels == number]

    def _photographs(self, path: Path, count: int) -> np.ndarray:
        """All photographs, squashed: uint8 (count, 3, size, size).

        They are read in the order of the archive, since any other order is slow.
        """
        images = np.empty((count, *self.input_shape), np.uint8)
        rows = {f"image_{i:05d}.jpg": i - 1 for i in range(1, count + 1)}
        missing, every = set(rows), []
        with reading(path):
            for name, file in members(path):
                every.append(name)
                place = PurePosixPath(name).name
                row = rows.get(place)
                if row is None:
                    continue
                if place not in missing:
                    raise UserError(
                        f"{path} holds {place} twice, and nobody knows which is meant. {AGAIN}"
                    )
                missing.remove(place)
                with reading(path, name):
                    images[row] = decode(
                        file.read(), f"{path}, {name}", 3, self.options.size, "BICUBIC"
                    )
        if missing:
            raise UserError(
                f"{path} has no {min(missing)}, of {count:,} photographs; it holds"
                f" {described(every)}. {AGAIN}"
            )
        return images


def _labels(path: Path) -> np.ndarray:
    """The class number, from 1, of each photograph in order."""
    from scipy.io import loadmat, whosmat

    with reading(path, wanted=MATLAB), open(path, "rb") as file:
        content = loadmat(file, variable_names=["labels"])
        if "labels" not in content:
            held = ", ".join(name for name, *_ in whosmat(file))
            raise UserError(
                f"{path} holds {escaped(held) or 'nothing'}; labels are wanted. {AGAIN}"
            )
        labels = content["labels"].reshape(-1)
        number = labels.dtype.kind in "uif"  # MATLAB saves doubles
        if not number or not len(labels) or not np.isin(labels, np.arange(1, 103)).all():
            raise UserError(
                f"{path}: labels must be whole numbers from 1 to 102, one for each photograph."
                f" {AGAIN}"
            )
        return labels.astype(np.int64)
