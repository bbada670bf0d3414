"""``omniglot``: 1,623 handwritten characters of 50 alphabets, 20 drawings of each.

Lake, Salakhutdinov and Tenenbaum (2015) made the set; it is fetched from their repository on GitHub
(MIT licence). Classes are split as in torchmeta (Vinyals et al. 2016): 1,028 / 172 / 423
characters. The drawings are 105x105, black on white. They are resized to 28x28 as in torchmeta:
bilinear, not inverted.
"""

import json
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import Field

from cml_bench.data._archives import AGAIN, described, members, reading
from cml_bench.data._images import decode
from cml_bench.data.base import RemoteFile
from cml_bench.data.episodes import SPLITS
from cml_bench.data.stored import ImageArrays, ImageSet
from cml_bench.errors import UserError
from cml_bench.registry import datasets
from cml_bench.spec import Options

_SPLIT_FILE = Path(__file__).with_name("omniglot.json")
_DRAWINGS = 20
_MIRRORS = (
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
    "https://github.com/brendenlake/omniglot/raw/master/python/",
)


def _file(name: str, size: int, sha256: str) -> RemoteFile:
    return RemoteFile(name, tuple(mirror + name for mirror in _MIRRORS), size, sha256)


class OmniglotOptions(Options):
    """The size of the images, and whether rotations are classes."""

    size: int = Field(28, ge=16, le=105, description="pixels per side")
    rotations: bool = Field(
        False,
        description=(
            "each character turned by 90, 180 and 270 degrees is a class of its own, in every split"
            " (torchmeta's helper does so; the CML paper does not say)"
        ),
    )


@datasets.register("omniglot")
class Omniglot(ImageSet):
    """Grey images (1, size, size), 20 of each class."""

    Options = OmniglotOptions
    options: OmniglotOptions
    smallest_class = _DRAWINGS
    licence = (
        "Omniglot is under the MIT licence; Lake, Salakhutdinov and Tenenbaum (2015) are to be"
        " cited."
    )
    files = (
        _file(
            "images_background.zip",
            9_464_212,
            "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
        ),
        _file(
            "images_evaluation.zip",
            6_462_886,
            "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
        ),
    )

    def __init__(self, options: OmniglotOptions):
        super().__init__(options)
        self.input_shape = (1, options.size, options.size)
        lists = json.loads(_SPLIT_FILE.read_text(encoding="utf-8"))
        self.characters = {
            split: [
                (archive, alphabet, number)
                for archive, alphabets in lists[split].items()
                for alphabet, (first, last) in alphabets.items()
                for number in range(first, last + 1)
            ]
            for split in SPLITS
        }
        turns = 4 if options.rotations else 1
        self.class_counts = {
            split: turns * len(characters) for split, characters in self.characters.items()
        }
        self.image_count = _DRAWINGS * sum(self.class_counts.values())

    @property
    def data_id(self) -> str:
        """Name, split, size, and whether rotations are classes."""
        rotated = "/rotations" if self.options.rotations else ""
        return f"omniglot/vinyals/{self.options.size}px{rotated}"

    def class_name(self, split: str, place: int) -> str:
        """The class by the folder of its character, and by its rotation if it has one."""
        turns = 4 if self.options.rotations else 1
        archive, alphabet, number = self.characters[split][place // turns]
        turned = f" turned by {place % turns * 90} degrees" if place % turns else ""
        return f"{archive}/{alphabet}/character{number:02d}{turned}"

    def build(self, paths: dict[str, Path]) -> ImageArrays:
        """Decode both archives: the classes of training, then of validation, then of test.

        The rotations of a character follow it. A user's own copy may be an archive of another kind
        or a folder, and may have further folders around the alphabets.
        """
        drawings = {
            name.removesuffix(".zip"): _drawings(path, name.removesuffix(".zip"))
            for name, path in paths.items()
        }
        classes: list[np.ndarray] = []
        splits = {}
        for split in SPLITS:
            first = len(classes)
            for archive, alphabet, number in self.characters[split]:
                place = f"{alphabet}/character{number:02d}"
                files = drawings[archive].get(place, {})
                path = paths[f"{archive}.zip"]
                if len(files) != _DRAWINGS:
                    raise UserError(
                        f"{path}: {place} has {len(files)} drawings; {_DRAWINGS} are expected."
                        f" {AGAIN}"
                    )
                pictures = np.stack(
                    [self._decode(files[name], name, path) for name in sorted(files)]
                )
                turns = range(4) if self.options.rotations else (0,)
                classes += [np.rot90(pictures, k, axes=(1, 2)) for k in turns]
            splits[split] = np.arange(first, len(classes))
        images = np.stack(classes).reshape(-1, *self.input_shape)
        return ImageArrays(np.ascontiguousarray(images), np.full(len(classes), _DRAWINGS), splits)

    def _decode(self, content: bytes, name: str, path: Path) -> np.ndarray:
        with reading(path, name):
            return decode(content, f"{path}, {name}", 1, self.options.size, "BILINEAR")[0]


def _drawings(path: Path, part: str) -> dict[str, dict[str, bytes]]:
    """The drawings (PNG) of each character, by name: ``Greek/character03`` -> name -> content.

    ``part`` is images_background or images_evaluation. If the archive has a folder of that name,
    only the drawings in it count.
    """
    every, pictures = [], {}
    with reading(path):
        for name, file in members(path):
            every.append(name)
            if name.lower().endswith(".png") and name.count("/") > 1:
                pictures[name] = file.read()
    inside = {
        name: content
        for name, content in pictures.items()
        if part in PurePosixPath(name).parts[:-3]
    }
    drawings: dict[str, dict[str, bytes]] = {}
    for name, content in (inside or pictures).items():
        drawings.setdefault("/".join(PurePosixPath(name).parts[-3:-1]), {})[name] = content
    if not drawings:
        raise UserError(
            f"{path} holds {described(every)}. Wanted are drawings (.png) in folders"
            f" ALPHABET/characterNN. {AGAIN}"
        )
    return drawings
