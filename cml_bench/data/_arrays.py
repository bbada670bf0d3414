"""Decoded images in memory: their arrays, their hash, and the header of their file."""

import hashlib
from typing import BinaryIO, NamedTuple

import numpy as np


class ImageArrays(NamedTuple):
    """Decoded images, class by class.

    images uint8 (N, C, H, W); sizes (classes,) images per class; splits: class numbers of each
    split; group: see :func:`cml_bench.data.episodes.draw_picks`.
    """

    images: np.ndarray
    sizes: np.ndarray
    splits: dict[str, np.ndarray]
    group: int = 1


def write_header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    """The beginning of a npy file of ``count`` pictures; as long for every count, so that it can be
    put right later.
    """
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)  # leaves room for the first axis to grow


def flaw(images: np.ndarray, name: str) -> str:
    """Why the images (n, C, H, W) cannot be those of a class, which is called ``name``; empty: they
    can.
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
    """SHA-256 over shape, pixels, class sizes and splits, and how images are grouped where they
    are.
    """
    digest = hashlib.sha256(repr(arrays.images.shape).encode())
    digest.update(np.ascontiguousarray(arrays.images).data)
    digest.update(np.asarray(arrays.sizes, dtype="<i8").tobytes())
    for split in sorted(arrays.splits):
        digest.update(split.encode() + np.asarray(arrays.splits[split], dtype="<i8").tobytes())
    if arrays.group != 1:
        digest.update(f"group {arrays.group}".encode())
    return digest.hexdigest()
