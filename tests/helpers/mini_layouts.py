"""MiniImagenet in the layouts in which people pass it on."""

import io
import pickle

import numpy as np
from PIL import Image

from tests.helpers import archives

CLASSES = {"train": ("n02", "n01"), "validation": ("n03",), "test": ("n05", "n04")}
SHORT = {"train": "train", "validation": "val", "test": "test"}


def pictures() -> dict[str, dict[str, np.ndarray]]:
    """split -> class -> pictures (4, 84, 84, 3)."""
    return {
        s: {name: archives.images(int(name[1:]), 4, 84) for name in names}
        for s, names in CLASSES.items()
    }


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def labelled(names: bool = True) -> dict[str, bytes]:
    """The pickles ``{data, labels, catname2label}`` of each split.

    Labels are counted over all splits, and the classes are mixed.
    """
    files, first = {}, 0
    for split, classes in pictures().items():
        numbers = {name: first + i for i, name in enumerate(classes)}
        held = {
            "data": np.stack(list(classes.values()), axis=1).reshape(-1, 84, 84, 3),
            "labels": list(numbers.values()) * 4,
            "catname2label": numbers,
        }
        held = held if names else {key: held[key] for key in ("data", "labels")}
        phase = "_phase_train" * (split == "train")
        files[f"miniImageNet_category_split_{SHORT[split]}{phase}.pickle"] = pickle.dumps(held, 4)
        first += len(classes)
    more = pickle.dumps({"data": np.zeros((1, 84, 84, 3), np.uint8), "labels": [0]})
    return {**files, "miniImageNet_category_split_train_phase_val.pickle": more}


def rows() -> dict[str, bytes]:
    """The published pickles as Python 3 writes them, with bytes as names."""
    return {
        f"mini-imagenet-cache-{SHORT[split]}.pkl": pickle.dumps(
            {
                b"image_data": np.concatenate(list(classes.values())),
                b"class_dict": {
                    name.encode(): np.arange(4 * i, 4 * i + 4) for i, name in enumerate(classes)
                },
            }
        )
        for split, classes in pictures().items()
    }


def listed(head: str = "filename,label", end: str = "\n") -> dict[str, bytes]:
    """Ravi and Larochelle's lists, and one folder with all images."""
    files = {}
    for split, classes in pictures().items():
        lines = [head]
        for name, images in classes.items():
            for i, pixels in enumerate(images):
                files[f"images/{name}0000000{i}.png"] = png(pixels)
                lines.append(f"{name}0000000{i}.png,{name}")
        files[f"{SHORT[split]}.csv"] = (end.join(lines) + end).encode()
    return files


def unpacked(split_names: dict[str, str] = SHORT) -> dict[str, bytes]:
    return {
        f"{split_names[split]}/{name}/{name}0000000{i}.PNG": png(pixels)
        for split, classes in pictures().items()
        for name, images in classes.items()
        for i, pixels in enumerate(images)
    }


LAYOUTS = {
    "names and rows": rows,
    "labels": labelled,
    "labels without names": lambda: labelled(names=False),
    "lists": listed,
    "lists of Windows": lambda: listed("\ufefffilename,label", "\r\n"),
    "class folders": unpacked,
    "another name of a split": lambda: unpacked({**SHORT, "validation": "validation"}),
}
