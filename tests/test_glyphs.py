"""The embedded image set: its committed class list and the rendering of its images."""

import json
import subprocess
import sys

import numpy as np
import pytest

from cml_bench.data import _glyphs

# A capital, the smallest sign, a descender, a wide letter, an arrow.
SOME = [ord(c) for c in "A.gЖ→"]


@pytest.fixture(scope="module")
def class_list():
    return _glyphs.load_class_list()


@pytest.fixture(scope="module")
def same_fonts(class_list):
    """Skip where fonts or FreeType may differ from those behind the committed list."""
    if class_list["versions"] != _glyphs.versions():
        pytest.skip(
            f"glyphs.json was made with {class_list['versions']}, here are {_glyphs.versions()}"
        )


@pytest.fixture(scope="module")
def cosines(same_fonts):
    """The similarities (n, n) of all candidates: the slow step of making a class list."""
    return _glyphs.similarity(_glyphs.candidates())


@pytest.fixture(scope="module")
def images():
    """The images of SOME, uint8 (5, 12, 2, 28, 28)."""
    return _glyphs.render(SOME)


def all_classes(class_list):
    return [point for split in _glyphs.SPLITS for point in class_list[split]]


def test_committed_list_is_reproduced(class_list, cosines, monkeypatch, tmp_path):
    monkeypatch.setattr(_glyphs, "similarity", lambda code_points: cosines)
    fresh = _glyphs.write_class_list(tmp_path / "fresh.json")
    assert fresh == class_list
    assert (tmp_path / "fresh.json").read_bytes() == _glyphs.CLASS_LIST.read_bytes()


def test_splits_are_disjoint_sorted_and_of_the_stated_shares(class_list):
    classes = all_classes(class_list)
    assert len(set(classes)) == len(classes)
    for split, share in _glyphs.SPLITS.items():
        assert class_list[split] == sorted(class_list[split])
        assert abs(len(class_list[split]) - share * len(classes)) <= 1


def test_every_candidate_is_a_class_or_merged_into_one(class_list, same_fonts):
    classes = set(all_classes(class_list))
    absorbed = [point for group in class_list["merged"] for point in group[1:]]
    assert all(group[0] in classes for group in class_list["merged"])
    assert sorted([*classes, *absorbed]) == _glyphs.candidates()


def test_lookalikes_of_several_scripts_are_one_class(class_list):
    groups = [set(group) for group in class_list["merged"]]
    assert any(
        {0x41, 0x391, 0x410} <= group for group in groups
    )  # Latin A, Greek Alpha, Cyrillic A
    assert 0x41 in all_classes(class_list)
    assert 0xE9 not in all_classes(class_list)  # an accented e


def test_no_two_classes_look_alike(class_list, cosines):
    rows = np.isin(_glyphs.candidates(), all_classes(class_list))
    between = cosines[np.ix_(rows, rows)]
    np.fill_diagonal(between, 0)
    assert between.max() < class_list["lookalike"]


def test_list_is_compact(class_list):
    text = _glyphs.CLASS_LIST.read_text(encoding="utf-8")
    assert len(text) < 100_000
    assert text.count("\n") < 20
    assert class_list["version"] == _glyphs.VERSION


def test_shape_range_and_determinism(images):
    assert images.shape == (5, 12, 2, 28, 28)
    assert images.dtype == np.uint8
    assert images.max() == 255  # ink
    assert np.median(images) < 30  # background
    assert np.array_equal(images, _glyphs.render(SOME))


def test_an_image_does_not_depend_on_its_neighbours(images, class_list):
    assert np.array_equal(_glyphs.render(SOME[3:]), images[3:])
    assert np.array_equal(_glyphs.render(SOME[::-1]), images[::-1])
    few = {split: class_list[split][:2] for split in _glyphs.SPLITS}
    assert np.array_equal(_glyphs.render(few), _glyphs.render(all_classes(few)))


def test_jitters_and_faces_differ(images):
    for character in images.reshape(len(SOME), -1, 28 * 28).astype(float):
        distance = np.abs(character[:, None] - character[None]).mean(axis=-1)
        np.fill_diagonal(distance, np.inf)
        # In grey levels; noise alone gives about 2 on the brighter half of the pixels.
        assert distance.min() > 1


def test_no_image_is_blank(class_list):
    images = _glyphs.render(all_classes(class_list)[::12]).reshape(-1, 28 * 28)
    ink = (images > 100).sum(axis=1)
    assert ink.min() >= 5
    assert ink.max() < 0.8 * 28 * 28


@pytest.mark.parametrize("size", [15, 84])
def test_other_sizes_show_the_same_picture(images, size):
    other = _glyphs.render(SOME, size)
    assert other.shape == (5, 12, 2, size, size)
    assert other.mean(axis=(3, 4)) == pytest.approx(images.mean(axis=(3, 4)), rel=0.2)


def test_pixels_need_learning(class_list):
    """A nearest neighbour on pixels, 5-way 1-shot across faces, is above chance: about 53 %."""
    classes = class_list["test"][::4]
    pixels = _glyphs.render(classes).reshape(len(classes), 12, 2, -1) / 255
    rng, correct = np.random.default_rng(0), []
    for _ in range(300):
        chosen, faces = rng.permutation(len(classes))[:5], rng.permutation(12)
        support, query = pixels[chosen, faces[0], 0], pixels[chosen, faces[1], 1]
        nearest = ((query[:, None] - support[None]) ** 2).sum(axis=-1).argmin(axis=1)
        correct.append((nearest == np.arange(5)).mean())
    assert 0.40 < np.mean(correct) < 0.62


def test_importing_is_cheap():
    """The module is imported wherever data sets are listed, so it must load little."""
    code = "import sys, json, cml_bench.data._glyphs; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    )
    assert not {"matplotlib", "PIL", "torch"} & set(loaded)
