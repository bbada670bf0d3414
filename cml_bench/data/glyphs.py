"""``glyphs``: characters of the DejaVu fonts, rendered as small images. Needs no download.

A class is a character, in 12 typefaces with 2 random jitters each. Support and query images of a
class come from different typefaces, so that matching pixels is not enough. This project made the
set and its random class split (65 / 15 / 20 % of the classes). The fonts come with matplotlib,
under the free licence of Bitstream Vera. ``_glyphs.py`` renders the images.
"""

from pathlib import Path

import numpy as np
from pydantic import Field

from cml_bench.data import _glyphs
from cml_bench.data.episodes import SPLITS
from cml_bench.data.stored import ImageArrays, ImageSet
from cml_bench.registry import datasets
from cml_bench.spec import Options


class GlyphOptions(Options):
    """The size of the images."""

    size: int = Field(28, ge=16, le=112, description="pixels per side")


@datasets.register("glyphs")
class Glyphs(ImageSet):
    """Grey images (1, size, size), 24 of each class. ``glyphs.json`` lists the class split."""

    Options = GlyphOptions
    options: GlyphOptions
    group = _glyphs.JITTERS
    smallest_class = len(_glyphs.FACES) * _glyphs.JITTERS

    def __init__(self, options: GlyphOptions):
        super().__init__(options)
        self.input_shape = (1, options.size, options.size)
        self.class_list = _glyphs.load_class_list()
        self.class_counts = {split: len(self.class_list[split]) for split in SPLITS}

    @property
    def data_id(self) -> str:
        """Name, version of the rendering and of the class split, and size."""
        return f"glyphs/v{_glyphs.VERSION}/{self.options.size}px"

    def build(self, paths: dict[str, Path]) -> ImageArrays:
        """Render all images: the classes of training, then of validation, then of test."""
        images = _glyphs.render(self.class_list, self.options.size)
        classes, faces, jitters = images.shape[:3]
        ends = np.cumsum([self.class_counts[split] for split in SPLITS])
        splits = dict(zip(SPLITS, np.split(np.arange(classes), ends[:-1]), strict=True))
        flat = images.reshape(classes * faces * jitters, *self.input_shape)
        return ImageArrays(flat, np.full(classes, faces * jitters), splits, group=jitters)
