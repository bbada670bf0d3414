"""The data of the Python API.

``open_data`` opens a data set by its name. ``EpisodeLoader`` gives its episodes in the batch
formats of torchmeta and learn2learn.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cml_bench import registry
from cml_bench.data import given
from cml_bench.data._source import to_stderr
from cml_bench.data.base import DataSet
from cml_bench.data.episodes import SPLITS, Episodes
from cml_bench.errors import UserError, unknown
from cml_bench.spec import MOST_SEED, MOST_STEPS
from cml_bench.system import paths

Batch = dict[str, tuple[Tensor, Tensor]]


def open_data(
    name: str,
    folder: str | Path = "data",
    device: str = "cpu",
    accept_terms: bool = False,
    **options: Any,
) -> DataSet:
    """Open a data set by its name, as in ``open_data("glyphs")``.

    If it is not under ``folder``, it is fetched and prepared there; ``~`` and ``$NAME`` are
    expanded. ``accept_terms=True`` says that you have read and accept the data's terms of use.
    ``options`` are those of the data set. A UserError names terms that are not accepted, or says
    what is wrong with an argument.
    """
    cls = registry.datasets.get(given.word(name, "the name of a data set"))
    options = paths.expanded_in(options, registry.PATHS, "")
    data = cls(cls.Options.read(options, f"data set {name}"))
    folder = paths.given(folder, "folder")
    target = folder, given.device(device), torch.float32
    if not isinstance(accept_terms, bool):
        raise UserError(f"accept_terms must be True or False, not {accept_terms!r}.")
    with contextlib.suppress(UserError):  # not prepared yet, or damaged: prepared below
        data.open(*target)
        if data.differs:
            to_stderr(f"{data.data_id}: {data.differs}")
        return data
    if cls.terms and not accept_terms:
        raise UserError(
            f"{name} has terms of use: read {cls.terms}. If you accept them, give"
            " accept_terms=True."
        )
    try:
        data.prepare(folder)
    except OSError as error:  # a file in the place of a folder, no permission, a full disk
        raise UserError(
            f"{data.data_id} cannot be prepared in {folder} ({error.strerror or error}): mend that,"
            " or give another folder."
        ) from None
    return data.open(*target)


class EpisodeLoader:
    """Yields batches of tasks, like torchmeta's ``BatchMetaDataLoader``.

    Each batch is ``{"train": (inputs, targets), "test": (inputs, targets)}``: the support set under
    "train", the query set under "test". Inputs are float (tasks, way*shot, C, H, W) in [0, 1].
    Targets are int64 (tasks, way*shot) in 0..way-1. The examples of a class stand together.

    ``split`` is train, validation or test. ``seed`` is that of the training episodes; validation
    and test episodes have none and are always the same. ``batches`` is the number of batches; with
    None there is no end, as in torchmeta. A second iteration goes on with new episodes in training,
    and starts again in validation and test. A UserError for episodes that cannot be drawn.
    """

    def __init__(
        self,
        data: DataSet,
        way: int,
        shot: int,
        query: int,
        batch_size: int = 4,
        split: str = "train",
        seed: int = 0,
        batches: int | None = None,
    ):
        if not isinstance(data, DataSet) or not hasattr(data, "device"):
            raise UserError(
                "data must be an open data set, as open_data(NAME) and wrap(SOURCE) give it, not"
                f" such a {type(data).__name__}."
            )
        if split not in SPLITS:
            raise unknown("split", str(split), SPLITS)
        way = given.whole(way, "way", 2 if data.kind == "classification" else 1)
        shot, query = given.whole(shot, "shot"), given.whole(query, "query")
        seed = given.whole(seed, "seed", 0, MOST_SEED)
        self.batch_size = given.whole(batch_size, "batch_size")
        self.batches = None if batches is None else given.whole(batches, "batches", 0, MOST_STEPS)
        self.episodes = Episodes(
            data, split, way, shot, query, seed=seed if split == "train" else None
        )
        self._drawn = 0

    def __iter__(self) -> Iterator[Batch]:
        number = 0
        while self.batches is None or number < self.batches:
            first = self._drawn if self.episodes.split == "train" else number
            task = self.episodes.batch(first * self.batch_size, self.batch_size)
            self._drawn += 1
            number += 1
            support, query = task
            yield {"train": (support.x, support.y), "test": (query.x, query.y)}

    def __len__(self) -> int:
        if self.batches is None:
            raise TypeError("this loader has no end; give batches=N for one that has")
        return self.batches

    def as_learn2learn(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one task at a time as learn2learn's task data sets give it: (data, labels).

        Both have way*(shot+query) rows, class by class, in each class support before query.
        """
        way, shot, query = self.episodes.way, self.episodes.shot, self.episodes.query
        for batch in self:
            (xs, ys), (xq, yq) = batch["train"], batch["test"]
            for t in range(self.batch_size):
                rows = [
                    torch.cat(
                        (s[t].unflatten(0, (way, shot)), q[t].unflatten(0, (way, query))), 1
                    ).flatten(0, 1)
                    for s, q in ((xs, xq), (ys, yq))
                ]
                yield rows[0], rows[1]
