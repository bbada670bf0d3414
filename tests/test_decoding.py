"""Pixels: what each kind of picture or array becomes, and which are refused by name.

Random and damaged pictures are in test_fuzz_images.py.
"""

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cml_bench.data import _cifar100, stored
from cml_bench.data._arrays import ImageArrays
from cml_bench.data._images import as_bytes, decode
from cml_bench.data._source import sha256_of
from cml_bench.data.prepared import LocalCopy
from cml_bench.data.stored import ImageSet
from cml_bench.data.wrap import wrap
from cml_bench.errors import UserError
from tests.helpers import archives
from tests.helpers.image_sets import make
from tests.helpers.pictures import png, saved

STROKE = np.pad(np.full((8, 4), 255, np.uint8), ((4, 4), (6, 6)))  # 255 where there is ink
PAPER, NO = 255 - STROKE, np.zeros_like(STROKE)


def coloured(ink: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    """A palette picture: colour 1 is the ink, colour 0 the paper."""
    picture = Image.fromarray((ink > 0).astype(np.uint8), "L")
    picture.putpalette([value for colour in colours for value in colour])
    return picture


WHITE, BLACK = (255, 255, 255), (0, 0, 0)
# One drawing, black on white, in each way in which a file may store it; ``ink`` is 255 or 0.
STORED = {
    "L": lambda ink: saved(Image.fromarray(255 - ink)),
    "1": lambda ink: saved(Image.fromarray(ink == 0)),
    "RGB": lambda ink: saved(Image.fromarray(np.stack([255 - ink] * 3, -1))),
    "P": lambda ink: saved(coloured(ink, WHITE, BLACK)),
    "P of 1 bit": lambda ink: saved(coloured(ink, WHITE, BLACK), bits=1),
    "RGBA": lambda ink: saved(Image.fromarray(np.stack([0 * ink] * 3 + [ink], -1))),
    "RGBA on red": lambda ink: saved(
        Image.fromarray(np.stack([255 - ink, 0 * ink, 0 * ink, ink], -1))
    ),
    "LA": lambda ink: saved(Image.fromarray(np.stack([0 * ink, ink], -1))),
    "P, paper clear": lambda ink: saved(coloured(ink, BLACK, BLACK), transparency=0),
    "P, alpha of each": lambda ink: saved(coloured(ink, BLACK, BLACK), transparency=b"\x00\xff"),
    "L, a grey clear": lambda ink: saved(
        Image.fromarray(np.where(ink, 0, 50).astype(np.uint8)), transparency=50
    ),
    "RGB, red clear": lambda ink: saved(
        Image.fromarray(np.stack([255 - ink, 0 * ink, 0 * ink], -1)), transparency=(255, 0, 0)
    ),
    "2 bits, a grey clear": lambda ink: png(2, 0, np.where(ink, 0, 2), transparency=2),
    "4 bits, a grey clear": lambda ink: png(4, 0, np.where(ink, 0, 7), transparency=7),
    "GIF": lambda ink: saved(coloured(ink, BLACK, BLACK), "gif", transparency=0),
    "WebP": lambda ink: saved(
        Image.fromarray(np.stack([0 * ink] * 3 + [ink], -1)), "webp", lossless=True
    ),
    "BMP": lambda ink: saved(Image.fromarray(255 - ink), "bmp"),
}


@pytest.mark.parametrize("how", STORED)
def test_however_a_drawing_is_stored_it_is_black_on_white(how):
    content = STORED[how](STROKE)
    assert np.array_equal(decode(content, "x", 1), PAPER[None])
    assert np.array_equal(decode(content, "x", 3), np.stack([PAPER] * 3))
    pictures = [Image.open(io.BytesIO(content)), Image.open(io.BytesIO(content)).copy()]
    if "bits, a grey" in how:
        pictures.pop()  # the copy in memory has lost which grey is clear
    for picture in pictures:
        images = wrap([(picture, 0)]).arrays.images
        assert images.shape[1] == (1 if picture.mode in ("1", "L", "LA") else 3)
        assert (images == PAPER).all()


def repacked(copies_of: dict[str, LocalCopy], change) -> dict[str, LocalCopy]:
    """Omniglot's archives with every drawing changed.

    ``change`` gets the places of a drawing's ink.
    """
    for name, copy in copies_of.items():
        with zipfile.ZipFile(copy.path) as old:
            drawings = {
                item: np.asarray(Image.open(old.open(item)).convert("L")) for item in old.namelist()
            }
        with zipfile.ZipFile(copy.path, "w") as new:
            for item, drawing in drawings.items():
                new.writestr(item, change(255 - drawing))
        copies_of[name] = LocalCopy(path=copy.path, sha256=sha256_of(Path(copy.path)))
    return copies_of


@pytest.mark.parametrize(
    "how", ["RGBA", "LA", "P, paper clear", "RGBA on red", "P", "L, a grey clear"]
)
def test_omniglot_is_the_same_data_however_its_drawings_are_stored(how, miniature, tmp_path):
    data, own = miniature
    opened = []
    for folder in (tmp_path / "plain", tmp_path / "other"):
        data.prepare(folder, own)
        opened.append(data.open(folder, torch.device("cpu"), torch.float32).sha256)
        own = repacked(own, STORED[how])
    assert opened[0] == opened[1]


# -- what else Pillow converts plainly, and what not


def test_colour_becomes_grey_and_grey_becomes_colour():
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    grey = decode(saved(Image.fromarray(colours)), "x", 1)[0]
    assert np.abs(grey - colours @ np.array([0.299, 0.587, 0.114])).max() < 0.51
    assert np.array_equal(decode(saved(Image.fromarray(grey)), "x", 3), np.stack([grey] * 3))
    half = np.full((2, 2, 2), (100, 128), np.uint8)
    assert (decode(saved(Image.fromarray(half, "LA")), "x") == round(100 * 128 / 255 + 127)).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX", "RGBa", "La", "PA"])
def test_other_modes_of_eight_bits_are_converted(mode):
    colours = np.full((4, 4, 3), (250, 120, 30), np.uint8)
    source = Image.fromarray(colours)
    if mode == "PA":
        source = source.quantize(4).convert("PA")
    elif mode in ("RGBa", "La"):
        source = source.convert("RGBA" if mode == "RGBa" else "LA").convert(mode)
    picture = source if source.mode == mode else source.convert(mode)
    pixels = decode(picture, "x", 3).astype(int)
    expected = [150, 150, 150] if mode == "La" else [250, 120, 30]
    assert np.abs(pixels - np.reshape(expected, (3, 1, 1))).max() <= 3


@pytest.mark.parametrize(
    ("picture", "pattern"),
    [
        (png(16, 0, np.full((4, 4), 700)), r"more than 8 bits a channel \(mode I;16\)"),
        (png(16, 2, np.full((4, 4, 3), 700)), r"more than 8 bits a channel \(mode RGB\)"),
        (png(16, 4, np.full((4, 4, 2), 700)), "more than 8 bits a channel"),
        (png(16, 6, np.full((4, 4, 4), 700)), "more than 8 bits a channel"),
        (Image.new("I", (4, 4), 300), r"more than 8 bits a channel \(mode I\)"),
        (Image.new("F", (4, 4), 0.5), r"more than 8 bits a channel \(mode F\)"),
        (Image.new("LAB", (4, 4)), "has the mode LAB"),
        (
            saved(
                Image.new("L", (4, 4)),
                "gif",
                save_all=True,
                append_images=[Image.new("L", (4, 4), 9)],
            ),
            "of 2 pictures",
        ),
        (
            saved(
                Image.new("RGB", (4, 4)),
                "webp",
                save_all=True,
                append_images=[Image.new("RGB", (4, 4), "red")],
            ),
            "is a sequence of 2 pictures",
        ),
        (
            saved(Image.new("L", (4, 4)), save_all=True, append_images=[Image.new("L", (4, 4), 9)]),
            "of 2 pictures",
        ),
    ],
    ids=["16 bits", "RGB of 16", "LA of 16", "RGBA of 16", "I", "F", "LAB", "GIF", "WebP", "PNG"],
)
def test_what_bytes_cannot_hold_is_refused_by_name(picture, pattern, miniature):
    with pytest.raises(UserError, match=f"^here.* {pattern}"):
        decode(picture, "here", 1)
    opened = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
    with pytest.raises(UserError, match=f"^image 0.* {pattern}"):
        wrap([(opened, 0)])
    if isinstance(picture, bytes):
        data, own = miniature
        own = repacked(own, lambda ink: picture)
        with pytest.raises(
            UserError, match=rf"images_\w+\.zip, .*/character\d\d/\S*\.png .*{pattern}"
        ):
            data.build({name: Path(copy.path) for name, copy in own.items()})


def test_a_jpeg_with_previews_behind_it_is_read(tmp_path):
    """Cameras write such files (MPO)."""
    previews = saved(
        Image.new("L", (8, 8), 200),
        "mpo",
        save_all=True,
        append_images=[Image.new("L", (8, 8), 10)],
    )
    assert Image.open(io.BytesIO(previews)).n_frames == 2
    assert np.abs(decode(previews, "x", 1).astype(int) - 200).max() <= 1


def test_the_turn_that_exif_notes_is_left_alone():
    ramp = np.arange(0, 256, 16, dtype=np.uint8)
    picture = Image.fromarray(np.repeat(ramp[None], 8, 0))  # 16 wide, 8 high
    exif = Image.Exif()
    exif[0x0112] = 6  # "show this picture turned by a quarter"
    for form in ("jpeg", "png", "webp"):
        content = saved(picture, form, exif=exif, quality=100)
        assert Image.open(io.BytesIO(content)).getexif()[0x0112] == 6
        pixels = decode(content, "x", 1)[0]
        assert pixels.shape == (8, 16)
        assert np.abs(pixels.astype(int) - np.asarray(picture)).max() <= 3


def test_a_picture_of_too_many_pixels_is_named(monkeypatch):
    content = saved(Image.new("1", (40, 40)))
    for most in (1000, 100):  # Pillow warns at 1000, and refuses at 100
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(UserError, match=r"here has more pixels than .*1600 pixels"):
            decode(content, "here")


# -- numbers

OUTSIDE = [
    (np.array([3, 300]), r"holds 300, outside \[0, 255\]"),
    (np.array([-1, 3], np.int8), r"holds -1, outside"),
    (np.array([256], np.uint16), "holds 256"),
    (np.array([503], np.uint32), "holds 503"),
    (np.array([0.5, np.nan]), r"holds nan, outside \[0, 1\]"),
    (np.array([np.inf], np.float32), "holds inf"),
    (np.array([-np.inf]), "holds -inf"),
    (np.array([-0.01]), "holds -0.01"),
    (np.array([0.0, 128.0]), "holds 128.0.*integers 0..255, floats 0..1 or booleans are wanted"),
    (np.array([1j]), "holds values of type complex128"),
    (np.array(["a.png"]), "holds values of type <U5"),
    (np.array([None]), "holds values of type object"),
]


@pytest.mark.parametrize(
    ("values", "pattern"), OUTSIDE, ids=[pattern[:14] for _, pattern in OUTSIDE]
)
def test_numbers_that_bytes_cannot_hold_are_refused_in_every_set(
    values, pattern, monkeypatch, tmp_path
):
    with pytest.raises(UserError, match=f"^here {pattern}"):
        as_bytes(values, "here")
    picture = np.resize(values, (4, 4))
    with pytest.raises(UserError, match=f"image 1 {pattern}"):
        wrap([(np.zeros((4, 4), np.uint8), 0), (picture, 0)])
    if picture.dtype.kind not in "biufc":
        return
    content = {"image_data": np.resize(values, (1, 84, 84, 3)), "class_dict": {"n1": [0]}}
    (tmp_path / "mini-imagenet-cache-train.pkl").write_bytes(archives.python3_pickle(content))
    with pytest.raises(UserError, match=rf"-train\.pkl, its train split, {pattern}"):
        list(make("miniimagenet").classes({path.name: path for path in tmp_path.iterdir()}))
    parts = {
        part: {"data": np.resize(values, (1, 3072)), "fine_labels": [0]}
        for part in ("train", "test")
    }
    monkeypatch.setattr(
        _cifar100, "_contents", lambda path: {**parts, "meta": {"fine_label_names": ["apple"]}}
    )
    with pytest.raises(UserError, match=rf"^a\.tar\.gz, train, {pattern}"):
        list(make("fc100").classes({"a": Path("a.tar.gz")}))


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.float32, np.float64])
def test_numbers_that_bytes_can_hold_are_the_same_data(kind, tmp_path):
    plain = archives.images(0, 4, 84)
    images = plain / kind(255) if np.dtype(kind).kind == "f" else plain.astype(kind)
    content = {"image_data": images.astype(kind), "class_dict": {"n1": [2, 3]}}
    (tmp_path / "mini-imagenet-cache-train.pkl").write_bytes(archives.python3_pickle(content))
    pixels = next(make("miniimagenet").classes({path.name: path for path in tmp_path.iterdir()}))[1]
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, plain[2:].transpose(0, 3, 1, 2))


# -- classes of one value


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("omniglot", "images_background/Alphabet_of_the_Magi/character01"),
        ("miniimagenet", r"class 0 \(from 0\) of the train split"),
        ("cifar_fs", "class "),
        ("fc100", "class "),
        ("vgg_flower", r"class \d+"),
        ("glyphs", r"class 0 \(from 0\)"),
    ],
)
def test_a_class_of_one_value_or_of_no_image_is_refused_in_every_set(name, called, tmp_path):
    data = make(name)
    images = np.random.default_rng(0).integers(0, 256, (4, *data.input_shape), np.uint8)
    flat = [
        0 * images,
        0 * images + 255,
        0 * images + np.arange(len(images[0]), dtype=np.uint8)[:, None, None],
    ]
    for case, said in (
        (flat[0], "are one constant value, 0,"),
        (flat[1], "constant value, 255"),
        (flat[2], "constant value, 0"),
        (images[:0], "there are no images of"),
    ):
        data.classes = lambda paths, case=case: iter([("train", case)])
        with (
            open(tmp_path / "images.npy", "wb") as file,
            pytest.raises(UserError, match=said) as caught,
        ):
            data._write(file, {"x": Path("here.zip")}, {"train": []}, False)
        assert str(caught.value).startswith("here.zip: ")
        assert re.search(called, str(caught.value))


def test_a_blank_character_leaves_nothing_behind(miniature, tmp_path):
    data, own = miniature
    own = repacked(own, lambda ink: saved(Image.new("RGBA", (105, 105), (0, 0, 0, 0))))
    with pytest.raises(
        UserError, match=r"images_background\.zip.*/character\d\d are one constant value, 255"
    ):
        data.prepare(tmp_path / "data", own)
    assert not (tmp_path / "data" / "prepared").exists()


class Black(ImageSet):
    """A set of one class of three images, which all have the value ``value``."""

    input_shape, smallest_class, name, value, data_id = (1, 2, 2), 3, "black", 0, "black/v1"
    class_counts = {"train": 1, "validation": 0, "test": 0}

    def build(self, paths):
        splits = {
            "train": np.array([0]),
            "validation": np.array([], int),
            "test": np.array([], int),
        }
        images = np.zeros((3, 1, 2, 2), np.uint8)
        images[1, 0, 1] = self.value
        return ImageArrays(images, np.array([3]), splits)


def test_black_images_that_an_earlier_version_prepared_are_not_trained_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(stored, "flaw", lambda *args: "")
        Black(Black.Options()).prepare(tmp_path)
        Black(Black.Options()).open(tmp_path, torch.device("cpu"), torch.float32)
    with pytest.raises(
        UserError, match=r"all images of class 0 are one constant value, 0.*Move the folder away"
    ):
        Black(Black.Options()).open(tmp_path, torch.device("cpu"), torch.float32)
    with pytest.raises(
        UserError, match=r"^black: all images of class 0 \(from 0\) of the train split"
    ):
        Black(Black.Options()).prepare(tmp_path)
    monkeypatch.setattr(Black, "value", 9)
    Black(Black.Options()).prepare(tmp_path)
    assert (
        Black(Black.Options())
        .open(tmp_path, torch.device("cpu"), torch.float32)
        .arrays.images.max()
        == 9
    )
