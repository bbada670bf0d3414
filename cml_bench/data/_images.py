"""The one place where pictures, and arrays of numbers, become the bytes of images. PIL is imported
when it is needed.

What is plain is converted: transparency of every kind lies on white paper; palettes and 1-bit
pictures become colours and greys; colour becomes grey by Pillow's weights (299 R + 587 G + 114 B) /
1000, grey becomes colour by three equal channels. What bytes cannot hold is refused by name: 16
bits a channel, numbers out of range, NaN, animations. The turn that EXIF notes for a photograph,
colour profiles and gamma are left alone, as in torchmeta and torchvision.
"""

import io
import re
import warnings
from typing import TYPE_CHECKING

import numpy as np

from cml_bench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")  # of files; some others make Pillow start a program
_GREY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_WANTED = "integers 0..255, floats 0..1 or booleans are wanted"


def decode(
    picture: "bytes | Image",
    where: str,
    channels: int | None = None,
    side: int | None = None,
    resample: str = "BILINEAR",
) -> np.ndarray:
    """One picture, a file's content or a PIL image, as uint8 (channels, height, width).

    ``channels``: 1 grey, 3 colour; None: as the picture has it, where a palette is colour.
    ``side``: squash to a square of so many pixels a side, with Pillow's filter ``resample``.
    ``where`` names the picture in errors: a UserError if it is of a kind that bytes cannot hold. Of
    a damaged file whatever Pillow raises comes through, see
    :func:`cml_bench.data._archives.reading`.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of remarks on EXIF data and the like, which is not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            if isinstance(picture, bytes):
                picture = _opened(picture)
            plain = _plain(picture, where)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise UserError(
                f"{where} has more pixels than an image of a data set has: {error}"
            ) from None
    if channels is not None:
        plain = plain.convert("L" if channels == 1 else "RGB")
    if side is not None:
        plain = plain.resize((side, side), Image.Resampling[resample])
    array = np.asarray(plain)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _opened(content: bytes) -> "Image":
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    if picture.format != "PNG":
        return picture
    picture.verify()  # all checksums: to decode it, Pillow skips those of the pixels
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _plain(picture: "Image", where: str) -> "Image":
    """The picture in mode L or RGB, on white; a UserError for what has no plain meaning in
    bytes.
    """
    tile = str(
        getattr(picture, "tile", "")
    )  # how the file holds the pixels, as long as they are not read
    if picture.mode.startswith(("I", "F")) or (";16" in tile and "BGR;16" not in tile):
        raise UserError(
            f"{where} has more than 8 bits a channel (mode {picture.mode}): convert it to 8 bits."
        )
    if picture.mode not in _GREY + _COLOUR:
        raise UserError(
            f"{where} has the mode {picture.mode}: convert it to L (grey) or RGB (colour)."
        )
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # MPO: a JPEG file with previews behind the picture
        raise UserError(f"{where} is a sequence of {frames} pictures: give one picture.")
    if (few := re.search(r"'L;([24])'", tile)) and "transparency" in picture.info:
        picture = (
            picture.copy()
        )  # its greys are spread over 0..255, and Pillow leaves the transparent one as it was
        picture.info["transparency"] *= 255 // (2 ** int(few[1]) - 1)
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.mode in ("CMYK", "YCbCr", "HSV", "RGBX") or not picture.has_transparency_data:
        return picture.convert("L" if picture.mode in _GREY else "RGB")
    return _on_white(picture.convert("RGBA")).convert("L" if picture.mode in _GREY else "RGB")


def _on_white(picture: "Image") -> "Image":
    from PIL import Image

    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def as_bytes(values: np.ndarray, where: str) -> np.ndarray:
    """Numbers of any shape as uint8: integers 0..255 as they are, floats 0..1 times 255 and
    rounded, booleans 0 or 255.

    A UserError for any other number, or type; ``where`` names the array in it.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "biuf":
        raise UserError(f"{where} holds values of type {values.dtype}: {_WANTED}.")
    real = values.dtype.kind == "f"
    top = 1 if real else 255
    if values.dtype.kind != "b" and len(bad := values[~((values >= 0) & (values <= top))]):
        first = " (wrap a data set before it is normalised)" if real else ""
        raise UserError(f"{where} holds {bad[0]}, outside [0, {top}]: {_WANTED}{first}.")
    return (
        np.round(values * 255) if real else values * 255 if values.dtype == bool else values
    ).astype(np.uint8)
