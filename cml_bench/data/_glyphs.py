"""Renders the images of ``glyphs``: characters of the DejaVu fonts that come with matplotlib.

A class is a character. An image shows it in one of 12 faces, under one of two random affine
jitters. `python -m cml_bench.data._glyphs` writes glyphs.json, the list of classes and their split.
That list is committed, because it depends on the versions of FreeType and of the fonts: they decide
which characters look alike.

The strength of the jitter was chosen once, for 5-way 1-shot with support and query images of
different faces: nearest neighbour on pixels stays well below 60 %, and a small network learns
within a hundred outer steps. The demo's table shows both, and the untrained network. Of the jitters
the shift matters most.
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
LOOKALIKE = 0.95  # two characters whose cosine is at least this are one class

# Strength of the jitter. Lengths are fractions of the image's side, so that all sizes show the same
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
EQUAL = (0.70, 0.70)  # such bounds for the comparison of characters: all get one size
CANVAS = 112  # pixels per side at which the font is drawn: large, since the result is resampled


def fonts_folder() -> Path:
    """The folder of .ttf files inside matplotlib. Importing matplotlib for it would take 0.3 s."""
    spec = importlib.util.find_spec("matplotlib")
    folders = spec.submodule_search_locations if spec else None
    assert folders, "matplotlib is a required package"
    return Path(folders[0]) / "mpl-data" / "fonts" / "ttf"


def versions() -> dict[str, str]:
    """Versions of the packages that decide the pixels, and so which characters look alike."""
    return {name: importlib.metadata.version(name) for name in ("matplotlib", "pillow")}


# ---- images


@cache
def _fonts() -> list["FreeTypeFont"]:
    """One PIL font for each face. Capitals are 0.729 em high in all faces: one size serves all."""
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
    """The character cropped to its ink with a margin of 2 pixels, and the zoom that brings the
    longer side of the ink within `bounds` (fractions of CANVAS).
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
    """The ink resampled once by an affine map: uint8 (size, size), the ink's centre in the middle.

    Angles are in radians, shifts in fractions of the side.
    """
    from PIL import Image

    # Twice the resolution, which a box filter halves: bilinear samples alone leave jagged edges.
    side = 2 * size
    unit = CANVAS / (side * zoom)
    cos, sin = unit * math.cos(rotation), unit * math.sin(rotation)
    a, b, d, e = cos + shear * sin, sin - shear * cos, -sin, cos
    # Pillow wants the map from output pixels to input pixels.
    x, y = side * (0.5 + shift_x), side * (0.5 + shift_y)
    c, f = ink.width / 2 - a * x - b * y, ink.height / 2 - d * x - e * y
    large = ink.transform(
        (side, side), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
    )
    return np.asarray(large.reduce(2))


def _draws(code_point: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The random numbers of the n = 24 images of a character.

    Returns uniforms in [0, 1), (n, 8), and deviates (n, size, size). They come from raw Philox
    words: numpy's distributions may change between its versions, raw words do not. A deviate is the
    centred sum of four random bytes, divided by its standard deviation. It is close to normal, and
    the same on every machine.
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
    """Images (n, s, s) float32, smoothed along both axes by the kernel (w, 1 - 2w, w).

    `weight` (n,) holds the w of each image. Neither matrix products nor exp are used, since their
    last bits differ between machines.
    """
    weight = weight.astype(np.float32)[:, None, None]
    for _ in range(2):
        padded = np.pad(images, ((0, 0), (1, 1), (0, 0)))
        images = images + weight * (padded[:, :-2] + padded[:, 2:] - 2 * images)
        images = images.transpose(0, 2, 1)
    return images


def _render_class(code_point: int, size: int) -> np.ndarray:
    """The images of one character: uint8 (12 faces, 2 jitters, size, size)."""
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
    """Images of the given classes: uint8 (classes, 12 faces, 2 jitters, size, size), ink 255 on 0.

    `class_list` is a sequence of code points, or a class list, of which the classes of train,
    validation and test are taken in this order. An image depends only on its code point, face,
    jitter number and size, never on the other classes.
    """
    if isinstance(class_list, dict):
        class_list = [point for split in SPLITS for point in class_list[split]]
    images = np.empty((len(class_list), len(FACES), JITTERS, size, size), dtype=np.uint8)
    for row, code_point in enumerate(class_list):
        images[row] = _render_class(int(code_point), size)
    return images


# ---- classes


def candidates() -> list[int]:
    """The sorted code points that may be classes.

    All 12 faces can draw them. Blanks are left out, and so are characters for which Unicode has a
    decomposition: accented letters, super- and subscripts, ligatures and fractions repeat the
    shapes of other characters.
    """
    from matplotlib.ft2font import FT2Font

    charmaps = [FT2Font(fonts_folder() / f"{face}.ttf").get_charmap() for face in FACES]
    common = set(charmaps[0]).intersection(*charmaps[1:])
    common.remove(0xFFFC)  # the object replacement character is a symbol that draws nothing
    blank = "CZM"  # categories of Unicode: control and unassigned, separators, combining marks
    printed = [
        point for point in sorted(common) if unicodedata.category(chr(point))[0] not in blank
    ]
    return [point for point in printed if not unicodedata.decomposition(chr(point))]


def similarity(code_points: Sequence[int]) -> np.ndarray:
    """The cosines between all pairs of n characters, over all faces: float (n, n).

    Characters are compared centred and at one size, since a small and a large square have the same
    shape. They have no jitter, which would hide much of the differences.
    """
    images = [[_place(*_ink(font, point, EQUAL), 28) for font in _fonts()] for point in code_points]
    flat = np.array(images).reshape(len(code_points), -1).astype(np.float64)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return flat @ flat.T


def _merged(code_points: Sequence[int]) -> list[list[int]]:
    """Groups of look-alikes, each a sorted list of code points.

    Two characters are in one group if a chain of similar pairs joins them.
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
    """The class split: code points in the order of their hashes, cut at the shares of SPLITS."""
    order = sorted(
        code_points, key=lambda p: hashlib.sha256(f"glyphs/{VERSION}/split/{p}".encode()).digest()
    )
    first = round(SPLITS["train"] * len(order))
    second = first + round(SPLITS["validation"] * len(order))
    parts = order[:first], order[first:second], order[second:]
    return {name: sorted(part) for name, part in zip(SPLITS, parts, strict=True)}


def make_class_list() -> ClassList:
    """Make the class list.

    Its keys: "train", "validation" and "test" are sorted code points; "merged" are the groups of
    look-alikes, of which only the first is a class; "lookalike" is the threshold; "version" is
    VERSION; "versions" are those of the packages. Look-alikes, such as the Latin, Greek and
    Cyrillic A, are merged before the split: otherwise training and test would share shapes.
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
    """Make a class list, write it to `path`, one line of JSON for each key, and return it."""
    class_list = make_class_list()
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in class_list.items()]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    return class_list


def load_class_list() -> ClassList:
    """Read the committed class list. See :func:`make_class_list` for its keys."""
    return json.loads(CLASS_LIST.read_text(encoding="utf-8"))


if __name__ == "__main__":
    written = write_class_list()
    print(f"{CLASS_LIST.name}: " + ", ".join(f"{len(written[split])} {split}" for split in SPLITS))
