"""Random, cut and damaged pictures, and arrays: right pixels or one clear error.

The right pixels are computed here with numpy, without Pillow. Warnings are errors, as in every
test.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cml_bench.data._archives import reading
from cml_bench.data._images import decode
from cml_bench.data.wrap import wrap
from cml_bench.errors import UserError
from tests.helpers.pictures import chunks, png, saved

# How far a byte may be from the right one: alpha is rounded, and JPEG is not exact.
EXACT, ROUNDED, LOSSY = 0, 1, 6


def bounded(examples: int):
    """Settings of hypothesis: so many examples, the same at each run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def samples(
    rng: np.random.Generator, side: tuple[int, int], channels: int = 0, top: int = 255
) -> np.ndarray:
    """Samples (H, W) or (H, W, channels) from 0 to ``top``."""
    return rng.integers(0, top + 1, side + ((channels,) if channels else ()), np.uint8)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The picture, (H, W) or (H, W, 3), on white: unchanged where alpha (H, W) is 255."""
    share = alpha / 255 if colours.ndim == 2 else alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


# -- kinds: (content, right values (H, W) or (H, W, 3) or None where it must be refused, how exact)


def grey(form):
    def kind(rng, side):
        values = samples(rng, side)
        return saved(Image.fromarray(values), form), values, EXACT

    return kind


def one_bit(form):
    def kind(rng, side):
        values = samples(rng, side, top=1)
        return saved(Image.fromarray(values > 0), form), values * 255, EXACT

    return kind


def colour(form, **options):
    def kind(rng, side):
        values = samples(rng, side, 3)
        return saved(Image.fromarray(values), form, **options), values, EXACT

    return kind


def alpha(form, channels, **options):
    def kind(rng, side):
        values = samples(rng, side, channels)
        values[..., -1] = rng.choice([0, 255, values[0, 0, -1]], side)
        colours = values[..., 0] if channels == 2 else values[..., :3]
        return (
            saved(Image.fromarray(values), form, **options),
            on_white(colours, values[..., -1]),
            ROUNDED,
        )

    return kind


def palette(form, clear="none", top=255, **options):
    """A palette picture; ``clear`` is none, one colour, or an alpha for each colour."""

    def kind(rng, side):
        values, colours = samples(rng, side, top=top), samples(rng, (top + 1, 3))
        picture = Image.fromarray(values, "L")
        picture.putpalette(colours.reshape(-1).tolist())
        alphas = np.full(top + 1, 255, np.uint8)
        more = {}
        if clear == "one":
            alphas[values[0, 0]] = 0
            more = {"transparency": int(values[0, 0])}
        elif clear == "each":
            alphas = samples(rng, (top + 1,))
            more = {"transparency": alphas.tobytes()}
        return (
            saved(picture, form, **options, **more),
            on_white(colours[values], alphas[values]),
            ROUNDED,
        )

    return kind


def clear_grey(bits):
    def kind(rng, side):
        values = samples(rng, side, top=2**bits - 1)
        clear = int(values[0, 0])
        spread = values * (255 // (2**bits - 1))
        return png(bits, 0, values, clear), np.where(values == clear, 255, spread), EXACT

    return kind


def clear_colour(rng, side):
    values = samples(rng, side, 3, top=1) * 255
    clear = values[0, 0]
    right = np.where((values == clear).all(-1, keepdims=True), 255, values)
    return saved(Image.fromarray(values), transparency=tuple(clear.tolist())), right, EXACT


def jpeg(mode):
    """A JPEG of one colour, because neighbours smear."""

    def kind(rng, side):
        bands = {"1": 1, "L": 1, "CMYK": 4}.get(mode, 3)
        values = np.broadcast_to(samples(rng, (1, 1), bands), (*side, bands)).copy()
        if mode == "1":
            values = values // 128 * 255
            picture = Image.fromarray(values[..., 0] > 0)
        elif mode == "YCbCr":
            picture = Image.fromarray(values).convert("YCbCr")
        else:
            picture = Image.frombytes(mode, side[::-1], values.tobytes())
        right = values[..., 0] if bands == 1 else values
        if mode == "CMYK":
            right = (255 - values[..., :3].astype(float)) * (255 - values[..., 3:]) / 255
        return saved(picture, "jpeg", quality=100, subsampling=0), right, LOSSY

    return kind


def sixteen(kind_of_png, bands):
    def kind(rng, side):
        values = rng.integers(0, 2**16, (*side, bands))
        return png(16, kind_of_png, values if bands > 1 else values[..., 0]), None, EXACT

    return kind


def deep(rng, side):
    return saved(Image.fromarray(rng.integers(0, 2**16, side, np.uint16))), None, EXACT


def moving(form, **options):
    def kind(rng, side):
        first, second = (Image.fromarray(samples(rng, side)).convert("RGB") for _ in range(2))
        # Pillow would join two equal frames.
        second.putpixel((0, 0), tuple(255 - v for v in first.getpixel((0, 0))))
        return saved(first, form, save_all=True, append_images=[second], **options), None, EXACT

    return kind


LOSSLESS = {"lossless": True, "exact": True}
KINDS = {
    **{f"{form} L": grey(form) for form in ("png", "bmp", "gif")},
    **{f"{form} 1": one_bit(form) for form in ("png", "bmp", "gif")},
    **{f"{form} RGB": colour(form) for form in ("png", "bmp")},
    **{f"{form} P": palette(form) for form in ("png", "bmp", "gif")},
    **{f"png P of {bits} bits": palette("png", top=2**bits - 1, bits=bits) for bits in (1, 2, 4)},
    **{f"png P, {clear} clear": palette("png", clear) for clear in ("one", "each")},
    "gif P, one clear": palette("gif", "one"),
    "gif P, interlaced": palette("gif", interlace=1),
    "webp RGB": colour("webp", **LOSSLESS),
    "webp RGBA": alpha("webp", 4, **LOSSLESS),
    "png I;16": deep,
    "png LA": alpha("png", 2),
    "png RGBA": alpha("png", 4),
    "png RGB, one clear": clear_colour,
    **{f"png grey of {bits} bits, one clear": clear_grey(bits) for bits in (1, 2, 4, 8)},
    **{f"jpeg {mode}": jpeg(mode) for mode in ("1", "L", "RGB", "YCbCr", "CMYK")},
    **{
        f"png of type {kind}, 16 bits": sixteen(kind, bands)
        for kind, bands in ((0, 1), (2, 3), (4, 2), (6, 4))
    },
    "gif, moving": moving("gif"),
    "png, moving": moving("png"),
    "webp, moving": moving("webp", lossless=True),
}


def read(content: bytes, channels: int) -> np.ndarray | None:
    """The pixels as the image sets read them from an archive, or None if they are refused.

    A refusal is one line that names archive and member.
    """
    try:
        with reading(Path("a.zip"), "b.png"):
            pixels = decode(content, "a.zip, b.png", channels)
    except UserError as error:
        said = str(error)
        assert said.startswith("a.zip")
        assert "b.png" in said
        assert "\n" not in said
        assert "object at 0x" not in said
        return None
    assert pixels.dtype == np.uint8
    assert pixels.shape[0] == channels
    return pixels


def right_for(right: np.ndarray, channels: int) -> np.ndarray:
    """The right pixels (channels, H, W), not rounded."""
    if channels == 1:
        return (right if right.ndim == 2 else right @ np.array([0.299, 0.587, 0.114]))[None]
    return np.stack([right] * 3) if right.ndim == 2 else right.transpose(2, 0, 1)


SIDES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@bounded(300)
@given(st.sampled_from(sorted(KINDS)), SIDES, st.integers(0, 2**32), st.sampled_from([1, 3]))
def test_a_whole_picture_is_right_or_refused(kind, side, seed, channels):
    content, right, off = KINDS[kind](np.random.default_rng(seed), side)
    pixels = read(content, channels)
    if right is None:
        assert pixels is None
    else:
        assert pixels.shape[1:] == side
        assert np.abs(pixels.astype(float) - right_for(right, channels)).max() <= off + 0.51


def cuts(content: bytes) -> list[int]:
    """Places to cut a file: all of a short file, else both ends, PNG chunks and some between."""
    places = {
        *range(0, len(content), max(1, len(content) // 60)),
        *range(40),
        *range(len(content) - 40, len(content)),
    }
    if content.startswith(b"\x89PNG"):
        places.update(end + near for end in chunks(content) for near in (-1, 0, 1, 4, 8))
    return sorted(place for place in places if 0 <= place < len(content))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_cut_picture_is_right_or_refused(kind):
    content, right, _ = KINDS[kind](np.random.default_rng(5), (7, 6))
    whole, refused = read(content, 3), 0
    for place in cuts(content):
        pixels = read(content[:place], 3)
        refused += pixels is None
        if pixels is not None and right is not None:
            assert np.array_equal(pixels, whole), f"cut at {place} of {len(content)}"
    assert refused > 40


@bounded(300)
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 2**32),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 255),
)
def test_a_damaged_picture_is_refused_or_read(kind, seed, place, change):
    """One byte is another.

    A PNG has checksums; in other formats another byte may be another pixel.
    """
    content, right, _ = KINDS[kind](np.random.default_rng(seed), (5, 4))
    at = int(place * len(content))
    pixels = read(content[:at] + bytes([content[at] ^ change]) + content[at + 1 :], 1)
    if kind.startswith("png") and pixels is not None:
        assert right is not None
        assert np.array_equal(pixels, read(content, 1))


def test_a_changed_byte_of_a_png_that_packs_well_is_noticed():
    """Pillow is content when it has decoded all rows, whatever the checksums say."""
    smooth = (np.add.outer(np.arange(200), np.arange(200)) // 2).astype(np.uint8)
    content = saved(Image.fromarray(smooth))
    for at in range(len(content)):
        pixels = read(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :], 1)
        assert pixels is None or np.array_equal(pixels[0], smooth), f"at {at} of {len(content)}"


DTYPES = [
    "?",
    "u1",
    "i1",
    "u2",
    "<i2",
    ">i4",
    "i8",
    "u8",
    "f2",
    "f4",
    ">f8",
    "c8",
    "U3",
    "M8[s]",
    "O",
]


@bounded(200)
@given(
    st.sampled_from(DTYPES),
    SIDES,
    st.integers(0, 2**32),
    st.sampled_from([0, 1, 2, 9, 200, 255, 256, 300, -1, 70000]),
    st.sampled_from([None, np.nan, np.inf, -0.1, 1.5]),
)
def test_an_array_is_wrapped_as_it_is_or_refused(dtype, side, seed, top, odd):
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    values = rng.random(side) if kind == "f" else rng.integers(min(top, 0), max(top, 0) + 1, side)
    if kind in "iu":
        info = np.iinfo(dtype)
        values = values.clip(info.min, info.max)
    values = values.astype(dtype)
    if kind == "f" and odd is not None:
        values[-1, -1] = odd
    exact = values.astype(float) if kind in "biuf" else np.array([np.nan])
    scale, high = {"b": (255, 1), "f": (255, 1)}.get(kind, (1, 255))
    takable = ((exact >= 0) & (exact <= high)).all() and len(np.unique(np.round(exact * scale))) > 1
    takable = takable and np.round(exact * scale).max() > 1
    pixels, said = None, ""
    try:
        pixels = wrap([(values, 0)]).arrays.images[0, 0]
    except UserError as error:
        said = str(error)
    assert (pixels is not None) == takable, said
    assert "\n" not in said
    if takable:
        assert np.abs(pixels - exact * scale).max() <= (0.6 if dtype == "f2" else 0.51)
