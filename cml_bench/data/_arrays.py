"""Decoded images: their arrays, their hashes, and the header of the file that stores them."""

import hashlib
from typing import BinaryIO, NamedTuple

import numpy as np


class ImageArrays(NamedTuple):
    """Decoded images, class by class.

    images: uint8 (N, C, H, W). sizes: (classes,), the number of images of each class. splits: the
    class numbers of each split. group: see :func:`cml_bench.data.episodes.draw_picks`.
    """

    images: np.ndarray
    sizes: np.ndarray
    splits: dict[str, np.ndarray]
    group: int = 1


def write_header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    """Write the header of a npy file of ``count`` images of this shape.

    Its length is the same for every count, so a later call can correct the count in place.
    """
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)  # leaves room for the first axis to grow


def flaw(images: np.ndarray, name: str) -> str:
    """What is wrong with the images (n, C, H, W) of the class ``name``: there are none, or all are
    one constant value. Empty: nothing.
    """
    if not len(images):
        return f"there are no images of {name}"
    colour = images[0, :, :1, :1]
    if (images[0] != colour).any() or (images != colour).any():
        return ""
    value = ", ".join(map(str, colour.ravel().tolist()))
    return (
        f"all images of {name} are one constant value, {value}, and nothing can be learnt from"
        " them: they were stored or decoded wrongly"
    )


def hash_images(arrays: ImageArrays) -> str:
    """SHA-256 (hex) over shape, pixels, class sizes and splits, and the group unless it is 1."""
    digest = hashlib.sha256(repr(arrays.images.shape).encode())
    digest.update(np.ascontiguousarray(arrays.images).data)
    digest.update(np.asarray(arrays.sizes, dtype="<i8").tobytes())
    for split in sorted(arrays.splits):
        digest.update(split.encode() + np.asarray(arrays.splits[split], dtype="<i8").tobytes())
    if arrays.group != 1:
        digest.update(f"group {arrays.group}".encode())
    return digest.hexdigest()


def hash_unordered(arrays: ImageArrays) -> str:
    """SHA-256 (hex) of the same data in whatever order: a digest of each split's multiset of
    classes, and of each class's multiset of images.

    The order of files, of rows and of classes within a split does not count, and names do not. A
    changed pixel, an image more or less, an image or a class elsewhere gives another digest. Where
    images stand in groups, the multiset is one of groups.
    """
    each, classes = arrays.group, []
    for part in np.split(arrays.images, np.cumsum(arrays.sizes, dtype=int)[:-1]):
        groups = [
            hashlib.sha256(np.ascontiguousarray(part[first : first + each]).data).digest()
            for first in range(0, len(part), each)
        ]
        classes.append(hashlib.sha256(b"".join(sorted(groups))).digest())
    digest = hashlib.sha256(repr((arrays.images.shape[1:], each)).encode())
    for split in sorted(arrays.splits):
        inside = sorted(classes[number] for number in arrays.splits[split])
        digest.update(f"{split} {len(inside)} ".encode() + b"".join(inside))
    return digest.hexdigest()
