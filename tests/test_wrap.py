"""``wrap()``: shapes, labels and splits.

Pixels are in test_decoding.py, a first use of ``wrap`` in test_data.py.
"""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from cml_bench.data.wrap import wrap
from cml_bench.errors import UserError
from tests.helpers.pictures import saved

PICTURE = np.arange(64, dtype=np.uint8).reshape(8, 8)
SOURCE = [(PICTURE, c) for c in (7, 8, 9) for _ in range(2)]


@pytest.mark.parametrize(
    ("splits", "pattern"),
    [
        ({"val": [7]}, "unknown split 'val'.*Known: test, train, validation"),
        ({"valid": [7]}, "unknown split 'valid'"),
        ({"Train": [7]}, "unknown split 'Train'. Did you mean 'train'"),
        ({0: [7]}, "unknown split '0'"),
        ({"train": [7, 8], "test": [8, 9]}, "test split: class 8 is in the train split too"),
        ({"validation": [9], "test": [9]}, "test split: class 9 is in the validation split too"),
        ({"train": [7, 8, 7]}, "train split: class 7 is twice in it"),
        ({"train": 7}, "train split is '7': a list of classes"),
        ({"train": "789"}, "a list of classes is wanted"),
        ({"train": [7.5]}, "a class of the train split is '7.5'"),
        ({"train": ["7"]}, "a class of the train split is '7'"),
        ([[7], [8], [9]], "splits is of <class 'list'>: a dict is wanted"),
    ],
)
def test_splits_are_refused_by_name(splits, pattern):
    with pytest.raises(UserError, match=pattern):
        wrap(SOURCE, splits)


@pytest.mark.parametrize(
    "classes", [np.array, torch.tensor, tuple, set, lambda c: [float(x) for x in c]]
)
def test_splits_are_any_list_of_numbers(classes):
    data = wrap(SOURCE, {"train": classes([9, 7]), "test": classes([8])})
    assert data.class_counts == {"train": 2, "validation": 0, "test": 1}
    assert data.arrays.splits["train"].tolist() == [0, 2]


@pytest.mark.parametrize(
    "label", ["cat", "3", None, 1.5, float("nan"), [1, 0], np.array([0, 1]), torch.zeros(5), 1j]
)
def test_a_class_is_a_whole_number(label):
    with pytest.raises(
        UserError, match=re.escape(f"the class of image 1 is {str(label)[:40]!r}: an integer")
    ):
        wrap([(PICTURE, 0), (PICTURE, label)])


@pytest.mark.parametrize(
    "label", [3, np.int8(3), np.array([3]), torch.tensor(3), torch.tensor([3]), 3.0]
)
def test_whole_numbers_of_every_kind_are_classes(label):
    assert wrap([(PICTURE, label), (PICTURE, 3)]).arrays.sizes.tolist() == [2]


@pytest.mark.parametrize(
    ("images", "pattern"),
    [
        (
            [np.zeros((4, 4)), PICTURE],
            r"image 1 has shape \(1, 8, 8\), image 0 \(1, 4, 4\): resize",
        ),
        (
            [Image.new("L", (8, 8)), Image.new("P", (8, 8))],
            "convert them to one number of channels",
        ),
        ([PICTURE[0]], r"image 0 has shape \(8,\); \(H, W\), \(H, W, C\)"),
        ([PICTURE[:0]], "no pixels"),
        ([Image.new("L", (0, 0))], "no pixels"),
        (["a.png"], "image 0 holds values of type <U5"),
        ([[[1, 2], [3]]], "image 0 is a list of rows of different lengths"),
        ([None], "of type object"),
        ([torch.zeros(8, 8, 3)], r"of a tensor \(C, H, W\) is needed: permute it"),
        ([np.zeros((8, 8, 8))], "the axis of the channels is unclear"),
        ([PICTURE // 64 + (PICTURE > 9)], "the brightest value of all images is 1 of 255"),
        (
            [np.linspace(0, 1 / 255, 64).reshape(8, 8)],
            "the brightest value of all images is 1 of 255",
        ),
        (
            [Image.open(io.BytesIO(saved(Image.fromarray(PICTURE))[:-30]))],
            r"image 0 cannot be decoded \(OSError",
        ),
    ],
)
def test_images_are_refused_by_number(images, pattern):
    with pytest.raises(UserError, match=pattern):
        wrap([(image, 0) for image in images])


@pytest.mark.parametrize(
    "source", [None, 7, {(0, 0)}, iter([(PICTURE, 0)])], ids=lambda x: str(type(x))
)
def test_a_source_has_a_length_and_items(source):
    with pytest.raises(UserError, match=r"the source is of <class .* a list of pairs .* is wanted"):
        wrap(source)


@pytest.mark.parametrize(
    "item", [7, (PICTURE,), (PICTURE, 0, 1), {"image": PICTURE}], ids=lambda x: str(type(x))
)
def test_items_are_pairs(item):
    with pytest.raises(UserError, match=r"item 1 of the source .* a pair"):
        wrap([(PICTURE, 0), item])


def test_a_class_of_one_value_is_refused_by_name():
    for value in (0, 255, (9, 8, 7)):
        picture = np.broadcast_to(np.array(value, np.uint8), (8, 8, 3))
        with pytest.raises(
            UserError, match=rf"all images of class 8 are one constant value, {np.ravel(value)[0]}"
        ):
            wrap([(np.stack([PICTURE] * 3, -1), 7), (picture, 8), (picture, 8)])


def test_the_axis_of_the_channels_is_found():
    for shape, channels in (
        ((3, 8, 6), 3),
        ((8, 6, 3), 3),
        ((8, 6, 4), 4),
        ((4, 8, 6), 4),
        ((2, 8, 6), 2),
        ((8, 8, 1), 1),
        ((1, 8, 8), 1),
        ((8, 9, 5), 5),
        ((2, 5, 3), 3),
    ):
        array = np.random.default_rng(0).random(shape)
        images = wrap([(array, 0)]).arrays.images
        assert images.shape[1] == channels
        last = shape[2] == channels and shape[0] != channels
        assert np.array_equal(
            images[0], np.round((array.transpose(2, 0, 1) if last else array) * 255)
        )


def test_tensors_of_every_kind_are_read():
    plain = torch.from_numpy(PICTURE)[None]
    real = (plain / 255).requires_grad_()
    for x in (
        plain,
        plain.long(),
        real,
        real.double(),
        plain.permute(0, 2, 1).contiguous().permute(0, 2, 1),
    ):
        assert np.array_equal(wrap([(x, 0)]).arrays.images[0], plain)
    assert np.abs(wrap([(real.bfloat16(), 0)]).arrays.images[0].astype(int) - PICTURE).max() <= 1
    assert wrap([(plain > 9, 0)]).arrays.images.max() == 255
