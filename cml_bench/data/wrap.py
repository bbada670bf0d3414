"""``wrap(source)`` makes a few-shot data set from any collection of labelled images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cml_bench.data._arrays import flaw
from cml_bench.data._images import as_bytes, decode
from cml_bench.data.episodes import SPLITS
from cml_bench.data.stored import ImageArrays, ImageSet, hash_images
from cml_bench.errors import UserError, unknown
from cml_bench.spec import Options


class Wrapped(ImageSet):
    """An :class:`ImageSet` from arrays in memory. Its id is the hash of its content."""

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
    """Make a data set from anything with a length and items (x, y).

    That may be a data set of torchvision or learn2learn, or a list. x is an image: a PIL image, an
    array (H, W), (H, W, C) or (C, H, W), or a tensor (H, W) or (C, H, W). All images have one size
    and one number of channels. Numbers are integers 0..255, floats 0..1 or booleans. PIL modes are
    converted as :mod:`cml_bench.data._images` says. y is the class, any integer.

    ``splits`` lists the classes (values of y) of train, validation and test; a class may be in one
    of them only. Without ``splits`` each split has all classes, as in learn2learn's task data sets.
    Each image is read once and kept as bytes, so a random transform is applied once. A UserError
    names the image or class that cannot be taken.
    """
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise UserError(
            f"the source is of {type(source)}: a list of pairs (image, class) is wanted, or a data"
            " set with a length; make a list of a source without one."
        )
    images, labels, brightest = [], [], 0
    for i in range(len(source)):
        x, y = _pair(source[i], i)
        images.append(_to_bytes(x, f"image {i}"))
        labels.append(_label(y, f"the class of image {i}"))
        brightest = max(brightest, images[-1].max())
        if images[-1].shape != images[0].shape:
            raise UserError(
                f"image {i} has shape {images[-1].shape}, image 0 {images[0].shape}: resize them"
                " first, and convert them to one number of channels."
            )
    if not images:
        raise UserError("the source holds no images.")
    if brightest == 1:
        raise UserError(
            "the brightest value of all images is 1 of 255: give images of 0 and 1 as booleans or"
            " floats."
        )
    classes, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    chosen = _chosen(classes, splits)
    stacked = np.stack(images)[np.argsort(numbers, kind="stable")]
    for name, part in zip(classes, np.split(stacked, np.cumsum(sizes)[:-1]), strict=True):
        if problem := flaw(part, f"class {name}"):
            raise UserError(f"{problem}.")
    return Wrapped(ImageArrays(stacked, sizes, chosen))


def _pair(item: Any, number: int) -> tuple[Any, Any]:
    try:
        x, y = item
    except (TypeError, ValueError):
        raise UserError(
            f"item {number} of the source is of {type(item)}: a pair (image, class) is wanted."
        ) from None
    return x, y


def _label(y: Any, what: str) -> int:
    """A class as an int. It may be given as a float, or as an array of one number."""
    try:
        value = y.item() if hasattr(y, "item") else y
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return int(value)
    except (ValueError, RuntimeError):  # an array, a tensor of more than one
        pass
    raise UserError(f"{what} is {' '.join(str(y).split())[:40]!r}: an integer is wanted.")


def _chosen(
    classes: np.ndarray, splits: Mapping[str, Sequence[int]] | None
) -> dict[str, np.ndarray]:
    """For each split the positions of its classes among all sorted classes."""
    if splits is None:
        return {split: np.arange(len(classes)) for split in SPLITS}
    if not isinstance(splits, Mapping):
        raise UserError(
            f"splits is of {type(splits)}: a dict is wanted, of lists of classes for"
            f" {', '.join(SPLITS)}."
        )
    for name in splits:
        if name not in SPLITS:
            raise unknown("split", str(name), SPLITS)
    chosen: dict[str, np.ndarray] = {}
    split_of: dict[int, str] = {}
    for split in SPLITS:
        wanted: object = splits.get(split, ())
        if not np.iterable(wanted) or isinstance(wanted, str):
            raise UserError(
                f"the {split} split is {str(wanted)[:40]!r}: a list of classes is wanted."
            )
        labels = sorted(_label(y, f"a class of the {split} split") for y in wanted)
        if missing := sorted(set(labels) - set(classes.tolist())):
            raise UserError(f"the {split} split names classes that no image has: {missing[:5]}.")
        for label in labels:
            if label in split_of:
                other = split_of[label]
                twice = "twice in it" if other == split else f"in the {other} split too"
                raise UserError(
                    f"the {split} split: class {label} is {twice}; give each class once."
                )
            split_of[label] = split
        chosen[split] = np.searchsorted(classes, labels)
    return chosen


def _to_bytes(x: Any, where: str) -> np.ndarray:
    """One image as uint8 (C, H, W)."""
    from PIL import Image

    if isinstance(x, Image.Image):
        try:
            array = decode(x, where)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # Pillow reads the file only now: damage may raise any error
            raise UserError(
                f"{where} cannot be decoded ({type(error).__name__}: {error})."
            ) from None
    else:
        array = _channels_first(x, where)
    if not array.size:
        raise UserError(f"{where} has shape {array.shape}, no pixels.")
    return array


def _channels_first(x: Any, where: str) -> np.ndarray:
    """An array or a tensor as uint8 (C, H, W)."""
    tensor = isinstance(x, torch.Tensor)
    if tensor:
        x = x.detach().cpu()
        x = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    try:
        array = np.asarray(x)
    except ValueError:
        raise UserError(f"{where} is a list of rows of different lengths.") from None
    array = as_bytes(array, where)
    if array.ndim == 2:
        return array[None]
    if array.ndim != 3:
        raise UserError(
            f"{where} has shape {array.shape}; (H, W), (H, W, C) or (C, H, W) is needed."
        )
    first, height, last = array.shape
    if tensor:
        if last in (3, 4) and first > 4 and height != last:
            raise UserError(
                f"{where} has shape {array.shape}; of a tensor (C, H, W) is needed: permute it."
            )
        return array
    if first in (1, 3) or (last not in (1, 3) and first < last):
        return array
    if first == last:
        raise UserError(
            f"{where} has shape {array.shape}, where the axis of the channels is unclear: give a"
            " tensor."
        )
    return np.moveaxis(array, 2, 0)
