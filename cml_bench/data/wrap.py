"""Any labelled image collection as a few-shot data set: ``wrap(source)``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cml_bench.data.base import ImageArrays, ImageSet, hash_images
from cml_bench.episodes import SPLITS
from cml_bench.errors import UserError
from cml_bench.spec import Options


class Wrapped(ImageSet):
    """An :class:`ImageSet` made from arrays in memory; its id is the hash of what it holds."""

    name = "wrapped"

    def __init__(self, arrays: ImageArrays):
        super().__init__(Options())
        self.input_shape = arrays.images.shape[1:]
        self.class_counts = {split: len(arrays.splits[split]) for split in SPLITS}
        self.smallest_class = int(arrays.sizes.min())
        self._data_id = f"wrapped/{hash_images(arrays)[:16]}"
        self.attach(arrays, torch.device("cpu"), torch.float32)

    @property
    def data_id(self) -> str:
        """``wrapped/`` and the hash of pixels, classes and splits."""
        return self._data_id


def wrap(source: Any, splits: Mapping[str, Sequence[int]] | None = None) -> Wrapped:
    """Wrap anything with ``__len__`` and items (x, y): a torchvision or learn2learn data set, a list.

    x: image as a PIL image, a uint8 array or tensor (H, W), (H, W, C) or (C, H, W), or a float one in [0, 1];
    all of one size. y: class, any integer. ``splits``: which classes (values of y) are train, validation and
    test; without it every split has all classes, as learn2learn's task data sets do. Every image is read once
    and kept as bytes, so transforms that differ from call to call do not.
    """
    images, labels = [], []
    for i in range(len(source)):
        x, y = source[i]
        images.append(_to_bytes(x, i))
        labels.append(int(y))
        if images[-1].shape != images[0].shape:
            raise UserError(f"image {i} has shape {images[-1].shape}, image 0 {images[0].shape}: resize them first.")
    if not images:
        raise UserError("the source holds no images.")
    classes, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(numbers, kind="stable")
    chosen = {split: np.arange(len(classes)) for split in SPLITS}
    if splits is not None:
        chosen = {split: _positions(classes, splits.get(split, ()), split) for split in SPLITS}
    return Wrapped(ImageArrays(np.stack(images)[order], sizes, chosen))


def _positions(classes: np.ndarray, wanted: Sequence[int], split: str) -> np.ndarray:
    missing = sorted(set(wanted) - set(classes.tolist()))
    if missing:
        raise UserError(f"the {split} split names classes that no image has: {missing[:5]}.")
    return np.searchsorted(classes, sorted(wanted))


def _to_bytes(x: Any, number: int) -> np.ndarray:
    """One image as uint8 (C, H, W)."""
    channels_first = isinstance(x, torch.Tensor)
    array = x.numpy() if channels_first else np.asarray(x)
    if array.dtype.kind == "f":
        if array.min() < 0 or array.max() > 1:
            raise UserError(f"image {number} has values outside [0, 1]: wrap the data set before normalising it.")
        array = np.round(array * 255)
    elif array.dtype == bool:
        array = array * 255
    array = array.astype(np.uint8)
    if array.ndim == 2:
        return array[None]
    if array.ndim != 3:
        raise UserError(f"image {number} has shape {array.shape}; (H, W), (H, W, C) or (C, H, W) is needed.")
    if not channels_first and array.shape[0] not in (1, 3):
        array = np.moveaxis(array, 2, 0)
    return array
