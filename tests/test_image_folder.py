"""``image_folder``: how a user's own images are read and split, and what cannot be taken."""

import importlib
import itertools
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cml_bench import registry
from cml_bench.data.loader import open_data
from cml_bench.errors import UserError
from cml_bench.study import preflight
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers import own_images
from tests.helpers.checkouts import ROOT
from tests.helpers.own_images import (
    EIGHT,
    FOLDERS,
    HALVES,
    classes,
    eight,
    in_splits,
    lists,
    opened,
    planned,
)

root, split_folders = pytest.fixture(eight), pytest.fixture(in_splits)


def test_pictures_become_arrays_as_asked(root, tmp_path):
    data = opened(root, tmp_path, mode="L", resampling="bicubic", shares=HALVES)
    assert data.class_counts == {"train": 4, "validation": 2, "test": 2}
    assert data.arrays.images.shape == (sum(EIGHT.values()), 1, 16, 16)
    name, _ = data.counts["test"][1]
    number = data.arrays.splits["test"][1]
    got = data.arrays.images[data.starts[number] :][: EIGHT[name]]
    want = [
        np.asarray(Image.open(file).convert("L").resize((16, 16), Image.Resampling.BICUBIC))
        for file in (root / name).iterdir()
    ]
    assert {x.tobytes() for x in got} == {x.tobytes() for x in want}
    with Image.open(root / "c0" / "p0.png") as other:
        assert other.size == (20, 18), "the user's pictures are only read"


def test_shares_draw_the_classes_by_their_seed(root, tmp_path):
    def names(**options):
        return [
            sorted(name for name, _ in of)
            for of in opened(root, tmp_path, **options).counts.values()
        ]

    drawn = names(shares=HALVES)
    assert [len(split) for split in drawn] == [4, 2, 2]
    assert sorted(itertools.chain(*drawn)) == sorted(EIGHT)
    assert names(shares=HALVES) == drawn
    assert names(shares=HALVES, split_seed=1) != drawn
    few = names(shares=HALVES, least_images=8)
    assert sorted(itertools.chain(*few)) == ["c4", "c5", "c6", "c7"]


def test_lists_split_as_those_of_miniimagenet_do(root, tmp_path):
    # Names need to be unique where a list gives no folder.
    for folder in sorted(root.iterdir()):
        for file in sorted(folder.iterdir()):
            file.rename(root / folder.name / f"{folder.name}{file.name}")
    lists(root, {"train": ["c0", "c1"], "val": ["c2", "c3"], "test": ["c4", "c6"]})
    data = opened(root, tmp_path, split_by="csv")
    assert [sorted(of) for of in data.counts.values()] == [
        [("c0", 4), ("c1", 5)],
        [("c2", 6), ("c3", 7)],
        [("c4", 8), ("c6", 10)],
    ]
    apart = tmp_path / "lists"
    apart.mkdir()
    for path in root.glob("*.csv"):
        shutil.move(path, apart)
    assert opened(root, tmp_path, split_by="csv", lists=str(apart)).data_id == data.data_id
    (apart / "test.csv").write_text("filename,label\nc0p0.png,c4\n")
    with pytest.raises(UserError, match=r"test.csv, line 2 names c0/c0p0.png, which was named bef"):
        planned(root, tmp_path, split_by="csv", lists=str(apart))
    (apart / "test.csv").write_text("filename,label\nc7p0.png,c3\n")
    with pytest.raises(UserError, match=r"the class 'c3' is in two splits, val.csv and test.csv"):
        planned(root, tmp_path, split_by="csv", lists=str(apart))
    (apart / "test.csv").write_text("file,label\nc7p0.png,c3\n")
    with pytest.raises(UserError, match="has the columns file, label: filename and label are want"):
        planned(root, tmp_path, split_by="csv", lists=str(apart))
    (apart / "test.csv").write_text("filename,label\nnone.png,c7\n")
    with pytest.raises(UserError, match=r"line 2 names 'none.png', which is not there in"):
        planned(root, tmp_path, split_by="csv", lists=str(apart))
    (apart / "test.csv").unlink()
    with pytest.raises(UserError, match=r"test.csv is not there: `split_by: csv` takes the test"):
        planned(root, tmp_path, split_by="csv", lists=str(apart))


def test_the_smallest_class_of_the_split_limits_its_episodes(split_folders, tmp_path):
    data = opened(split_folders, tmp_path, **FOLDERS)
    for split, most in (("train", 5), ("validation", 3), ("test", 4)):
        data.check(split, 2, 1, most - 1)
        with pytest.raises(UserError, match=f"the smallest class of the {split} split, has {most}"):
            data.check(split, 2, 1, most)
    content = own_images.study(split_folders, tmp_path, **FOLDERS)
    content["experiments"]["e"]["query"] = 3
    with pytest.raises(UserError, match="'e', the smallest class of the validation split, has 3"):
        resolve(parse(content, "my.yaml"), "my.yaml")
    content["experiments"]["e"]["way"] = 4
    with pytest.raises(UserError, match="way 4 is impossible, the train split has 3 classes"):
        resolve(parse(content, "my.yaml"), "my.yaml")


def test_classes_that_are_too_small_are_left_out_and_told(root, tmp_path, capsys):
    data = opened(root, tmp_path, shares=HALVES, least_images=6)
    assert sum(data.class_counts.values()) == 6
    left_out = "2 classes with fewer than 6 images left out: c0, c1"
    assert left_out in capsys.readouterr().err
    thirds = {"train": 0.34, "validation": 0.33, "test": 0.33}
    data = opened(root, tmp_path, shares=thirds, least_images=6)
    asked = planned(root, tmp_path, shares=thirds, least_images=6)
    assert preflight.told_of_data(asked) == [f"{data.data_id}: {left_out}"]


def test_one_picture_in_two_places_is_told(root, tmp_path, capsys):
    shutil.copy(root / "c2" / "p0.png", root / "c2" / "again.png")
    shutil.copy(root / "c2" / "p1.png", root / "c5" / "other.png")
    opened(root, tmp_path, shares=HALVES)
    said = capsys.readouterr().err
    assert (
        "4 files have the content of another one, so one picture may be support and query" in said
    )
    assert "c2/again.png" in said


def test_any_number_of_classes_is_split_whole(tmp_path):
    classes(tmp_path / "one", {"a": 1})
    with pytest.raises(UserError, match="way 2 is impossible, the train split has 1 classes"):
        planned(tmp_path / "one", tmp_path)


def _file_in_class(root):
    (root / "train" / "a" / "notes.txt").write_text("these are birds")


def _cut_picture(root):
    path = root / "test" / "f" / "p0.png"
    path.write_bytes(path.read_bytes()[:-40])


def _class_twice(root):
    classes(root / "test", {"a": 3}, 5000)


def _no_validation(root):
    shutil.rmtree(root / "val")


def _empty(root):
    shutil.rmtree(root)
    root.mkdir()
    (root / ".DS_Store").write_bytes(b"x")


def _empty_class(root):
    (root / "test" / "z").mkdir()


def _file(root):
    shutil.rmtree(root)
    root.write_text("")


def _dangling(root):
    (root / "test" / "f" / "p9.png").symlink_to("nowhere.png")


@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        (_file_in_class, FOLDERS, r"a/notes.txt is no picture \(no PNG, JPEG, .* image\): move it"),
        (_cut_picture, FOLDERS, r"f/p0.png is no picture \("),
        (_class_twice, FOLDERS, "the class 'a' is in two splits, test and train: it may be in one"),
        (_no_validation, FOLDERS, "has no folder val or validation with a folder for each class"),
        (_empty, FOLDERS, "holds no files"),
        (_empty_class, FOLDERS, r"test/z holds no images: put them there, or remove the folder"),
        (_file, FOLDERS, "is no folder: `root` names the folder"),
        (_dangling, FOLDERS, r"is a link to nowhere.png, which is not there"),
        (None, {}, "holds the folders test, train, val, which are splits: set `split_by: folders`"),
        (None, {**FOLDERS, "least_images": 10}, "no class has `least_images: 10`; .* has 9"),
        (None, {"shares": {"trian": 0.6}}, "unknown key 'shares.trian'"),
        (None, {"shares": {"train": 0.9}}, "the shares add up to 1.26: they must add up to 1"),
        (
            None,
            {"split_by": "hand"},
            "split_by: Input should be 'shares', 'csv', 'folders' or 'class",
        ),
        (None, {"root": ""}, "name the folder of your images as `root`"),
        (None, {"root": "nowhere"}, "there is no folder nowhere, and .*prepared has nothing"),
        (None, {**FOLDERS, "sha256": "0" * 64}, "holds other images than those asked for"),
    ],
)
def test_what_cannot_be_taken_is_told_before_anything_runs(
    spoil, options, said, split_folders, tmp_path
):
    if spoil:
        spoil(split_folders)
    content = own_images.study(split_folders, tmp_path)
    content["experiments"]["e"]["data_options"] |= options
    with pytest.raises(UserError, match=said) as error:
        resolve(parse(content, "my.yaml"), "my.yaml")
    told = str(error.value)
    assert told.startswith("my.yaml, experiment 'e'")
    assert "\n" not in told
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "results").exists()


def test_a_picture_whose_pixels_are_damaged_leaves_nothing_behind(split_folders, tmp_path):
    path = split_folders / "test" / "f" / "p0.jpg"
    with Image.open(path.with_suffix(".png")) as noise:
        noise.resize((64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"f/p0.jpg cannot be decoded \(.*\): mend it, or move it"):
        opened(split_folders, tmp_path, **FOLDERS)
    assert not list((tmp_path / "data").rglob("index.json"))
    assert not list((tmp_path / "data").rglob("*.npy"))


def test_damaged_arrays_are_made_anew(split_folders, tmp_path):
    data = opened(split_folders, tmp_path, **FOLDERS)
    file = data.folder(tmp_path / "data") / "images.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    del data
    file.write_bytes(content)
    index = file.with_name("index.json")
    index.write_text(index.read_text().replace('"counts"', '"count"'))
    again = opened(split_folders, tmp_path, **FOLDERS)
    assert again.open(tmp_path / "data", torch.device("cpu"), torch.float32).sha256


def blocks(language):
    """The code blocks of the section in docs/data.md."""
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    section = text[text.index("## Your own images") : text.index("## Terms of use")]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


def test_the_study_in_the_docs_is_whole(tmp_path):
    classes(tmp_path / "birds", dict.fromkeys("abcdefghijklmnopqrstuvwxy", 20))
    (text,) = blocks("yaml")
    assert "~/birds" in text
    content = yaml.safe_load(text.replace("~/birds", str(tmp_path / "birds")))
    whole = resolve(parse(content, "birds.yaml"), "birds.yaml")
    assert len(whole.runs) == 20
    assert len(whole.cells) == 4


def test_the_plug_in_of_the_docs_wraps_a_set_of_torchvision(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (30, 16, 16), np.uint8)
    source = [(Image.fromarray(x), i % 10) for i, x in enumerate(noise)]
    monkeypatch.setattr("torchvision.datasets.USPS", lambda folder, download: source)
    monkeypatch.setattr(registry.datasets, "_entries", dict(registry.datasets._entries))
    (text,) = blocks("python")
    assert len(text[text.index("@") :].splitlines()) <= 10
    (tmp_path / "usps_plug_in.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("usps_plug_in")
    data = open_data("usps", tmp_path / "data")
    assert data.class_counts == {"train": 4, "validation": 3, "test": 3}
    assert {x.tobytes() for x in data.arrays.images} == {x.tobytes() for x in noise}
    data.check("test", 3, 1, 2)
