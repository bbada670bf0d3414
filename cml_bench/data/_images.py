"""The one place where pictures and arrays of numbers become the bytes of images.

Pictures are converted where the meaning is clear. A transparent picture is laid on white. A palette
becomes colour, and 1 bit becomes grey. Colour becomes grey by Pillow's weights, (299 R + 587 G +
114 B) / 1000, and grey becomes colour by three equal channels. A UserError refuses what bytes
cannot hold: 16 bits a channel, numbers out of range, NaN, animations. EXIF's turn of a photograph,
colour profiles and gamma are ignored, as in torchmeta and torchvision. PIL is imported only when it
is needed.
"""

import io
import re
import warnings
from typing import TYPE_CHECKING

import numpy as np

from cml_bench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

# The file formats that are read. For some others Pillow would start a program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
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

    ``channels``: 1 is grey, 3 is colour, None is what the picture has (a palette is colour).
    ``side``: squash the picture to a square of so many pixels a side, with Pillow's filter
    ``resample``. A UserError names ``where`` if bytes cannot hold the picture. For a damaged file
    Pillow's own errors come through: see :func:`cml_bench.data._archives.reading`.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about EXIF data and the like, which is not used
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


def check_picture(content: bytes, where: str) -> None:
    """A UserError if a file's content is no picture, without decoding its pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its size too, which `decode` tells
        try:
            _opened(content)
        except Exception as error:  # Pillow raises all sorts on what is no picture
            said = " ".join(str(error).split())
            raise UserError(
                f"{where} is no picture ({said}): move it out of the folder, or mend it."
            ) from None


def _opened(content: bytes) -> "Image":
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    if picture.format != "PNG":
        return picture
    picture.verify()  # checks all checksums; when Pillow decodes, it skips those of the pixels
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _plain(picture: "Image", where: str) -> "Image":
    """The picture in mode L or RGB, laid on white. A UserError if bytes cannot hold it."""
    # How the file holds the pixels. Pillow forgets it when it has read them.
    tile = str(getattr(picture, "tile", ""))
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
        # Pillow spreads greys of 2 or 4 bits over 0..255, but leaves the transparent one's number.
        picture = picture.copy()
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
    """Numbers of any shape as uint8.

    Integers 0..255 stay, floats 0..1 are multiplied by 255 and rounded, booleans become 0 and 255.
    A UserError for any other number or type; it names the array by ``where``.
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
