"""``miniimagenet``: 100 classes of ImageNet, 600 images each, 84x84 (Vinyals et al. 2016).

The class split is that of Ravi & Larochelle (2017), 64 / 16 / 20, as the published files have it: one pickle a split.
Three pickles on Zenodo are fetched; ``mini-imagenet.tar.gz``, which holds the same pickles and which torchmeta takes
from Google Drive, is used where it is at hand. The pixels are taken as they are, in [0, 1]; torchmeta's Resize(84) is
without effect on them. Classes stand in the order of their names, as in torchmeta.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cml_bench.data import _pickles
from cml_bench.data._archives import AGAIN, members, reading
from cml_bench.data._images import as_bytes
from cml_bench.data._source import RemoteFile
from cml_bench.data.base import ImageSet
from cml_bench.errors import UserError
from cml_bench.registry import datasets
from cml_bench.spec import Options

_RECORD = "https://zenodo.org/records/7978538"
_SIDE, _EACH = 84, 600
_NAMES = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


def _file(split: str, size: int, md5: str) -> RemoteFile:
    name = f"mini-imagenet-cache-{split}.pkl"
    urls = (f"{_RECORD}/files/{name}", f"https://zenodo.org/api/records/7978538/files/{name}/content")
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
                "mini-imagenet.tar.gz", (), 0, md5="b38f1eb4251fb9459ecc8e7febf9b2eb",
                page="https://drive.google.com/file/d/16V_ZlkW4SsnNDtnGmaBRq2OoPmUOc5mY",
            ),
        ),
    )  # fmt: skip
    terms = (
        "ImageNet's terms of access (non-commercial research and education only), which hold for images derived from "
        "it: https://www.image-net.org/download"
    )

    def __init__(self, options: Options):
        super().__init__(options)

    @property
    def data_id(self) -> str:
        """Split and size."""
        return f"miniimagenet/ravi/{_SIDE}px"

    def classes(self, paths: dict[str, Path]) -> Iterator[tuple[str, np.ndarray]]:
        """Split by split, so that no more than one of the pickles is in memory: the largest needs about 2 GB."""
        seen: set[str] = set()
        for split, suffixes in _NAMES.items():
            path, content = _content(paths, suffixes)
            with reading(path, f"its {split} split"):
                images, rows = _pickles.field(content, "image_data"), _pickles.field(content, "class_dict")
                del content
                images = as_bytes(images, f"{path}, its {split} split,")
                if images.shape[1:] != (_SIDE, _SIDE, 3):
                    raise ValueError(f"images {images.dtype} {images.shape}")
                if again := sorted(seen.intersection(rows)):
                    raise UserError(f"{path}: class {again[0]} is in two splits. {AGAIN}")
                seen.update(rows)
                for name in sorted(rows):
                    yield split, images[np.asarray(rows[name], dtype=np.int64)].transpose(0, 3, 1, 2)
                del images


def _content(paths: dict[str, Path], suffixes: tuple[str, ...]) -> tuple[Path, Any]:
    """The unpickled content of one split, and the file that it is from."""
    names = [f"mini-imagenet-cache-{suffix}.pkl" for suffix in suffixes]
    for name in names:
        if name in paths:
            with reading(paths[name]), open(paths[name], "rb") as file:
                return paths[name], _pickles.load(file, str(paths[name]))
    (path,) = paths.values()
    found = None
    with reading(path):
        for member, file in members(path):  # to the end, so that every name is checked
            if Path(member).name in names:
                found = _pickles.load(file, f"{path}, {member}")
    if found is None:
        raise UserError(f"{path} has no {' or '.join(names)}. {AGAIN}")
    return path, found
