"""Picture files: written by Pillow, or by hand as PNGs that Pillow does not write."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Of PNG's colour types: grey, colour, palette, grey with alpha, colour with alpha.
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def saved(picture: Image.Image, form: str = "png", **options: Any) -> bytes:
    """The content of the picture's file."""
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png(bits: int, kind: int, samples: np.ndarray, transparency: int | None = None) -> bytes:
    """A PNG of the samples (H, W) or (H, W, C), with ``bits`` bits each.

    ``transparency`` is the grey value that is clear.
    """
    height, width = samples.shape[:2]
    rows = np.asarray(samples).reshape(height, -1)
    assert rows.shape[1] == width * CHANNELS[kind]
    packed = [b"\x00" + _packed(row, bits) for row in rows]
    clear = b"" if transparency is None else chunk(b"tRNS", struct.pack(">H", transparency))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return (
        SIGNATURE
        + header
        + clear
        + chunk(b"IDAT", zlib.compress(b"".join(packed)))
        + chunk(b"IEND", b"")
    )


def _packed(row: np.ndarray, bits: int) -> bytes:
    if bits == 16:
        return row.astype(">u2").tobytes()
    ones = (row[:, None].astype(np.uint8) >> np.arange(bits - 1, -1, -1, dtype=np.uint8)) & 1
    return np.packbits(ones.reshape(-1)).tobytes()


def chunks(content: bytes) -> list[int]:
    """The offsets of the chunks of a PNG, and the end of the last one."""
    places = [len(SIGNATURE)]
    while places[-1] < len(content):
        places.append(
            places[-1] + 12 + struct.unpack(">I", content[places[-1] : places[-1] + 4])[0]
        )
    return places
