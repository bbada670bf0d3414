"""Tasks (episodes), and which of them a run sees.

In validation and test, episode i is a function of (data id, split, way, shot, query, i) alone. So
all methods, protocols and training seeds get the same episodes, and a longer test only adds
episodes to the list. In training the function also has the training seed, but never the method. The
data id contains the image size and the class split.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from cml_bench import seeding
from cml_bench.shapes import Inputs, Targets

if TYPE_CHECKING:
    from cml_bench.data.base import DataSet

SPLITS = ("train", "validation", "test")
_BLOCK = 256  # episodes drawn at a time, since a call of numpy costs the same for few as for many


class Examples(NamedTuple):
    """Inputs x (T, n, ...), and targets y: labels (T, n) int64, or values (T, n, d)."""

    x: Inputs
    y: Targets


class Task(NamedTuple):
    """A batch of T tasks. The examples of a class stand together; class c has the label c."""

    support: Examples
    query: Examples

    def __len__(self) -> int:
        return self.support.x.shape[0]

    def part(self, first: int, last: int) -> "Task":
        """The tasks ``first .. last-1``."""
        return Task(*(Examples(e.x[first:last], e.y[first:last]) for e in self))


class Picks(NamedTuple):
    """B drawn classification episodes.

    classes: (B, way). support: (B, way, shot) and query: (B, way, query), positions in the class.
    """

    classes: np.ndarray
    support: np.ndarray
    query: np.ndarray


def draw_picks(
    key: np.ndarray,
    first: int,
    count: int,
    way: int,
    shot: int,
    query: int,
    sizes: np.ndarray | Sequence[int],
    group: int,
) -> Picks:
    """Draw the episodes ``first .. first+count-1`` of the stream ``key``.

    ``sizes`` (classes,) is the number of images of each class. With ``group`` > 1 each class
    consists of consecutive groups of so many images that show the same thing (in ``glyphs``: one
    typeface). Support images then come from ``shot`` different groups, and query images from other
    groups. The classes returned are positions in ``sizes``.
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
    grouped = images.copy().reshape(count, way, groups, group)
    np.put_along_axis(grouped, support_groups[..., None], np.iinfo(np.uint64).max, axis=2)
    return Picks(classes, support, seeding.smallest(grouped.reshape(count, way, largest), query))


class Episodes:
    """The tasks of one split of a data set, by number, on the data's device.

    ``seed`` is the training seed; only training episodes have one. A UserError if the data cannot
    give such episodes.
    """

    def __init__(
        self,
        data: "DataSet",
        split: str,
        way: int,
        shot: int,
        query: int,
        seed: int | None = None,
    ):
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
        self._block: tuple[int, Any] | None = None

    def batch(self, first: int, count: int) -> Task:
        """The tasks ``first .. first+count-1`` as one :class:`Task`."""
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
