"""Writes small folders of images, as a user has them, and configurations that read them."""

from pathlib import Path

import numpy as np
from PIL import Image

from cml_bench.data.loader import open_data
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve

EIGHT = {f"c{number}": 4 + number for number in range(8)}
HALVES = {"train": 0.5, "validation": 0.25, "test": 0.25}
FOLDERS = {"split_by": "folders"}
SPLITS = {"train": 3, "val": 2, "test": 2}  # folder of the split -> its classes


def picture(path: Path, seed: int) -> None:
    """A colour picture of 20x18 pixels, which differs with the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (18, 20, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def classes(root: Path, counts: dict[str, int], first: int = 0) -> None:
    """A folder for each class with so many pictures; ``first``: the seed of the first of them."""
    for number, (name, count) in enumerate(counts.items()):
        for i in range(count):
            picture(root / name / f"p{i}.png", first + 100 * number + i)


def lists(root: Path, labels: dict[str, list[str]]) -> None:
    """The list of each split: all pictures of these class folders, labelled by the folder."""
    for split, names in labels.items():
        rows = [f"{file.name},{n}" for n in names for file in sorted((root / n).iterdir())]
        (root / f"{split}.csv").write_text("\n".join(["filename,label", *rows, ""]))


def study(root: Path, home: Path, **options) -> dict:
    """A configuration of one MAML run at 2-way 1-shot on the folder."""
    experiment = {
        "data": "image_folder",
        "data_options": {"root": str(root), "size": 16, **options},
        "network": "conv4",
        "network_options": {"filters": 4},
        "way": 2,
        "shots": [1],
        "query": 2,
        "steps": 2,
        "protocol_options": {"val_every": 2, "val_tasks": 2},
        "evaluation": {"tasks": 3, "query": 2},
        "methods": {"maml": {}},
    }
    return {
        "study": "own",
        "seeds": 1,
        "results": str(home / "results"),
        "data_dir": str(home / "data"),
        "experiments": {"e": experiment},
    }


def planned(root: Path, home: Path, **options):
    """The plan of that study."""
    return resolve(parse(study(root, home, **options), "my.yaml"), "my.yaml")


def opened(root: Path, home: Path, **options):
    """The prepared and opened data set."""
    return open_data("image_folder", home / "data", root=str(root), size=16, **options)


def eight(tmp_path: Path) -> Path:
    """Eight classes of 4 to 11 images."""
    classes(tmp_path / "images", EIGHT)
    return tmp_path / "images"


def in_splits(tmp_path: Path) -> Path:
    """The folders train, val and test, whose smallest classes have 5, 3 and 4 images."""
    root = tmp_path / "images"
    classes(root / "train", {"a": 5, "b": 6, "c": 7})
    classes(root / "val", {"d": 5, "e": 3}, 1000)
    classes(root / "test", {"f": 4, "g": 9}, 2000)
    return root
