"""The tasks that a run sees: stable, paired, and the same for every method."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cml_bench import seeding
from cml_bench.data.episodes import SPLITS, Episodes, draw_picks
from cml_bench.data.sinusoid import Sinusoid
from cml_bench.data.stored import ImageArrays
from cml_bench.data.wrap import Wrapped
from cml_bench.errors import UserError
from cml_bench.spec import Options
from tests.make_golden import first_episodes

GOLDEN = Path(__file__).parent / "golden" / "episodes.json"


def pictures(group: int = 1, classes: int = 12, each: int = 12) -> Wrapped:
    """A set in which image i has the constant value i (two bytes): tasks show what was drawn."""
    numbers = np.arange(classes * each)
    images = np.stack((numbers // 256, numbers % 256), 1).astype(np.uint8)[:, :, None, None]
    thirds = np.array_split(np.arange(classes), 3)
    arrays = ImageArrays(
        images, np.full(classes, each), dict(zip(SPLITS, thirds, strict=True)), group
    )
    data = Wrapped(arrays)
    data.group = group
    return data


def image_numbers(x: torch.Tensor) -> torch.Tensor:
    """The numbers (T, n) of images (T, n, 2, 1, 1) with values in [0, 1]."""
    codes = (x.flatten(2) * 255).round().long()
    return codes[..., 0] * 256 + codes[..., 1]


def sinusoid() -> Sinusoid:
    return Sinusoid(Options()).open(None, torch.device("cpu"), torch.float64)


def test_golden_first_three_of_each_kind():
    assert first_episodes() == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("make", [pictures, sinusoid])
def test_test_episodes_depend_on_their_index_only(make):
    data, way = make(), 1 if make is sinusoid else 3
    one = Episodes(data, "test", way, 2, 3)
    whole = one.batch(0, 600)
    for first, count in ((0, 1), (255, 2), (256, 1), (100, 413)):
        part = Episodes(data, "test", way, 2, 3).batch(first, count)
        for got, want in zip(part, whole.part(first, first + count), strict=True):
            assert torch.equal(got.x, want.x)
            assert torch.equal(got.y, want.y)


@pytest.mark.parametrize("make", [pictures, sinusoid])
def test_seeds_differ_in_training_and_agree_in_test(make):
    data, way = make(), 1 if make is sinusoid else 3
    train = [
        Episodes(data, "train", way, 2, 3, seed=seed).batch(0, 8).support.x for seed in (0, 1, 0)
    ]
    assert torch.equal(train[0], train[2])
    assert not torch.equal(train[0], train[1])
    for split in ("validation", "test"):
        with pytest.raises(ValueError, match="have none"):
            Episodes(data, split, way, 2, 3, seed=1)


def test_splits_use_their_own_classes():
    data = pictures()
    for split in SPLITS:
        seed = 0 if split == "train" else None
        x = Episodes(data, split, 4, 2, 3, seed=seed).batch(0, 50).query.x
        assert set((image_numbers(x) // 12).unique().tolist()) == set(
            data.arrays.splits[split].tolist()
        )


@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 2),
    st.integers(0, 10_000),
)
def test_every_episode_is_a_proper_task(way, shot, query, group, first):
    sizes = np.array([20, 14, 16, 20, 12, 18])
    if group == 2 and 2 * shot + query > 12:
        shot, query = 2, 3
    picks = (
        draw_picks(seeding.key("test"), first, 4, way, shot, query, sizes, group)
        if group == 1
        else None
    )
    if group == 2:
        picks = draw_picks(seeding.key("test"), first, 4, way, shot, query, np.full(6, 12), group)
        sizes = np.full(6, 12)
    for classes, support, query_ in zip(*picks, strict=True):
        assert len(set(classes.tolist())) == way
        for number, s, q in zip(classes, support, query_, strict=True):
            both = [*s.tolist(), *q.tolist()]
            assert len(set(both)) == shot + query, "an image is used twice"
            assert max(both) < sizes[number], "an image that the class has not"
            if group == 2:
                faces = {i // 2 for i in s.tolist()}
                assert len(faces) == shot
                assert not faces & {i // 2 for i in q.tolist()}, (
                    "a query shows the typeface of a support image"
                )


def test_choices_are_uniform():
    """Every class and image is drawn about equally often, within four standard errors.

    Classes have different sizes too.
    """
    sizes = np.array([5, 10, 10, 10])
    picks = draw_picks(seeding.key("uniform"), 0, 8000, 2, 1, 1, sizes, 1)
    counts = np.bincount(picks.classes.ravel(), minlength=4)
    assert np.all(np.abs(counts - 4000) < 4 * np.sqrt(4000 * 0.5))
    first = picks.support[picks.classes == 0][:, 0]
    assert np.all(
        np.abs(np.bincount(first, minlength=5) - len(first) / 5) < 4 * np.sqrt(len(first) * 0.16)
    )


def test_words_of_an_item_are_its_own():
    key = seeding.key("a", 1)
    whole = seeding.words(key, 0, 20, 7)
    assert np.array_equal(seeding.words(key, 13, 3, 7), whole[13:16])
    assert not np.array_equal(seeding.words(seeding.key("a", 2), 0, 20, 7), whole)
    assert seeding.key("ab") is not seeding.key("a", "b")
    assert not np.array_equal(seeding.key("ab"), seeding.key("a", "b"))


def test_smallest_is_a_sorted_choice():
    raw = seeding.words(seeding.key("s"), 0, 50, 31)
    assert np.array_equal(seeding.smallest(raw, 5), np.argsort(raw, axis=1)[:, :5])
    with pytest.raises(ValueError, match="cannot choose 32 of 31"):
        seeding.smallest(raw, 32)


def test_sinusoid_tasks_are_what_they_say():
    task = Episodes(sinusoid(), "test", 1, 5, 7).batch(0, 2000)
    x, y = (
        torch.cat((task.support.x, task.query.x), 1),
        torch.cat((task.support.y, task.query.y), 1),
    )
    assert x.min() >= -5
    assert x.max() <= 5
    assert abs(x.mean()) < 0.1
    key = Episodes(sinusoid(), "test", 1, 5, 7).key
    for i in (0, 1999):
        amplitude, phase = Sinusoid.truth(key, i, 5, 7)
        assert torch.allclose(y[i], amplitude * torch.sin(x[i] - phase), atol=1e-12)
    assert y.abs().amax() <= 5
    # E[y^2] = E[A^2]/2 with A uniform in [0.1, 5], up to the average of the sine's square over x
    assert abs(y.square().mean() - (5**3 - 0.1**3) / (3 * 4.9) / 2) < 0.3


@pytest.mark.parametrize(
    ("way", "shot", "query", "message"),
    [
        (5, 1, 1, "way 5 is impossible, the test split has 4 classes"),
        (2, 10, 3, "10 support and 3 query images"),
    ],
)
def test_impossible_episodes_are_refused(way, shot, query, message):
    with pytest.raises(UserError, match=message):
        Episodes(pictures(), "test", way, shot, query)
