"""``aircraft``: 10,000 photographs of 100 variants of aircraft (Maji et al. 2013).

torchvision reads them. The classes are split as in the code of BOIL, 70 / 15 / 15.
"""

from pathlib import Path

from pydantic import Field
from torch.utils.data import ConcatDataset
from torchvision.datasets import FGVCAircraft
from torchvision.transforms import InterpolationMode, Resize

from cml_bench.data import class_lists
from cml_bench.data.stored import ImageArrays, ImageSet
from cml_bench.data.wrap import wrap
from cml_bench.errors import UserError
from cml_bench.registry import datasets
from cml_bench.spec import Options

_ADDRESS = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"


class AircraftOptions(Options):
    """Where the photographs are, and the size of the images."""

    root: str = Field(
        "data/own",
        json_schema_extra={"left_out": True},
        description="the folder that holds fgvc-aircraft-2013b; it is no part of a run's id",
    )
    size: int = Field(32, ge=16, le=128, description="pixels per side (32 in BOIL and CML)")


@datasets.register("aircraft")
class Aircraft(ImageSet):
    """Colour images (3, size, size), 100 of each variant."""

    Options = AircraftOptions
    options: AircraftOptions
    class_counts = {"train": 70, "validation": 15, "test": 15}
    smallest_class = 100

    def __init__(self, options: AircraftOptions):
        super().__init__(options)
        self.input_shape = (3, options.size, options.size)

    @property
    def data_id(self) -> str:
        """Name, split and size."""
        return f"aircraft/boil/{self.options.size}px"

    def build(self, paths: dict[str, Path]) -> ImageArrays:
        """All images as bytes, class by class. The parts of the photographs do not matter here."""
        folder = Path(self.options.root) / "fgvc-aircraft-2013b"
        if not folder.is_dir():
            raise UserError(
                f"aircraft: there is no folder {folder}. Fetch {_ADDRESS} and unpack it in `root`,"
                f" which is {self.options.root}; or correct `root`."
            )
        squash = Resize((self.options.size,) * 2, InterpolationMode.BICUBIC)
        parts = [
            FGVCAircraft(self.options.root, part, annotation_level="variant", transform=squash)
            for part in ("trainval", "test")
        ]
        names = class_lists.read(class_lists.path_of("aircraft"))
        numbers = {
            split: [parts[0].class_to_idx[name] for name in of_split]
            for split, of_split in names.items()
        }
        return wrap(ConcatDataset(parts), numbers).arrays
