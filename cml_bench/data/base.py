"""What a data set is, and the implementations for sets of classified examples and of images.

A data set knows its id, shapes and class counts without any file (``describe``, planning); ``prepare``
makes its arrays once, in a process of its own; ``open`` maps them into memory and, for training, puts
them on the device.
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from cml_bench.data._source import LocalCopy, RemoteFile, obtain
from cml_bench.episodes import Examples, Picks, Task, draw_picks
from cml_bench.errors import UserError, unknown
from cml_bench.files import write_bytes, write_json
from cml_bench.spec import Options


class DataSet:
    """Interface of every data set.

    ``kind`` decides loss and score: ``classification`` (cross-entropy, accuracy) or ``regression`` (MSE).
    ``has_files``: whether something must be prepared before it can be opened.
    """

    Options: type[Options] = Options
    name: str
    kind: Literal["classification", "regression"] = "classification"
    has_files = False
    files: tuple[RemoteFile, ...] = ()
    gives: str | None = None  # "nodes": examples are node numbers of a graph, which only some networks can read
    draws_curves = False  # whether figures of adapted curves can be made: see probes.py
    terms = ""  # where the terms of use stand that must be acknowledged before the data is fetched
    input_shape: tuple[int, ...]

    def __init__(self, options: Options):
        self.options = options

    @property
    def data_id(self) -> str:
        """Everything that decides which examples and classes there are: name, version, split, size."""
        raise NotImplementedError

    def outputs(self, way: int) -> int:
        """Size of the network's output for episodes of so many ways."""
        return way

    def check(self, split: str, way: int, shot: int, query: int) -> None:
        """Raise a UserError if no such episode can be drawn; a subclass says what else it needs."""
        for what, count in (("way", way), ("shot", shot), ("query", query)):
            if count < 1:
                raise UserError(f"{self.name}: {what} must be a number from 1 on, not {count}.")

    def prepare(self, folder: Path, local: dict[str, LocalCopy] | None = None) -> None:
        """Make the arrays under ``folder`` if they are not there. Nothing to do for generated data.

        ``local``: the user's own copies of files, by name.
        """

    def open(self, folder: Path, device: torch.device, dtype: torch.dtype) -> "DataSet":
        """Make ready for drawing tasks; returns self."""
        self.device, self.dtype = device, dtype
        return self

    @property
    def sha256(self) -> str:
        """Hash of the decoded data (not of the archive): equal for repacked copies."""
        raise NotImplementedError

    def draw(self, key: np.ndarray, split: str, first: int, count: int, way: int, shot: int, query: int):
        """Everything random about ``count`` episodes, as arrays on the host."""
        raise NotImplementedError

    def tasks(self, drawn, part: slice) -> Task:
        """The episodes ``part`` of what ``draw`` returned, on the device."""
        raise NotImplementedError


class ImageArrays(NamedTuple):
    """Decoded images, class by class.

    images uint8 (N, C, H, W); sizes (classes,) images per class; splits: class numbers of each split;
    group: see :func:`cml_bench.episodes.draw_picks`.
    """

    images: np.ndarray
    sizes: np.ndarray
    splits: dict[str, np.ndarray]
    group: int = 1


class ClassSet(DataSet):
    """Few-shot classification on examples of classes, prepared once as arrays in a folder.

    A subclass gives ``class_counts``, ``smallest_class`` and ``build()``, and says how its arrays are written
    (:meth:`write`), read (:meth:`load`), hashed (:meth:`digest`) and gathered into tasks. Arrays have ``sizes``
    (classes,), ``splits`` and ``group``: see :class:`ImageArrays`.
    """

    class_counts: dict[str, int]
    smallest_class: int
    group = 1
    has_files = True
    examples = "images"  # what they are called in messages

    def build(self, paths: dict[str, Path]) -> Any:
        """Decode everything, from the verified ``files`` by name; called once, in the fetching process."""
        raise NotImplementedError

    def write(self, home: Path, arrays: Any) -> dict[str, Any]:
        """Store the arrays in ``home``; what else its index must say."""
        raise NotImplementedError

    def load(self, home: Path, index: dict[str, Any], splits: dict[str, np.ndarray]) -> Any:
        """The arrays that :meth:`write` stored; OSError, ValueError, KeyError or the like where they are damaged."""
        raise NotImplementedError

    @staticmethod
    def digest(arrays: Any) -> str:
        """SHA-256 (hex) of the decoded data."""
        raise NotImplementedError

    def check(self, split: str, way: int, shot: int, query: int) -> None:
        """Enough classes in the split, and enough examples (and groups) in each class."""
        super().check(split, way, shot, query)
        classes = self.class_counts[split]
        if way > classes:
            raise UserError(f"{self.name}: way {way} is impossible, the {split} split has {classes} classes.")
        room = self.smallest_class - shot * self.group
        if query > room or shot * self.group > self.smallest_class:
            raise UserError(
                f"{self.name}: {shot} support and {query} query {self.examples} of one class are impossible, its "
                f"smallest class has {self.smallest_class} {self.examples} in groups of {self.group}. Lower shot or "
                "query."
            )

    def folder(self, root: Path) -> Path:
        """Where the prepared arrays stand under the data folder."""
        return Path(root) / "prepared" / self.data_id.replace("/", "-")

    def prepare(self, folder: Path, local: dict[str, LocalCopy] | None = None) -> None:
        """Fetch the files, write the arrays and ``index.json``, unless they are there."""
        home, local = self.folder(folder), local or {}
        if (home / "index.json").exists():
            try:
                self._read(home)
                return
            except UserError:  # damaged since: made anew
                pass
        names = {file.name for file in self.files}
        if strange := sorted(set(local) - names):
            raise unknown(f"file of {self.name}", strange[0], names)
        downloads = Path(folder) / "downloads" / self.name
        arrays = self.build({file.name: obtain(file, downloads, local.get(file.name)) for file in self.files})
        home.mkdir(parents=True, exist_ok=True)
        index = {
            "data_id": self.data_id,
            "sizes": arrays.sizes.tolist(),
            "splits": {split: classes.tolist() for split, classes in arrays.splits.items()},
            "group": arrays.group,
            "sha256": self.digest(arrays),
            **self.write(home, arrays),
        }
        write_json(home / "index.json", index)

    def open(self, folder: Path, device: torch.device, dtype: torch.dtype) -> Self:
        """Map the prepared arrays; on a GPU they are copied there once."""
        home = self.folder(folder)
        if not (home / "index.json").exists():
            raise UserError(f"{self.name} is not prepared in {home}: run {self._fetch(home)} first.")
        arrays, digest = self._read(home)
        self.attach(arrays, device, dtype)
        self._sha256 = digest
        return self

    def _fetch(self, home: Path) -> str:
        """The command that makes the arrays, for messages."""
        options, folder = self.options.model_dump_json(), home.parent.parent
        return f"`python -m cml_bench fetch {self.name} --options '{options}' --data-dir {folder}`"

    def _read(self, home: Path) -> tuple[Any, str]:
        """The prepared arrays, mapped, and their hash, which is computed from them: what a record says of its data."""
        try:
            index = json.loads((home / "index.json").read_text())
            splits = {split: np.asarray(classes) for split, classes in index["splits"].items()}
            arrays = self.load(home, index, splits)
            if index["data_id"] != self.data_id or not (isinstance(arrays.group, int) and arrays.group > 0):
                raise ValueError(f"it is of {index['data_id']} in groups of {arrays.group}")
            if (digest := self.digest(arrays)) != index["sha256"]:
                raise ValueError("its hash is not the stored one")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"the prepared data in {home} is damaged ({type(error).__name__}: {error}). Delete the folder and "
                f"run {self._fetch(home)}, which makes it anew."
            ) from None
        return arrays, digest

    def attach(self, arrays: Any, device: torch.device, dtype: torch.dtype) -> Self:
        """Use these arrays."""
        self.device, self.dtype = device, dtype
        self.arrays = arrays
        self.starts = np.concatenate(([0], np.cumsum(arrays.sizes)[:-1]))
        self._sha256 = None
        return self

    @property
    def sha256(self) -> str:
        """Hash of examples, class sizes and splits."""
        if self._sha256 is None:
            self._sha256 = self.digest(self.arrays)
        return self._sha256

    def draw(self, key: np.ndarray, split: str, first: int, count: int, way: int, shot: int, query: int):
        """Example numbers (count, way, shot+query), counted class by class, on the device, support first; and shot."""
        classes = self.arrays.splits[split]
        sizes = self.arrays.sizes[classes]
        picks: Picks = draw_picks(key, first, count, way, shot, query, sizes, self.arrays.group)
        rows = self.starts[classes[picks.classes]][..., None]
        index = np.concatenate((rows + picks.support, rows + picks.query), axis=2)
        return torch.from_numpy(index).to(self.device), shot

    def tasks(self, drawn: tuple[Tensor, int], part: slice) -> Task:
        """Examples in class blocks, class c having label c."""
        index, shot = drawn
        index = index[part]
        return Task(self._examples(index[:, :, :shot]), self._examples(index[:, :, shot:]))

    def _examples(self, index: Tensor) -> Examples:
        tasks, way, each = index.shape
        x = self.gather(index.reshape(-1))
        y = torch.arange(way, device=self.device).repeat_interleave(each).expand(tasks, -1)
        return Examples(x.reshape(tasks, way * each, *x.shape[1:]), y)

    def gather(self, index: Tensor) -> Tensor:
        """Inputs (n, ...) of the examples of these numbers (n,)."""
        raise NotImplementedError


class ImageSet(ClassSet):
    """Few-shot classification on images that fit into memory as bytes.

    A subclass gives ``input_shape``, ``data_id``, ``class_counts``, ``smallest_class`` and ``build()``, which returns
    :class:`ImageArrays`.
    """

    def write(self, home: Path, arrays: ImageArrays) -> dict[str, Any]:
        """``images.npy``."""
        write_bytes(home / "images.npy", lambda file: np.save(file, arrays.images))
        return {}

    def load(self, home: Path, index: dict[str, Any], splits: dict[str, np.ndarray]) -> ImageArrays:
        """Mapped, not read."""
        images = np.load(home / "images.npy", mmap_mode="c")
        return ImageArrays(images, np.asarray(index["sizes"]), splits, index["group"])

    @staticmethod
    def digest(arrays: ImageArrays) -> str:
        """:func:`hash_images`."""
        return hash_images(arrays)

    def attach(self, arrays: ImageArrays, device: torch.device, dtype: torch.dtype) -> Self:
        """Use these arrays."""
        super().attach(arrays, device, dtype)
        self.pixels = torch.from_numpy(np.asarray(arrays.images)).to(device)
        return self

    def gather(self, index: Tensor) -> Tensor:
        """Pixels in [0, 1]."""
        return self.pixels[index].to(self.dtype).div_(255)


def hash_images(arrays: ImageArrays) -> str:
    """SHA-256 over shape, pixels, class sizes and splits."""
    digest = hashlib.sha256(repr(arrays.images.shape).encode())
    digest.update(np.ascontiguousarray(arrays.images).data)
    digest.update(np.asarray(arrays.sizes, dtype="<i8").tobytes())
    for split in sorted(arrays.splits):
        digest.update(split.encode() + np.asarray(arrays.splits[split], dtype="<i8").tobytes())
    return digest.hexdigest()
