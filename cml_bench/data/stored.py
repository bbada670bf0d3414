"""Data sets that are stored as arrays: examples of classes, and images of classes.

:meth:`ClassSet.prepare` makes the arrays once. They stand in a folder of their own, beside an
``index.json`` with their hash. Each time they are opened, they are checked against that hash.
"""

import contextlib
import json
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cml_bench.data import prepared, references
from cml_bench.data._archives import AGAIN
from cml_bench.data._arrays import ImageArrays, flaw, hash_images, hash_unordered, write_header
from cml_bench.data._source import LocalCopy, digests_of, obtain_all, to_stderr
from cml_bench.data.base import DataSet
from cml_bench.data.episodes import SPLITS, Examples, Picks, Task, draw_picks
from cml_bench.errors import UserError
from cml_bench.shapes import DrawnNumbers, Gathered, Numbers
from cml_bench.system.files import write_bytes, write_json
from cml_bench.system.locks import run_lock

Drawn = tuple[DrawnNumbers, int]  # what ClassSet.draw returns


class _Prepared(NamedTuple):
    arrays: Any
    sha256: str
    differs: str
    unordered: str


class ClassSet(DataSet):
    """Few-shot classification of examples that are stored as arrays.

    A subclass gives ``class_counts`` (classes of each split) and ``smallest_class`` (examples in
    the smallest class). It makes its arrays in :meth:`make`, reads them in :meth:`load`, hashes
    them in :meth:`digest` and takes examples from them in :meth:`gather`. Its arrays have the
    fields ``sizes``, ``splits`` and ``group`` of :class:`ImageArrays`.
    """

    class_counts: dict[str, int]
    smallest_class: int
    group = 1
    has_files = True
    examples = "images"  # what messages call the examples
    _sha256: str | None = None  # computed when it is asked for

    @property
    def prepared_bytes(self) -> int:
        """About how many bytes the arrays take."""
        return 0

    def make(self, home: Path, paths: dict[str, Path], exact: bool) -> tuple[Any, dict[str, Any]]:
        """Decode the verified files (``paths``, by name) and store the arrays in ``home``.

        Returns the arrays, and further entries for ``index.json``. ``exact`` says that the files
        are the published ones. The process that fetches the data calls this.
        """
        raise NotImplementedError

    def load(self, home: Path, index: dict[str, Any], splits: dict[str, np.ndarray]) -> Any:
        """The arrays that :meth:`make` stored in ``home``.

        Damaged arrays raise OSError, ValueError, KeyError or the like.
        """
        raise NotImplementedError

    @staticmethod
    def digest(arrays: Any) -> str:
        """SHA-256 (hex) of the decoded data."""
        raise NotImplementedError

    def gather(self, index: Numbers) -> Gathered:
        """The inputs (n, ...) of the examples with these numbers (n,), counted class by class."""
        raise NotImplementedError

    def check(self, split: str, way: int, shot: int, query: int) -> None:
        """As in every data set. The split must have enough classes, and each class enough examples
        and groups.
        """
        super().check(split, way, shot, query)
        classes = self.class_counts[split]
        if way > classes:
            raise UserError(
                f"{self.name}: way {way} is impossible, the {split} split has {classes} classes."
            )
        smallest, named = self.smallest(split)
        room = smallest - shot * self.group
        if query > room or shot * self.group > smallest:
            raise UserError(
                f"{self.name}: {shot} support and {query} query {self.examples} of one class are"
                f" impossible, {named} has {smallest} {self.examples} in groups of {self.group}."
                " Lower shot or query."
            )

    def smallest(self, split: str) -> tuple[int, str]:
        """How many examples the class has that limits episodes of the split, and its name."""
        return self.smallest_class, "its smallest class"

    def folder(self, root: Path) -> Path:
        """The folder of the prepared arrays, under the data folder ``root``."""
        return prepared.home(root, self.data_id)

    def prepare(self, folder: Path, own: dict[str, LocalCopy] | None = None) -> None:
        """Fetch the files, and write the arrays and ``index.json``.

        Nothing is done if arrays made from the same files are there.
        """
        home, own = self.folder(folder), own or {}
        if self._usable(folder, own):
            return
        with run_lock(Path(folder) / "locks" / home.name, wait=to_stderr, setting="`data_dir`"):
            if not self._usable(folder, own):
                self._prepare(home, Path(folder) / "downloads" / (self.store or self.name), own)

    def _usable(self, folder: Path, own: dict[str, LocalCopy]) -> bool:
        """Whether undamaged arrays are there, made from the files that are asked for now."""
        digests = {name: copy.sha256 for name, copy in own.items()}
        if not prepared.is_wanted(
            prepared.index(folder, self.data_id), self.edition_digests(), digests
        ):
            return False
        try:
            self._read(self.folder(folder))
        except UserError:  # damaged since then: they are made anew
            return False
        return True

    def _prepare(self, home: Path, downloads: Path, own: dict[str, LocalCopy]) -> None:
        files = self.edition(own, downloads)
        if self.licence and any(file.name not in own for file in files):
            to_stderr(f"{self.name}: {self.licence}")
        paths = obtain_all(files, downloads, own, self.prepared_bytes)
        home.mkdir(parents=True, exist_ok=True)
        try:
            arrays, more = self.make(home, paths, exact=not own)
        except BaseException:
            with contextlib.suppress(OSError):  # a folder that holds something else stays
                home.rmdir()
                home.parent.rmdir()
            raise
        index: dict[str, Any] = {
            "data_id": self.data_id,
            "sizes": arrays.sizes.tolist(),
            "splits": {split: classes.tolist() for split, classes in arrays.splits.items()},
            "group": self.group,
            "sha256": self.digest(arrays),
            "files": {
                file.name: digests_of(file, paths[file.name], own.get(file.name)) for file in files
            },
            **more,
        }
        unordered = index.get("unordered_sha256", "")
        published = prepared.is_wanted(index, self.edition_digests(), {})
        if "differs" in index:
            index["differs"] = f"not the published data: {index['differs']}"
        elif not published:
            index["differs"] = references.told_of_copy(self.data_id, unordered)
        for line in references.told(self.data_id, unordered, index.get("differs", "")):
            to_stderr(line)
        write_json(home / "index.json", index)

    def open(self, folder: Path, device: torch.device, dtype: torch.dtype) -> "ClassSet":
        """Map the prepared arrays into memory. For a GPU they are copied to it once.

        A UserError if there are none, or if they are damaged.
        """
        home = self.folder(folder)
        if not (home / "index.json").exists():
            raise UserError(
                f"{self.name} is not prepared in {home}: run {self._fetch(home)} first."
            )
        arrays, digest, self.differs, self.unordered_sha256 = self._read(home)
        self.attach(arrays, device, dtype)
        self._sha256 = digest
        self.smallest_class = int(arrays.sizes.min())  # a user's own copy may have another
        return self

    def _fetch(self, home: Path) -> str:
        """The command that prepares the data in ``home``, for messages."""
        options, folder = (
            shlex.quote(self.options.model_dump_json()),
            shlex.quote(str(home.parent.parent)),
        )
        return f"`python -m cml_bench fetch {self.name} --options={options} --data-dir={folder}`"

    def _read(self, home: Path) -> _Prepared:
        """The prepared arrays, mapped, and their hash, which is computed here and compared.

        A UserError if they are damaged.
        """
        try:
            index = json.loads((home / "index.json").read_text(encoding="utf-8"))
            splits = {split: np.asarray(classes) for split, classes in index["splits"].items()}
            arrays = self.load(home, index, splits)
            if index["data_id"] != self.data_id or not (
                isinstance(arrays.group, int) and arrays.group > 0
            ):
                raise ValueError(f"it is of {index['data_id']} in groups of {arrays.group}")
            if (digest := self.digest(arrays)) != index["sha256"]:
                raise ValueError("its hash is not the stored one")
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            zipfile.BadZipFile,
        ) as error:
            problem = f"is damaged ({type(error).__name__}: {error}). Move the folder away"
            again = f"and run {self._fetch(home)}, which makes it anew."
            raise UserError(f"the prepared data in {home} {problem} {again}") from None
        told = (str(index.get(key, "")) for key in ("differs", "unordered_sha256"))
        return _Prepared(arrays, digest, *told)

    def attach(self, arrays: Any, device: torch.device, dtype: torch.dtype) -> None:
        """Use these arrays, on this device. Inputs are given as ``dtype``."""
        self.device, self.dtype, self.arrays = device, dtype, arrays
        self.starts = np.concatenate(([0], np.cumsum(arrays.sizes)[:-1]))
        self._sha256 = None

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of examples, class sizes and splits."""
        if self._sha256 is None:
            self._sha256 = self.digest(self.arrays)
        return self._sha256

    def draw(
        self, key: np.ndarray, split: str, first: int, count: int, way: int, shot: int, query: int
    ) -> Drawn:
        """The numbers of the examples, on the device, and ``shot``.

        The numbers are (count, way, shot+query), support first. They count class by class.
        """
        classes = self.arrays.splits[split]
        sizes = self.arrays.sizes[classes]
        picks: Picks = draw_picks(key, first, count, way, shot, query, sizes, self.arrays.group)
        rows = self.starts[classes[picks.classes]][..., None]
        index = np.concatenate((rows + picks.support, rows + picks.query), axis=2)
        numbers = torch.from_numpy(index)
        if self.device.type == "cuda":  # a copy from pinned memory does not wait for the device
            return numbers.pin_memory().to(self.device, non_blocking=True), shot
        return numbers.to(self.device), shot

    def tasks(self, drawn: Drawn, part: slice) -> Task:
        """The tasks ``part`` of those drawn. The examples of a class stand together; class c has
        the label c.
        """
        index, shot = drawn
        index = index[part]
        return Task(self._examples(index[:, :, :shot]), self._examples(index[:, :, shot:]))

    def _examples(self, index: DrawnNumbers) -> Examples:
        tasks, way, each = index.shape
        x = self.gather(index.reshape(-1))
        y = torch.arange(way, device=self.device).repeat_interleave(each).expand(tasks, -1)
        return Examples(x.reshape(tasks, way * each, *x.shape[1:]), y)


class ImageSet(ClassSet):
    """Few-shot classification of images that fit into memory as bytes.

    A subclass gives ``input_shape`` (C, H, W), ``data_id``, ``class_counts``, ``smallest_class``
    and :meth:`build`, or :meth:`classes` instead if the set is large.
    """

    image_count = 0  # the published number of images of all splits; 0: not checked

    def build(self, paths: dict[str, Path]) -> ImageArrays:
        """Decode all images from the verified files (``paths``, by name).

        The process that fetches the data calls this once.
        """
        raise NotImplementedError

    def classes(self, paths: dict[str, Path]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (split, images uint8 (n, C, H, W)) of one class after another.

        The classes of training come first, then those of validation, then those of test. A set that
        does not fit into memory twice overrides this instead of :meth:`build`.
        """
        arrays = self.build(paths)
        starts = np.concatenate(([0], np.cumsum(arrays.sizes)))
        for split in SPLITS:
            for number in arrays.splits[split]:
                yield split, arrays.images[starts[number] : starts[number + 1]]

    @property
    def prepared_bytes(self) -> int:
        """The size of the arrays: one byte for each channel of each pixel."""
        return self.image_count * int(np.prod(self.input_shape))

    def make(
        self, home: Path, paths: dict[str, Path], exact: bool
    ) -> tuple[ImageArrays, dict[str, Any]]:
        """Write ``images.npy``, one class after another, and give the digest without order."""
        sizes: dict[str, list[int]] = {split: [] for split in SPLITS}
        write_bytes(home / "images.npy", lambda file: self._write(file, paths, sizes, exact))
        ends = np.cumsum([len(sizes[split]) for split in SPLITS])
        splits = dict(zip(SPLITS, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
        images = np.load(home / "images.npy", mmap_mode="r")
        differs = self._differs(sizes)
        arrays = ImageArrays(images, np.concatenate(list(sizes.values())), splits, self.group)
        more = {"unordered_sha256": hash_unordered(arrays)}
        return arrays, more | ({"differs": differs} if differs else {})

    def _write(
        self, file: BinaryIO, paths: dict[str, Path], sizes: dict[str, list[int]], exact: bool
    ) -> None:
        """Write ``images.npy`` into the open file, one class after another, and fill ``sizes``.

        The header is written anew when the count is known: its length is fixed.
        """
        write_header(file, 0, self.input_shape)
        for split, images in self.classes(paths):
            if images.dtype != np.uint8 or images.shape[1:] != self.input_shape:
                raise ValueError(
                    f"a class of {images.dtype} {images.shape}, not of uint8 (n,"
                    f" *{self.input_shape})"
                )
            if problem := flaw(images, self.class_name(split, len(sizes[split]))):
                raise UserError(f"{', '.join(map(str, paths.values())) or self.name}: {problem}.")
            file.write(np.ascontiguousarray(images).data)
            sizes[split].append(len(images))
        write_header(file, sum(map(sum, sizes.values())), self.input_shape)
        problem = self._differs(sizes)
        if problem and (
            exact or any(len(sizes[split]) != self.class_counts[split] for split in SPLITS)
        ):
            raise UserError(f"{', '.join(map(str, paths.values()))}: {problem}. {AGAIN}")

    def class_name(self, split: str, place: int) -> str:
        """What messages call a class: the one at ``place``, from 0, in the split."""
        return f"class {place} (from 0) of the {split} split"

    def _differs(self, sizes: dict[str, list[int]]) -> str:
        """How the numbers of classes and images differ from the published ones.

        Empty if they do not.
        """
        if not self.image_count:
            return ""
        for split, counts in sizes.items():
            if len(counts) != self.class_counts[split]:
                return (
                    f"the {split} split has {len(counts)} classes, {self.class_counts[split]} are"
                    " published"
                )
        every = [count for counts in sizes.values() for count in counts]
        if (sum(every), min(every)) == (self.image_count, self.smallest_class):
            return ""
        return (
            f"there are {sum(every):,} images, at least {min(every)} of each class; published are "
            f"{self.image_count:,}, at least {self.smallest_class} of each"
        )

    def load(self, home: Path, index: dict[str, Any], splits: dict[str, np.ndarray]) -> ImageArrays:
        """Map ``images.npy`` into memory, and check each class for a :func:`flaw`."""
        images = np.load(home / "images.npy", mmap_mode="c")
        sizes = np.asarray(index["sizes"], dtype=np.int64)
        # Older versions prepared flawed images, too.
        for number, part in enumerate(np.split(images, np.cumsum(sizes)[:-1])):
            if problem := flaw(part, f"class {number}"):
                raise ValueError(problem)
        return ImageArrays(images, sizes, splits, index["group"])

    @staticmethod
    def digest(arrays: ImageArrays) -> str:
        """SHA-256 (hex), see :func:`hash_images`."""
        return hash_images(arrays)

    def attach(self, arrays: ImageArrays, device: torch.device, dtype: torch.dtype) -> None:
        """Use these arrays, with the pixels on this device."""
        super().attach(arrays, device, dtype)
        self.pixels = torch.from_numpy(np.asarray(arrays.images)).to(device)

    def gather(self, index: Numbers) -> Float[Tensor, "examples channels height width"]:
        """The images (n, C, H, W) with these numbers, as floats in [0, 1]."""
        return self.pixels[index].to(self.dtype).div_(255)
