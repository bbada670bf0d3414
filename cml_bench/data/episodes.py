"""Tasks (episodes), and which ones a run sees.

VALIDATION and TEST: episode i is a function of (data id, split, way, shot, query, i) only, so it is
equal for every method, protocol and training seed, and asking for more test tasks extends the list
without changing it. TRAINING: the same with the training seed, still never the method. The data id
contains the image size and the class split.
"""

from typing import NamedTuple

import numpy as np
import torch

from cml_bench import seeding
from cml_bench.shapes import Inputs, Targets

SPLITS = ("train", "validation", "test")
_BLOCK = 256  # episodes drawn at a time: amortises numpy's call overhead over many outer steps


class Examples(NamedTuple):
    """Inputs (T, n, ...) and targets: labels (T, n) int64, or values (T, n, d)."""

    x: Inputs
    y: Targets


class Task(NamedTuple):
    """A batch of T tasks; examples stand in class blocks, class c having label c."""

    support: Examples
    query: Examples

    def __len__(self) -> int:
        return self.support.x.shape[0]

    def part(self, first: int, last: int) -> "Task":
        """Tasks first..last-1."""
        return Task(*(Examples(e.x[first:last], e.y[first:last]) for e in self))


class Picks(NamedTuple):
    """Drawn classification episodes: classes (B, way), and positions within each class."""

    classes: np.ndarray
    support: np.ndarray
    query: np.ndarray


def draw_picks(
    key: np.ndarray, first: int, count: int, way: int, shot: int, query: int, sizes, group: int
) -> Picks:
    """Episodes ``first .. first+count-1`` of the stream ``key``.

    ``sizes`` (classes,) images per class. ``group`` > 1: each class consists of consecutive groups
    of so many images that show the same thing (glyphs: one typeface); support images come from
    ``shot`` different groups, and query images from other groups. Returns classes (count, way) as
    positions in ``sizes``, support (count, way, shot), query (count, way, query).
    """
    sizes = np.asarray(sizes)
    largest = int(sizes.max())
    groups = largest // group
    width = len(sizes) + way * (largest + (2 * groups if group > 1 else 0))
    raw = seeding.words(key, first, count, width)
    classes = seeding.smallest(raw[:, : len(sizes)], way)
    rest = raw[:, len(sizes) :].reshape(count, way, -1)
    if group == 1:
        order = rest.copy()
        beyond = np.arange(largest) >= sizes[classes][..., None]
        order[beyond] = np.iinfo(np.uint64).max
        chosen = seeding.smallest(order, shot + query)
        return Picks(classes, chosen[..., :shot], chosen[..., shot:])
    images, faces, copies = np.split(rest, [largest, largest + groups], axis=-1)
    support_groups = seeding.smallest(faces, shot)
    copy = np.take_along_axis(copies, support_groups, axis=-1) % np.uint64(group)
    support = support_groups * group + copy.astype(np.int64)
    order = images.copy().reshape(count, way, groups, group)
    np.put_along_axis(order, support_groups[..., None], np.iinfo(np.uint64).max, axis=2)
    return Picks(classes, support, seeding.smallest(order.reshape(count, way, largest), query))


class Episodes:
    """The tasks of one split of a data set, by index, on a device.

    ``seed``: the training seed, for training episodes only. ``batch(first, count)`` gives tasks
    ``first .. first+count-1`` as one :class:`Task`.
    """

    def __init__(self, data, split: str, way: int, shot: int, query: int, seed: int | None = None):
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
        if (split == "train") != (seed is not None):
            raise ValueError(
                "training episodes have a seed; validation and test episodes have none"
            )
        data.check(split, way, shot, query)
        self.data, self.split, self.way, self.shot, self.query = data, split, way, shot, query
        parts = ("episodes", data.data_id, split, way, shot, query)
        self.key = seeding.key(*parts) if seed is None else seeding.key(*parts, "seed", seed)
        self._block: tuple[int, object] | None = None

    def batch(self, first: int, count: int) -> Task:
        """Tasks ``first .. first+count-1``."""
        block = first // _BLOCK
        if (first + count - 1) // _BLOCK != block:
            middle = (block + 1) * _BLOCK
            return _join(
                self.batch(first, middle - first), self.batch(middle, first + count - middle)
            )
        if self._block is None or self._block[0] != block:
            drawn = self.data.draw(
                self.key, self.split, block * _BLOCK, _BLOCK, self.way, self.shot, self.query
            )
            self._block = (block, drawn)
        start = first - block * _BLOCK
        return self.data.tasks(self._block[1], slice(start, start + count))


def _join(a: Task, b: Task) -> Task:
    pairs = zip(a, b, strict=True)
    return Task(*(Examples(torch.cat((e.x, f.x)), torch.cat((e.y, f.y))) for e, f in pairs))
