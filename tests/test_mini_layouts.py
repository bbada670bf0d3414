"""MiniImagenet in other known layouts: the same data, or named for what it is."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from cml_bench.data.episodes import SPLITS
from tests.helpers import archives
from tests.helpers.image_sets import make
from tests.helpers.layouts import FORMS, folder_of, refused, zip_of
from tests.helpers.mini_layouts import LAYOUTS, labelled, listed, pictures, png, rows, unpacked


@pytest.mark.parametrize("layout", LAYOUTS)
def test_miniimagenet_in_another_layout_is_the_same_data(layout, tmp_path):
    expected = [
        (s, np.array(classes[n])) for s, classes in pictures().items() for n in sorted(classes)
    ]
    if layout == "labels without names":  # then classes are numbered in their order
        expected = [(s, images) for s, classes in pictures().items() for images in classes.values()]
    for number, form in enumerate(FORMS):
        if form == "without a top folder":
            continue
        path = FORMS[form](tmp_path / str(number), LAYOUTS[layout]())
        classes = list(make("miniimagenet").classes({"mini-imagenet.tar.gz": path}))
        assert [split for split, _ in classes] == [split for split, _ in expected]
        for (_, images), (_, wanted) in zip(classes, expected, strict=True):
            assert np.array_equal(images, wanted.transpose(0, 3, 1, 2))


def test_single_pickles_of_another_layout_are_named_by_their_split(tmp_path):
    data = make("miniimagenet")
    files = dict(zip(SPLITS, list(labelled().values())[:3], strict=True))
    folder_of(tmp_path, {f"{split}.pickle": held for split, held in files.items()})
    paths = {
        file.name: tmp_path / f"{s}.pickle" for s, file in zip(SPLITS, data.files, strict=True)
    }
    assert [split for split, _ in data.classes(paths)] == ["train"] * 2 + ["validation"] + [
        "test"
    ] * 2


def test_larger_photographs_are_squashed_as_mamls_script_does(tmp_path):
    large = Image.fromarray(archives.images(1, 1, 84)[0]).resize((500, 375))
    files = unpacked()
    first = next(iter(files))
    buffer = io.BytesIO()
    large.save(buffer, format="png")
    folder_of(tmp_path, {**files, first: buffer.getvalue()})
    assert first.startswith("train/n02/")
    train = [
        i
        for s, i in make("miniimagenet").classes({"mini-imagenet.tar.gz": tmp_path})
        if s == "train"
    ][1]
    wanted = np.asarray(large.resize((84, 84), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    assert np.array_equal(train[0], wanted)


def replaced(files: dict[str, bytes], **changes) -> dict[str, bytes]:
    return {
        name: changes.get(name.partition(".")[0], held)
        for name, held in files.items()
        if name not in changes
    }


def held(**changes) -> bytes:
    good = {"data": np.zeros((2, 84, 84, 3), np.uint8), "labels": [0, 1]}
    return pickle.dumps({k: v for k, v in {**good, **changes}.items() if v is not None})


WRONG = {
    "class folders without splits": (
        {"n01/a.jpg": b"", "n02/b.jpg": b""},
        r"holds 2 files \(n01/a.jpg.*Wanted are",
    ),
    "nothing": ({}, "holds no files. Wanted are three pickles"),
    "one list": ({"train.csv": b"filename,label\n"}, "and none of the validation split. Wanted"),
    "two pickles of a split": (
        {**rows(), "x/train.pkl": b""},
        r"holds 2 files of the train split \(mini-.*x/train",
    ),
    "other columns": (
        replaced(listed(), val=b"image,class\na,b\n"),
        "val.csv has the columns image, class; filename",
    ),
    "no columns": (
        replaced(listed(), val=b""),
        "val.csv has the columns none; filename and label are wanted",
    ),
    "an image that is not there": (
        replaced(listed(), val=b"filename,label\nx.jpg,a\n"),
        "names 'x.jpg', which is not",
    ),
    "an image twice": (
        replaced(listed(), val=b"filename,label\nn0300000000.png,a\nn0300000000.png,b\n"),
        "line 3 nam",
    ),
    "no label": (replaced(listed(), val=b"filename,label\nn0300000000.png\n"), "without a label"),
    "two images of a name": (
        {**listed(), "more/n0300000000.png": b""},
        "stands for images/n03.* and more/n03",
    ),
    "a list of bytes": (replaced(listed(), val=b"\xff\xfe\0"), "is damaged at val.csv"),
    "another dict": (
        dict.fromkeys(rows(), pickle.dumps({"x": 1, b"y": 2})),
        "split is a dict of x, y. A dict of im",
    ),
    "a list": (
        dict.fromkeys(rows(), pickle.dumps([1])),
        "its train split is a list. A dict of image_data and class_d",
    ),
    "too few labels": (dict.fromkeys(rows(), held(labels=[0])), "2 images with labels int64"),
    "a label without a name": (
        dict.fromkeys(rows(), held(catname2label={"n01": 0})),
        "KeyError: 1",
    ),
    "small images": (
        dict.fromkeys(rows(), held(data=np.zeros((2, 8, 8, 3), np.uint8))),
        r"images uint8 \(2, 8, 8, 3",
    ),
    "rows from the end": (
        dict.fromkeys(
            rows(),
            pickle.dumps(
                {"image_data": np.zeros((2, 84, 84, 3), np.uint8), "class_dict": {"a": [-1]}}
            ),
        ),
        "rows of classes that are neg",
    ),
    "a row in two classes": (
        dict.fromkeys(
            rows(),
            pickle.dumps(
                {
                    "image_data": np.zeros((2, 84, 84, 3), np.uint8),
                    "class_dict": {"a": [0], "b": [0]},
                }
            ),
        ),
        "or in two classes",
    ),
    "a class in two splits": (
        {**unpacked(), "test/n01/x.png": png(np.zeros((84, 84, 3), np.uint8))},
        "n01 is in two",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_miniimagenet_is_named_for_what_it_is(wrong, tmp_path):
    files, pattern = WRONG[wrong]
    (tmp_path / "copy").mkdir()
    refused("miniimagenet", folder_of(tmp_path / "copy", files), pattern)
    refused("miniimagenet", zip_of(tmp_path / "copy.zip", files), pattern)
