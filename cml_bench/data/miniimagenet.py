"""``miniimagenet``: photographs of 100 classes of ImageNet, 600 of each class, 84x84 pixels.

Vinyals et al. (2016) made the set; ImageNet's terms of access hold for it. The class split is that
of Ravi and Larochelle (2017), 64 / 16 / 20. The data is fetched from Zenodo as three pickles, one
for each split. If ``mini-imagenet.tar.gz`` is at hand, it is used instead: it holds the same
pickles, and torchmeta takes it from Google Drive. The pixels are taken as they are; torchmeta's
Resize(84) does not change them. Classes stand in the order of their names, as in torchmeta.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cml_bench.data import _mini_layouts
from cml_bench.data._archives import AGAIN
from cml_bench.data.base import RemoteFile
from cml_bench.data.episodes import SPLITS
from cml_bench.data.stored import ImageSet
from cml_bench.errors import UserError
from cml_bench.registry import datasets
from cml_bench.spec import Options

_RECORD = "https://zenodo.org/records/7978538"
_SIDE, _EACH = _mini_layouts.SIDE, 600


def _file(split: str, size: int, md5: str) -> RemoteFile:
    name = f"mini-imagenet-cache-{split}.pkl"
    urls = (
        f"{_RECORD}/files/{name}",
        f"https://zenodo.org/api/records/7978538/files/{name}/content",
    )
    return RemoteFile(name, urls, size, page=_RECORD, md5=md5)


@datasets.register("miniimagenet")
class MiniImagenet(ImageSet):
    """Colour images (3, 84, 84), 600 of each class."""

    input_shape = (3, _SIDE, _SIDE)
    class_counts = {"train": 64, "validation": 16, "test": 20}
    smallest_class = _EACH
    image_count = 100 * _EACH
    files = (
        _file("train", 1_145_461_190, "ee4e80dc7b716f3ceec891d199b5277a"),
        _file("validation", 292_661_258, "c1145a80890b88d54a67d6e0022d53a5"),
        _file("test", 353_647_539, "389b6c59d348b2e1ae9610f00a5e6724"),
    )
    editions = (
        (
            RemoteFile(
                "mini-imagenet.tar.gz",
                (),
                0,
                md5="b38f1eb4251fb9459ecc8e7febf9b2eb",
                page="https://drive.google.com/file/d/16V_ZlkW4SsnNDtnGmaBRq2OoPmUOc5mY",
            ),
        ),
    )
    terms = (
        "ImageNet's terms of access (non-commercial research and education only), which hold for"
        " images derived from it: https://www.image-net.org/download"
    )

    def __init__(self, options: Options):
        super().__init__(options)

    @property
    def data_id(self) -> str:
        """Name, split and size."""
        return f"miniimagenet/ravi/{_SIDE}px"

    def classes(self, paths: dict[str, Path]) -> Iterator[tuple[str, np.ndarray]]:
        """One class after another, split by split.

        :mod:`cml_bench.data._mini_layouts` says what a user's own copy may look like.
        """
        seen: set[str] = set()
        for path, split, name, images in self._read_classes(paths):
            if name in seen:
                raise UserError(f"{path}: class {name} is in two splits. {AGAIN}")
            seen.add(name)
            yield split, images.transpose(0, 3, 1, 2)

    def _read_classes(self, paths: dict[str, Path]) -> Iterator[tuple[Path, str, str, np.ndarray]]:
        if path := paths.get(self.editions[0][0].name):
            yield from ((path, *read) for read in _mini_layouts.of_archive(path))
        else:
            for split, file in zip(SPLITS, self.files, strict=True):
                path = paths[file.name]
                yield from ((path, *read) for read in _mini_layouts.of_pickle(path, split))
