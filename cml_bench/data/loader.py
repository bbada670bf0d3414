"""``EpisodeLoader``: our episodes in the batch formats of torchmeta and learn2learn."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cml_bench import registry
from cml_bench.data._source import shown
from cml_bench.data.base import DataSet
from cml_bench.episodes import Episodes
from cml_bench.errors import UserError

Batch = dict[str, tuple[Tensor, Tensor]]


def open_data(
    name: str, folder: str | Path = "data", device: str = "cpu", accept_terms: bool = False, **options: Any
) -> DataSet:
    """A data set by name, fetched and prepared under ``folder`` if it is not there: ``open_data("glyphs")``.

    ``accept_terms``: you have read and accept the data's terms of use, where it has any; a UserError names them.
    """
    cls = registry.datasets.get(name)
    data = cls(cls.Options.read(options, f"data set {name}"))
    target = Path(folder), torch.device(device), torch.float32
    with contextlib.suppress(UserError):  # not prepared, or damaged since
        data.open(*target)
        if data.differs:
            shown(f"{data.data_id}: {data.differs}")
        return data
    if cls.terms and not accept_terms:
        raise UserError(f"{name} has terms of use: read {cls.terms}. If you accept them, give accept_terms=True.")
    data.prepare(Path(folder))
    return data.open(*target)


class EpisodeLoader:
    """Iterates like torchmeta's ``BatchMetaDataLoader``, without end in training, as torchmeta does.

    Each batch is ``{"train": (inputs, targets), "test": (inputs, targets)}``: support under "train", query under
    "test"; inputs float (tasks, way*shot, C, H, W) in [0, 1], targets int64 (tasks, way*shot) in 0..way-1, in
    class blocks.

    ``split``: train, validation or test. ``seed``: of the training stream; validation and test episodes have
    none, they are always the same. ``batches``: stop after so many; None: never. Training goes on with new
    episodes at each further iteration; validation and test start again.
    """

    def __init__(
        self, data: DataSet, way: int, shot: int, query: int, batch_size: int = 4, split: str = "train", seed: int = 0,
        batches: int | None = None,
    ):  # fmt: skip
        self.episodes = Episodes(data, split, way, shot, query, seed=seed if split == "train" else None)
        self.batch_size, self.batches = batch_size, batches
        self._drawn = 0

    def __iter__(self) -> Iterator[Batch]:
        number = 0
        while self.batches is None or number < self.batches:
            first = self._drawn if self.episodes.split == "train" else number
            task = self.episodes.batch(first * self.batch_size, self.batch_size)
            self._drawn += 1
            number += 1
            yield {"train": tuple(task.support), "test": tuple(task.query)}

    def __len__(self) -> int:
        if self.batches is None:
            raise TypeError("this loader has no end; give batches=N for one that has")
        return self.batches

    def as_learn2learn(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One task at a time as learn2learn's task data sets give it: (data, labels).

        way*(shot+query) rows, class by class; of each class the support comes first, then its queries.
        """
        way, shot, query = self.episodes.way, self.episodes.shot, self.episodes.query
        for batch in self:
            (xs, ys), (xq, yq) = batch["train"], batch["test"]
            for t in range(self.batch_size):
                rows = [
                    torch.cat((s[t].unflatten(0, (way, shot)), q[t].unflatten(0, (way, query))), 1).flatten(0, 1)
                    for s, q in ((xs, xq), (ys, yq))
                ]
                yield rows[0], rows[1]
