"""What a data set is.

A data set knows its id, shapes and class counts without any file (``describe``, planning).
``prepare`` makes its arrays once, in a process of its own. ``open`` maps them into memory and, for
training, puts them on the device. :mod:`cml_bench.data.stored` holds the implementations for data
that is prepared.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cml_bench import spec
from cml_bench.data._source import LocalCopy, RemoteFile
from cml_bench.data.episodes import Task
from cml_bench.errors import UserError, unknown


class DataSet:
    """Interface of every data set.

    ``kind`` decides loss and score: ``classification`` (cross-entropy, accuracy) or ``regression``
    (MSE). ``has_files``: whether something must be prepared before it can be opened. ``editions``:
    further sets of files in which the same data is published, taken instead of ``files`` where all
    of one are at hand.
    """

    Options: type[spec.Options] = spec.Options
    name: str
    kind: Literal["classification", "regression"] = "classification"
    has_files = False
    files: tuple[RemoteFile, ...] = ()
    editions: tuple[tuple[RemoteFile, ...], ...] = ()
    store = ""  # folder under ``downloads``, where sets share files; empty: the set's name
    gives: str | None = (
        None  # "nodes": examples are node numbers of a graph, which only some networks can read
    )
    draws_curves = False  # whether figures of adapted curves can be made: see probes.py
    # the terms of use that must be acknowledged before the data is fetched, and where they stand
    terms = ""
    licence = ""  # what is known of the licence, a sentence that is shown when the data is fetched
    # how the data that is opened is not, or may not be, the published one, if it is a user's own
    # copy
    differs = ""
    input_shape: tuple[int, ...]

    def __init__(self, options: spec.Options):
        self.options = options

    @property
    def data_id(self) -> str:
        """Everything that decides which examples and classes there are: name, version, split,
        size.
        """
        raise NotImplementedError

    @classmethod
    def edition(cls, own: Iterable[str], downloads: Path | None = None) -> tuple[RemoteFile, ...]:
        """The files to take: those of the edition of which ``own`` names a file, else of one that
        is in ``downloads``.

        A UserError if ``own`` names a file that is of none, or files of two.
        """
        own = set(own)
        sets = (cls.files, *cls.editions)
        names = [{file.name for file in files} for files in sets]
        if strange := sorted(own - set().union(*names)):
            raise unknown(f"file of {cls.name}", strange[0], set().union(*names))
        chosen = [files for files, named in zip(sets, names, strict=True) if own & named]
        if len(chosen) > 1:
            raise UserError(
                f"`sources` names files of two editions of {cls.name}: {', '.join(sorted(own))}."
                f" Name those of one: {' or '.join(', '.join(sorted(named)) for named in names)}."
            )
        there = [
            files
            for files in sets
            if downloads and all((downloads / file.name).exists() for file in files)
        ]
        return (chosen or there or [cls.files])[0]

    @classmethod
    def published(cls) -> list[dict[str, str]]:
        """The published digests of each edition's files, by name; see
        :func:`cml_bench.data.prepared.is_wanted`.
        """
        return [{file.name: file.digest for file in files} for files in (cls.files, *cls.editions)]

    def outputs(self, way: int) -> int:
        """Size of the network's output for episodes of so many ways."""
        return way

    def check(self, split: str, way: int, shot: int, query: int) -> None:
        """Raise a UserError if no such episode can be drawn; a subclass says what else it needs."""
        for what, count in (("way", way), ("shot", shot), ("query", query)):
            if count < 1:
                raise UserError(f"{self.name}: {what} must be a number from 1 on, not {count}.")
        if self.kind == "classification" and way < 2:
            told = f"{self.name}: way must be a number from 2 on, not {way}"
            raise UserError(f"{told}: of one class every answer is right.")

    def prepare(self, folder: Path, own: dict[str, LocalCopy] | None = None) -> None:
        """Make the arrays under ``folder`` if they are not there. Nothing to do for generated data.

        ``own``: the user's own copies of files, by name.
        """

    def open(self, folder: Path, device: torch.device, dtype: torch.dtype) -> "DataSet":
        """Make ready for drawing tasks; returns self."""
        self.device, self.dtype = device, dtype
        return self

    @property
    def sha256(self) -> str:
        """Hash of the decoded data (not of the archive): equal for repacked copies."""
        raise NotImplementedError

    def draw(
        self, key: np.ndarray, split: str, first: int, count: int, way: int, shot: int, query: int
    ) -> Any:
        """Everything random about ``count`` episodes, as arrays on the host."""
        raise NotImplementedError

    def tasks(self, drawn: Any, part: slice) -> Task:
        """The episodes ``part`` of what ``draw`` returned, on the device."""
        raise NotImplementedError
