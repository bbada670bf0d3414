"""Small archives with Omniglot's tree of folders."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def archive(path: Path, characters: list[tuple[str, str, int]], drawings: int = 20) -> None:
    """A zip with the author's tree of folders.

    Every drawing is a bar whose place depends on its class.
    """
    with zipfile.ZipFile(path, "w") as file:
        for number, (name, alphabet, character) in enumerate(characters):
            for drawing in range(1, drawings + 1):
                pixels = np.full((105, 105), 255, np.uint8)
                pixels[10 + number : 20 + number, 5 : 20 + drawing] = 0
                buffer = io.BytesIO()
                Image.fromarray(pixels).convert("1").save(buffer, format="png")
                file.writestr(
                    f"{name}/{alphabet}/character{character:02d}/{number:04d}_{drawing:02d}.png",
                    buffer.getvalue(),
                )


def without_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])
