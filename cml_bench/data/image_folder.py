"""``image_folder``: your own images, in a folder for each class.

A configuration says where they are (``root``), how they are read and how their classes are split.
The set is identified by the content of its files: a copy elsewhere, or with other names, is the
same set, and another image makes another one. Once it is prepared, the folder is not needed.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from cml_bench.data import class_lists, prepared
from cml_bench.data._archives import is_system
from cml_bench.data._images import decode
from cml_bench.data._own_folders import Asked, Found, Source, changes_with, found, told_of
from cml_bench.data._source import LocalCopy, to_stderr
from cml_bench.data.base import DataSet
from cml_bench.data.episodes import SPLITS
from cml_bench.data.stored import ImageArrays, ImageSet
from cml_bench.errors import UserError
from cml_bench.registry import datasets
from cml_bench.spec import Options


class Shares(Options):
    """Which share of the classes each split gets. Together they are 1."""

    train: float = Field(0.64, ge=0, le=1, description="share of the classes for training")
    validation: float = Field(0.16, ge=0, le=1, description="share for validation")
    test: float = Field(0.2, ge=0, le=1, description="share for test")

    @model_validator(mode="after")
    def _whole(self) -> "Shares":
        if abs((total := self.train + self.validation + self.test) - 1) > 1e-6:
            raise ValueError(f"the shares add up to {total:g}: they must add up to 1")
        return self


class ImageFolderOptions(Options):
    """Where the images are, how they are read, and how their classes are split.

    ``sha256`` says which images each split has. What leads to them is no part of a run's id.
    """

    root: str = Field(
        "",
        json_schema_extra={"left_out": True},
        description="the folder of the images; it is no part of a run's id",
    )
    size: int = Field(84, ge=16, le=224, description="pixels per side; images are squashed to it")
    mode: Literal["L", "RGB"] = Field("RGB", description="L: grey, one channel; RGB: colour")
    resampling: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = Field(
        "bilinear", description="Pillow's filter for the change of size"
    )
    reads: Literal["folders", "hugging_face"] = Field(
        "folders",
        json_schema_extra={"left_out": True},
        description=(
            "folders: files below root; hugging_face: root is a copy of a set of Hugging Face's hub"
            " (parquet, imagefolder or arrow)"
        ),
    )
    label: str = Field(
        "label",
        json_schema_extra={"left_out": True},
        description="of `reads: hugging_face`: the column of the classes",
    )
    parts: tuple[str, ...] = Field(
        (),
        json_schema_extra={"left_out": True},
        description="of `reads: hugging_face`: the copy's splits to take; empty: all",
    )
    split_by: Literal["shares", "csv", "folders", "classes"] = Field(
        "shares",
        json_schema_extra={"left_out": True},
        description=(
            "shares: root/CLASS/*.jpg, classes drawn; csv: train.csv, val.csv, test.csv with the"
            " columns filename and label; folders: root/train/CLASS/*.jpg, root/val, root/test;"
            " classes: root/CLASS/*.jpg, and `lists` names the classes of each split"
        ),
    )
    shares: Shares = Field(
        Shares(), json_schema_extra={"left_out": True}, description="of `split_by: shares`"
    )
    split_seed: int = Field(
        0,
        ge=0,
        json_schema_extra={"left_out": True},
        description="of `split_by: shares`: another one, other classes",
    )
    lists: str = Field(
        "",
        json_schema_extra={"left_out": True},
        description=(
            "of `split_by: csv`: the folder of the lists; empty: root. Of `split_by: classes`: a"
            f" JSON file, or one of {', '.join(class_lists.shipped())}"
        ),
    )
    least_images: int = Field(
        1,
        ge=1,
        json_schema_extra={"left_out": True},
        description="classes with fewer images are left out",
    )
    sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="of the content, as records hold it; empty: that of what root holds now",
    )


@datasets.register("image_folder")
class ImageFolder(ImageSet):
    """Images (1 or 3, size, size), any number of each class.

    ``counts``: for each split the images of each class by its name, in the order of the arrays;
    :meth:`look` fills it.
    """

    Options = ImageFolderOptions
    options: ImageFolderOptions
    smallest_class = 0

    def __init__(self, options: ImageFolderOptions):
        super().__init__(options)
        self.input_shape = (1 if options.mode == "L" else 3, options.size, options.size)
        self.counts: dict[str, list[tuple[str, int]]] | None = None
        self._found: Found | None = None

    @property
    def data_id(self) -> str:
        """The content's digest, and how images become arrays."""
        own = self.options
        return f"image_folder/{own.sha256[:16] or 'any'}/{own.mode}/{own.resampling}/{own.size}px"

    @property
    def prepared_bytes(self) -> int:
        """One byte for each channel of each pixel."""
        images = sum(count for counts in (self.counts or {}).values() for _, count in counts)
        return images * int(np.prod(self.input_shape))

    def look(self, folder: Path) -> None:
        """Take the classes from what is prepared in ``folder``, or read the user's folder.

        A set with a known digest is not read again if it is prepared. Without a digest the folder
        says which set is meant; if it is gone, what was last prepared from it is meant. A UserError
        if there is neither, and if the folder holds other images than those of the digest. With a
        digest and neither, the id is known and the classes are not: that is enough for tables of
        runs that exist, as those of a bundle.
        """
        if self._known(folder):
            return
        own = self.options
        if not own.root and not own.sha256:
            raise UserError("image_folder: name the folder of your images as `root`.")
        # A folder without anything may be the place of a disk that is not mounted.
        empty = os.path.isdir(own.root) and all(map(is_system, os.listdir(own.root)))
        there = os.path.lexists(own.root) and not empty
        if not there and not own.sha256 and (digest := self._last(folder)):
            self.options = own.model_copy(update={"sha256": digest})
            if self._known(folder):
                return
        if there or (empty and not own.sha256):
            self._read_folder()
        elif not own.sha256:
            raise UserError(
                f"image_folder: there is no folder {own.root}, and {Path(folder) / 'prepared'} has"
                " nothing that was made from it with these options. Correct `root`; or give the"
                " `sha256` of what is prepared, which records hold."
            )

    def _read_folder(self) -> None:
        own = self.options
        shares = (own.shares.train, own.shares.validation, own.shares.test)
        asked = Asked(
            *(own.root, own.reads, own.label, own.parts, own.split_by, own.lists),
            *(shares, own.split_seed, own.least_images),
        )
        try:
            self._found = found(asked, changes_with(asked))
        except UserError as error:
            raise UserError(f"image_folder: {error}") from None
        if own.sha256 not in ("", self._found.sha256):
            raise UserError(
                f"image_folder: {own.root} holds other images than those asked for: its sha256 is"
                f" {self._found.sha256}, and {own.sha256} is wanted. Start the study again if they"
                " were changed since then, or correct `sha256`."
            )
        self.options = own.model_copy(update={"sha256": self._found.sha256})
        self._count(
            {
                split: [(one.name, len(one.files)) for one in classes]
                for split, classes in self._found.splits.items()
            }
        )

    def _count(self, counts: dict[str, list[tuple[str, int]]]) -> None:
        self.counts = counts
        self.class_counts = {split: len(of_split) for split, of_split in counts.items()}

    def _known(self, folder: Path) -> bool:
        """Whether the set is prepared; its classes are then taken from there."""
        index = prepared.index(folder, self.data_id) if self.options.sha256 else {}
        if not index or index.get("content") != self.options.sha256:
            return False
        try:
            self._count(
                {split: [(n, int(c)) for n, c in index["counts"][split]] for split in SPLITS}
            )
        except (KeyError, TypeError, ValueError):  # damaged
            return False
        return True

    def _last(self, folder: Path) -> str:
        """The digest of what was last prepared with the same options; empty: nothing was."""
        every = Path(folder).glob("prepared/image_folder-*/index.json")
        for path in sorted(every, key=lambda path: path.stat().st_mtime, reverse=True):
            index = prepared.read(path)
            if index.get("asked") == self._asked():
                return str(index["content"])
        return ""

    def _asked(self) -> dict[str, Any]:
        """All options but the digest, with full paths."""
        asked = self.options.model_dump(mode="json", exclude={"sha256"})
        if not asked["parts"]:
            del asked["parts"]  # what was prepared before there was this option has none
        paths = {
            key: os.path.abspath(asked[key])
            for key in ("root", "lists")
            if asked[key] and not class_lists.is_shipped(asked[key])
        }
        return asked | paths

    def check(self, split: str, way: int, shot: int, query: int) -> None:
        """As in every data set. Before :meth:`look` its classes may be any."""
        if self.counts is None:
            DataSet.check(self, split, way, shot, query)
        else:
            super().check(split, way, shot, query)

    def smallest(self, split: str) -> tuple[int, str]:
        """The smallest class of this very split, by its name."""
        name, count = min((self.counts or {})[split], key=lambda of: of[1])
        return count, f"{name!r}, the smallest class of the {split} split,"

    def class_name(self, split: str, place: int) -> str:
        """The class by its folder, or by its label in the lists."""
        return repr((self.counts or {})[split][place][0])

    def prepare(self, folder: Path, own: dict[str, LocalCopy] | None = None) -> None:
        """Decode the images, unless the set is prepared. A UserError where they are not there."""
        self.look(folder)
        if self.counts is None:
            root, sha256 = self.options.root, self.options.sha256
            told = f"there is no folder {root}" if root else "`root` names no folder"
            raise UserError(
                f"image_folder: {told}, and the images of `sha256` {sha256[:12]}… are not"
                f" prepared in {Path(folder) / 'prepared'}. Correct the one or the other."
            )
        super().prepare(folder, own)

    def open(self, folder: Path, device: torch.device, dtype: torch.dtype) -> "ImageFolder":
        """Map the prepared arrays into memory; the user's folder is not needed."""
        if not self.options.sha256:
            self.look(folder)
        super().open(folder, device, dtype)
        self._known(folder)
        return self

    def classes(self, paths: dict[str, Path]) -> Iterator[tuple[str, np.ndarray]]:
        """One class after another, in the order of their digests."""
        if self._found is None:  # what was prepared is damaged
            self._read_folder()
        assert self._found is not None, "the folder was read"
        for split in SPLITS:
            for one in self._found.splits[split]:
                yield split, np.stack([self._decoded(*file) for file in one.files])

    def _decoded(self, sha256: str, source: Source) -> np.ndarray:
        try:
            content = source.read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise UserError(f"{source} was changed just now: start again.")
            own, channels = self.options, self.input_shape[0]
            return decode(content, str(source), channels, own.size, own.resampling.upper())
        except (UserError, MemoryError):
            raise
        except Exception as error:  # Pillow raises all sorts on damaged bytes
            raise UserError(
                f"{source} cannot be decoded ({' '.join(str(error).split())}): mend it, or move it"
                " out of the folder."
            ) from None

    def make(
        self, home: Path, paths: dict[str, Path], exact: bool
    ) -> tuple[ImageArrays, dict[str, Any]]:
        """As in every set of images. The index also tells the classes and what was asked for."""
        arrays, more = super().make(home, paths, exact)
        own = {"content": self.options.sha256, "counts": self.counts, "asked": self._asked()}
        if self._found and (told := told_of(self._found, self.options.least_images)):
            to_stderr(f"image_folder: {told}")
            own["told"] = told
        return arrays, more | own
