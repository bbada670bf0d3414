"""``template``: images to start from; change what is marked (1)-(5), and this line.

The example draws its own images. A real set lists its ``files`` (see ``data/omniglot.py``). They
are fetched and verified, and ``build`` gets their paths. For regression and generated tasks see
``data/sinusoid.py``.
"""

from pathlib import Path

import numpy as np
from pydantic import Field

from cml_bench import seeding
from cml_bench.data.episodes import SPLITS
from cml_bench.data.stored import ImageArrays, ImageSet
from cml_bench.registry import datasets
from cml_bench.spec import Options


class TemplateOptions(Options):
    """(1) What a configuration may set under ``data_options``.

    An option that changes the data belongs into ``data_id``.
    """

    size: int = Field(16, ge=8, le=64, description="pixels per side")


@datasets.register("template")  # (2) the name
class Template(ImageSet):
    """(3) What the images show, the source, the licence, the class split and who made it."""

    Options = TemplateOptions
    options: TemplateOptions
    class_counts = {"train": 20, "validation": 10, "test": 10}  # (4) classes of each split
    smallest_class = 20  # images in the smallest class

    def __init__(self, options: TemplateOptions):
        super().__init__(options)
        self.input_shape = (1, options.size, options.size)

    @property
    def data_id(self) -> str:
        """Name, version and size. Raise the version when images or split change."""
        return f"template/v1/{self.options.size}px"

    def build(self, paths: dict[str, Path]) -> ImageArrays:
        """(5) All images as bytes, class by class: here a pattern for each class, with noise."""
        classes, size = sum(self.class_counts.values()), self.options.size
        u = seeding.uniform(seeding.words(seeding.key("template"), 0, classes * 21, size * size))
        u = u.reshape(classes, 21, 1, size, size)
        images = (255 * (0.7 * u[:, :1] + 0.3 * u[:, 1:])).astype(np.uint8)
        ends = np.cumsum([self.class_counts[split] for split in SPLITS])
        splits = dict(zip(SPLITS, np.split(np.arange(classes), ends[:-1]), strict=True))
        return ImageArrays(images.reshape(-1, *self.input_shape), np.full(classes, 20), splits)
