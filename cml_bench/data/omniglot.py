"""``omniglot``: handwritten characters of 50 alphabets, 20 drawings each (Lake et al. 2015; MIT licence).

Classes are split as in torchmeta (Vinyals et al. 2016): 1,028 / 172 / 423 characters. Images are 105x105 black
on white, resized to 28x28 as torchmeta does (bilinear, [0, 1], not inverted).
"""

import json
import zipfile
from pathlib import Path

import numpy as np
from pydantic import Field

from cml_bench.data._archives import AGAIN, check_names, reading
from cml_bench.data._images import decode
from cml_bench.data._source import RemoteFile
from cml_bench.data.base import ImageArrays, ImageSet
from cml_bench.episodes import SPLITS
from cml_bench.errors import UserError
from cml_bench.registry import datasets
from cml_bench.spec import Options

_SPLIT_FILE = Path(__file__).with_name("omniglot.json")
_DRAWINGS = 20
# Of damaged bytes zipfile and Pillow raise what they come upon: besides their own errors and OSError also RuntimeError
# (an "encrypted" member), NotImplementedError, ValueError, SyntaxError (a broken PNG), EOFError, zlib.error and more.
_DAMAGE = Exception
_MIRRORS = (
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
    "https://github.com/brendenlake/omniglot/raw/master/python/",
)


def _file(name: str, size: int, sha256: str) -> RemoteFile:
    return RemoteFile(name, tuple(mirror + name for mirror in _MIRRORS), size, sha256)


class OmniglotOptions(Options):
    """Size and rotations."""

    size: int = Field(28, ge=16, le=105, description="pixels per side")
    rotations: bool = Field(
        False,
        description="each character turned by 90, 180 and 270 degrees is a class of its own, in every split "
        "(torchmeta's helper does so; the CML paper does not say)",
    )


@datasets.register("omniglot")
class Omniglot(ImageSet):
    """Grey images (1, size, size), 20 of each class."""

    Options = OmniglotOptions
    smallest_class = _DRAWINGS
    licence = "Omniglot is under the MIT licence; Lake, Salakhutdinov and Tenenbaum (2015) are to be cited."
    files = (
        _file("images_background.zip", 9_464_212, "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640"),
        _file("images_evaluation.zip", 6_462_886, "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee"),
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
        self.class_counts = {split: turns * len(found) for split, found in self.characters.items()}
        self.image_count = _DRAWINGS * sum(self.class_counts.values())

    @property
    def data_id(self) -> str:
        """Split, size and whether rotations are classes."""
        rotated = "/rotations" if self.options.rotations else ""
        return f"omniglot/vinyals/{self.options.size}px{rotated}"

    def class_name(self, split: str, place: int) -> str:
        """Its folder, and that it may be a turned copy."""
        turns = 4 if self.options.rotations else 1
        archive, alphabet, number = self.characters[split][place // turns]
        turned = f" turned by {place % turns * 90} degrees" if place % turns else ""
        return f"{archive}/{alphabet}/character{number:02d}{turned}"

    def build(self, paths: dict[str, Path]) -> ImageArrays:
        """Decode the two zips: classes of training, then validation, then test; turned copies follow each other."""
        archives = {name.removesuffix(".zip"): _opened(path) for name, path in paths.items()}
        names = {key: _drawings(archive, paths[f"{key}.zip"]) for key, archive in archives.items()}
        classes, splits = [], {}
        for split in SPLITS:
            first = len(classes)
            for archive, alphabet, number in self.characters[split]:
                place = f"{archive}/{alphabet}/character{number:02d}"
                found = names[archive].get(place, [])
                path = paths[f"{archive}.zip"]
                if len(found) != _DRAWINGS:
                    raise UserError(f"{path}: {place} has {len(found)} drawings; {_DRAWINGS} are expected. {AGAIN}")
                pictures = np.stack([self._decode(archives[archive], name, path) for name in found])
                turns = range(4) if self.options.rotations else (0,)
                classes += [np.rot90(pictures, k, axes=(1, 2)) for k in turns]
            splits[split] = np.arange(first, len(classes))
        images = np.stack(classes).reshape(-1, *self.input_shape)
        return ImageArrays(np.ascontiguousarray(images), np.full(len(classes), _DRAWINGS), splits)

    def _decode(self, archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
        with reading(path, name):
            return decode(archive.read(name), f"{path}, {name}", 1, self.options.size, "BILINEAR")[0]


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise UserError(f"{path} is no whole zip archive ({error}). {AGAIN}") from None
    check_names(path, archive.namelist())
    return archive


def _drawings(archive: zipfile.ZipFile, path: Path) -> dict[str, list[str]]:
    """``images_background/Greek/character03`` -> sorted names of its drawings."""
    found: dict[str, list[str]] = {}
    for name in sorted(archive.namelist()):
        parts = name.split("/")
        if name.endswith(".png") and len(parts) >= 4:
            found.setdefault("/".join(parts[-4:-1]), []).append(name)
    if not found:
        raise UserError(f"{path} holds no drawings in folders alphabet/character. {AGAIN}")
    return found
