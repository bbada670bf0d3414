"""Rendering of the embedded few-shot image set "glyphs": characters of matplotlib's DejaVu fonts.

A class is a character; an image is that character in one of 12 faces under one of two random affine
jitters. `python -m cml_bench.data._glyphs` writes the list of classes and their split, glyphs.json.
It is committed, because the merging of look-alikes depends on the versions of FreeType and of the
fonts.

The jitter's strength was chosen once, so that nearest neighbour on pixels is well below 60 % in
5-way 1-shot with support and query from different faces, and a small network learns within a
hundred meta-steps: both, and the untrained network, are rows of the demo's table. The shift matters
most.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import math
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cml_bench.system.files import write_text

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

ClassList = dict[str, Any]  # see make_class_list for its keys

VERSION = 1  # part of the data id: raise it with any change that moves a pixel or a class
CLASS_LIST = Path(__file__).with_name("glyphs.json")
SPLITS = {"train": 0.65, "validation": 0.15, "test": 0.20}
FACES = tuple(
    f"DejaVu{family}{style}"
    for family, slant in (("Sans", "Oblique"), ("SansMono", "Oblique"), ("Serif", "Italic"))
    for style in ("", "-Bold", f"-{slant}", f"-Bold{slant}")
)
JITTERS = 2  # images of one character in one face
LOOKALIKE = 0.95  # cosine from which two characters are one class

# Strength of the jitter. Lengths are fractions of the image's side: every size shows the same
# picture.
ROTATION = math.radians(15)
SHEAR = 0.2
SCALE = (0.8, 1.1)
SHIFT = 2 / 28
BLUR = (0.0, 0.25)  # weight w of a neighbour in the kernel (w, 1 - 2w, w)
NOISE = (0.02, 0.10)  # standard deviation as a fraction of the ink

# Geometry without jitter, as fractions of the image's side.
CAPITAL = 0.64  # height of capital letters
LEGIBLE = (0.40, 0.78)  # bounds of the ink's longer side: dots grow and wide signs shrink
EQUAL = (0.70, 0.70)  # the same for the comparison of characters
CANVAS = (
    112  # pixels per side at which the font itself is drawn: large, since the result is resampled
)


def fonts_folder() -> Path:
    """The folder of .ttf files inside matplotlib, found without the 0.3 s that importing matplotlib
    costs.
    """
    spec = importlib.util.find_spec("matplotlib")
    folders = spec.submodule_search_locations if spec else None
    assert folders, "matplotlib is a required package"
    return Path(folders[0]) / "mpl-data" / "fonts" / "ttf"


def versions() -> dict[str, str]:
    """Versions of the packages on which the pixels, and so the merging of look-alikes, depend."""
    return {name: importlib.metadata.version(name) for name in ("matplotlib", "pillow")}


# ---- images


@cache
def _fonts() -> list["FreeTypeFont"]:
    """One PIL font per face. Capitals are 0.729 em high in all of them, so one size serves all."""
    from PIL import ImageFont

    layout = ImageFont.Layout.BASIC  # the other layout engine is an optional part of Pillow
    em = round(CAPITAL * CANVAS / 0.729)
    return [
        ImageFont.truetype(fonts_folder() / f"{face}.ttf", em, layout_engine=layout)
        for face in FACES
    ]


def _ink(
    font: "FreeTypeFont", code_point: int, bounds: tuple[float, float] = LEGIBLE
) -> tuple["Image", float]:
    """The character cropped to its ink with a margin of 2 pixels (a PIL image), and the zoom that
    brings the longer side of the ink within `bounds`.
    """
    from PIL import Image, ImageDraw

    page = Image.new("L", (3 * CANVAS, 3 * CANVAS))
    ImageDraw.Draw(page).text(
        (CANVAS, 2 * CANVAS), chr(code_point), fill=255, font=font, anchor="ls"
    )
    box = page.getbbox()
    assert box is not None, f"U+{code_point:04X} draws nothing"
    left, top, right, bottom = box
    side = max(right - left, bottom - top) / CANVAS
    return (
        page.crop((left - 2, top - 2, right + 2, bottom + 2)),
        min(max(side, bounds[0]), bounds[1]) / side,
    )


def _place(
    ink: "Image",
    zoom: float,
    size: int,
    rotation: float = 0.0,
    shear: float = 0.0,
    shift_x: float = 0.0,
    shift_y: float = 0.0,
) -> np.ndarray:
    """One affine resampling to a (size, size) uint8 array, from the centre of the ink to that of
    the image.

    Angles in radians, shifts in fractions of the side. Pillow wants the map from output to input
    pixels.
    """
    from PIL import Image

    side = (
        2 * size
    )  # twice the resolution, halved by a box filter: bilinear samples alone leave jagged edges
    unit = CANVAS / (side * zoom)
    cos, sin = unit * math.cos(rotation), unit * math.sin(rotation)
    a, b, d, e = cos + shear * sin, sin - shear * cos, -sin, cos
    x, y = side * (0.5 + shift_x), side * (0.5 + shift_y)
    c, f = ink.width / 2 - a * x - b * y, ink.height / 2 - d * x - e * y
    large = ink.transform(
        (side, side), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
    )
    return np.asarray(large.reduce(2))


def _draws(code_point: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random numbers of one character's n = 24 images: uniforms in [0, 1) (n, 8), deviates (n,
    size, size).

    Raw Philox words do not change between numpy versions, its distributions may. A deviate is the
    centred sum of four random bytes over its standard deviation: close to normal, and the same on
    every machine.
    """
    count, pixels = len(FACES) * JITTERS, size * size
    key = int.from_bytes(
        hashlib.sha256(f"glyphs/{VERSION}/{code_point}".encode()).digest()[:16], "little"
    )
    words = np.random.Philox(key=key).random_raw(count * 8 + count * ((pixels + 1) // 2))
    uniforms = (words[: count * 8] >> np.uint64(11)).reshape(count, 8) * 2.0**-53
    octets = words[count * 8 :].astype("<u8").view(np.uint8).reshape(count, -1, 4)[:, :pixels]
    deviates = (octets.sum(axis=-1, dtype=np.int32) - 510) / np.float32(147.8)
    return uniforms, deviates.astype(np.float32).reshape(count, size, size)


def _blurred(images: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Smooth (n, s, s) float32 images along both axes by (w, 1 - 2w, w); `weight` (n,) holds each
    image's w.

    Written without matrix products or exp, whose last bits differ between machines.
    """
    weight = weight.astype(np.float32)[:, None, None]
    for _ in range(2):
        padded = np.pad(images, ((0, 0), (1, 1), (0, 0)))
        images = images + weight * (padded[:, :-2] + padded[:, 2:] - 2 * images)
        images = images.transpose(0, 2, 1)
    return images


def _render_class(code_point: int, size: int) -> np.ndarray:
    """The images of one character: uint8 array (12 faces, 2 jitters, size, size)."""
    uniforms, deviates = _draws(code_point, size)
    signed = 2 * uniforms - 1
    scale = SCALE[0] + (SCALE[1] - SCALE[0]) * uniforms[:, 0]
    blur = BLUR[0] + (BLUR[1] - BLUR[0]) * uniforms[:, 1]
    noise = NOISE[0] + (NOISE[1] - NOISE[0]) * uniforms[:, 2]
    affine = signed[:, 3:7] * (ROTATION, SHEAR, SHIFT, SHIFT)
    images = np.empty((len(uniforms), size, size), dtype=np.float32)
    for face, font in enumerate(_fonts()):
        ink, zoom = _ink(font, code_point)
        for i in range(face * JITTERS, (face + 1) * JITTERS):
            images[i] = _place(ink, zoom * scale[i], size, *affine[i])
    images = _blurred(images, blur)
    images += 255 * noise.astype(np.float32)[:, None, None] * deviates
    return (
        np.clip(np.rint(images), 0, 255).astype(np.uint8).reshape(len(FACES), JITTERS, size, size)
    )


def render(class_list: ClassList | Sequence[int], size: int = 28) -> np.ndarray:
    """Images of the given classes: uint8 array (classes, 12 faces, 2 jitters, size, size); ink 255
    on 0.

    `class_list` is a class list (its train, validation and test classes, in this order) or a
    sequence of code points. An image depends on its code point, face, jitter number and size, never
    on the classes beside it.
    """
    if isinstance(class_list, dict):
        class_list = [point for split in SPLITS for point in class_list[split]]
    images = np.empty((len(class_list), len(FACES), JITTERS, size, size), dtype=np.uint8)
    for row, code_point in enumerate(class_list):
        images[row] = _render_class(int(code_point), size)
    return images


# ---- classes


def candidates() -> list[int]:
    """Sorted code points that all 12 faces can draw, except blanks and those derived from other
    characters.

    Unicode's decompositions mark accented letters, and also super- and subscripts, ligatures and
    fractions: all of them repeat the shapes of other characters, so none of them may be a class.
    """
    from matplotlib.ft2font import FT2Font

    charmaps = [FT2Font(fonts_folder() / f"{face}.ttf").get_charmap() for face in FACES]
    common = set(charmaps[0]).intersection(*charmaps[1:])
    common.remove(0xFFFC)  # the object replacement character counts as a symbol but draws nothing
    blank = "CZM"  # Unicode categories: control and unassigned, separators, combining marks
    printed = [
        point for point in sorted(common) if unicodedata.category(chr(point))[0] not in blank
    ]
    return [point for point in printed if not unicodedata.decomposition(chr(point))]


def similarity(code_points: Sequence[int]) -> np.ndarray:
    """Cosines between all pairs of n characters over all faces: float array (n, n).

    They are compared without jitter, centred and at equal size: a small and a large square share
    their shape, and the jitter hides much of what tells them apart.
    """
    images = [[_place(*_ink(font, point, EQUAL), 28) for font in _fonts()] for point in code_points]
    flat = np.array(images).reshape(len(code_points), -1).astype(np.float64)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return flat @ flat.T


def _merged(code_points: Sequence[int]) -> list[list[int]]:
    """Groups of look-alikes: sorted lists of code points, joined through any chain of similar
    pairs.
    """
    parent = list(range(len(code_points)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, j in np.argwhere(np.triu(similarity(code_points) >= LOOKALIKE, k=1)).tolist():
        low, high = sorted((root(i), root(j)))
        parent[high] = low  # the smallest code point represents its group
    groups: dict[int, list[int]] = {}
    for i, point in enumerate(code_points):
        groups.setdefault(root(i), []).append(point)
    return list(groups.values())


def _split(code_points: Sequence[int]) -> dict[str, list[int]]:
    """Seeded class split: code points sorted by a hash of each, then cut at the shares of
    SPLITS.
    """
    order = sorted(
        code_points, key=lambda p: hashlib.sha256(f"glyphs/{VERSION}/split/{p}".encode()).digest()
    )
    first = round(SPLITS["train"] * len(order))
    second = first + round(SPLITS["validation"] * len(order))
    parts = order[:first], order[first:second], order[second:]
    return {name: sorted(part) for name, part in zip(SPLITS, parts, strict=True)}


def make_class_list() -> ClassList:
    """The class list: {"train", "validation", "test": sorted code points, "merged": groups of
    look-alikes of which only the first is a class, "lookalike": the threshold, "version": VERSION,
    "versions": packages}.

    Look-alikes (Latin, Greek, Cyrillic A) are merged before the split: else training and test share
    shapes.
    """
    groups = _merged(candidates())
    merged = [group for group in groups if len(group) > 1]
    return {
        "version": VERSION,
        "versions": versions(),
        "lookalike": LOOKALIKE,
        **_split([group[0] for group in groups]),
        "merged": merged,
    }


def write_class_list(path: Path = CLASS_LIST) -> ClassList:
    """Write a fresh class list to `path`, one line of JSON per key, and return it."""
    class_list = make_class_list()
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in class_list.items()]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    return class_list


def load_class_list() -> ClassList:
    """The committed class list; see make_class_list for its keys."""
    return json.loads(CLASS_LIST.read_text(encoding="utf-8"))


if __name__ == "__main__":
    written = write_class_list()
    print(f"{CLASS_LIST.name}: " + ", ".join(f"{len(written[split])} {split}" for split in SPLITS))
