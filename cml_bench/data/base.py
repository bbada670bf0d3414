"""The interface of every data set.

A data set knows its id, its shapes and its class counts before any file is there: planning needs no
more. ``prepare`` makes its arrays once, in a process of its own. ``open`` maps them into memory and
puts them on the device. :mod:`cml_bench.data.stored` has the implementation for stored arrays.
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
    (mean squared error). ``has_files``: the set must be prepared before it can be opened.
    ``files``: what is fetched for that. ``editions``: other sets of files in which the same data is
    published; one of them is taken instead of ``files`` if all its files are at hand.
    """

    Options: type[spec.Options] = spec.Options
    name: str
    kind: Literal["classification", "regression"] = "classification"
    has_files = False
    files: tuple[RemoteFile, ...] = ()
    editions: tuple[tuple[RemoteFile, ...], ...] = ()
    store = ""  # the folder under ``downloads``, for sets that share files; empty: the set's name
    gives: str | None = None  # "nodes": examples are node numbers, which only some networks read
    draws_curves = False  # whether adapted curves can be drawn: see figures/kinds/curves.py
    terms = ""  # the terms of use that a user must accept before the data is fetched, with a link
    licence = ""  # a sentence about the licence, shown when the data is fetched
    differs = ""  # how a user's own copy differs, or may differ, from the published data
    unordered_sha256 = ""  # see ``_arrays.hash_unordered``; empty: not known
    input_shape: tuple[int, ...]

    def __init__(self, options: spec.Options):
        self.options = options

    @property
    def data_id(self) -> str:
        """Everything that decides which examples and classes there are: name, version, split and
        size. It is part of every run's id.
        """
        raise NotImplementedError

    def look(self, folder: Path) -> None:
        """Find out what only the user's files tell: the data's id and its classes.

        It comes before anything else is asked. ``folder``: the data folder, where the data may be
        prepared already. Most sets know all this by themselves.
        """

    @classmethod
    def edition(cls, own: Iterable[str], downloads: Path | None = None) -> tuple[RemoteFile, ...]:
        """The files to take: all of one edition.

        ``own`` are the names of the files of which the user has a copy: their edition is taken. If
        there are none, an edition that lies whole in ``downloads`` is taken, else ``files``. A
        UserError if ``own`` names a file of no edition, or files of two editions.
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
    def edition_digests(cls) -> list[dict[str, str]]:
        """For each edition, the published digest of each file by its name.

        :func:`cml_bench.data.prepared.is_wanted` compares them with those of prepared arrays.
        """
        return [{file.name: file.digest for file in files} for files in (cls.files, *cls.editions)]

    def outputs(self, way: int) -> int:
        """The size of the network's output for episodes of ``way`` classes."""
        return way

    def check(self, split: str, way: int, shot: int, query: int) -> None:
        """Raise a UserError if no such episode can be drawn. Subclasses add checks of their own."""
        for what, count in (("way", way), ("shot", shot), ("query", query)):
            if count < 1:
                raise UserError(f"{self.name}: {what} must be a number from 1 on, not {count}.")
        if self.kind == "classification" and way < 2:
            told = f"{self.name}: way must be a number from 2 on, not {way}"
            raise UserError(f"{told}: of one class every answer is right.")

    def check_evaluation(self, evaluation: spec.Evaluation) -> None:
        """Raise a UserError if queries cannot be normalised as the evaluation asks."""
        images = self.kind == "classification" and self.gives is None
        if evaluation.normalised_with != ("task",) and not images:
            raise UserError(
                f"{self.name}: evaluation.normalised_with is for images; leave it out here."
            )

    def prepare(self, folder: Path, own: dict[str, LocalCopy] | None = None) -> None:
        """Make the arrays under ``folder`` unless they are there. Generated data needs none.

        ``own``: the user's own copies of files, by file name.
        """

    def open(self, folder: Path, device: torch.device, dtype: torch.dtype) -> "DataSet":
        """Make the set ready for drawing tasks on ``device``, and return it."""
        self.device, self.dtype = device, dtype
        return self

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the decoded data, not of the archive: repacked copies have the same."""
        raise NotImplementedError

    def draw(
        self, key: np.ndarray, split: str, first: int, count: int, way: int, shot: int, query: int
    ) -> Any:
        """Draw ``count`` episodes, from number ``first`` on: everything random about them.

        ``key`` names the stream of random numbers. ``tasks`` takes the result.
        """
        raise NotImplementedError

    def tasks(self, drawn: Any, part: slice) -> Task:
        """The episodes ``part`` of those that ``draw`` returned, as tensors on the device."""
        raise NotImplementedError
