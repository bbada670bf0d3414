"""``image_folder``: published lists of classes, copies of Hugging Face's sets, shipped studies."""

import io
import itertools
import json
import os
import subprocess
import sys

import datasets as hugging_face
import numpy as np
import pytest
from PIL import Image

from cml_bench import registry
from cml_bench.data import class_lists
from cml_bench.data.episodes import SPLITS
from cml_bench.data.loader import open_data
from cml_bench.errors import UserError
from cml_bench.study.config import merged, parse
from cml_bench.study.resolve import resolve
from tests.helpers.checkouts import ROOT
from tests.helpers.outside import alone  # noqa: F401 (a fixture: no plug-in stays for other tests)
from tests.helpers.own_images import classes, opened, planned

# Classes of train, validation and test, as those who published the splits count them.
PUBLISHED = {
    "aircraft": (70, 15, 15),
    "cars": (98, 49, 49),
    "cub": (100, 50, 50),
    "tiered_imagenet": (351, 97, 160),
}
SIX = {"A/B": 3, "c 1": 4, "d": 5, "e": 6, "f": 3, "g": 4}
LISTS = {"train": ["A/B", "d"], "val": ["C-1", "e"], "test": ["f", "g"]}


@pytest.fixture
def root(tmp_path):
    """Six classes and one that no list names."""
    folders = {name.replace("/", "_"): count for name, count in SIX.items()}
    classes(tmp_path / "images", {**folders, "other": 2})
    return tmp_path / "images"


@pytest.fixture
def lists(tmp_path):
    path = tmp_path / "lists.json"
    path.write_text(json.dumps(LISTS))
    return path


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_list_has_the_classes_that_are_published(name):
    assert class_lists.shipped() == sorted(PUBLISHED)
    path = class_lists.path_of(name)
    assert tuple(len(of_split) for of_split in class_lists.read(path).values()) == PUBLISHED[name]
    assert len(json.loads(path.read_text())["source"]) > 50


def test_a_list_of_classes_splits_a_folder(root, lists, tmp_path):
    data = opened(root, tmp_path, split_by="classes", lists=str(lists))
    assert {split: sorted(of_split) for split, of_split in data.counts.items()} == {
        "train": [("A/B", 3), ("d", 5)],
        "validation": [("C-1", 4), ("e", 6)],
        "test": [("f", 3), ("g", 4)],
    }
    # A change of the list alone is another set.
    lists.write_text(json.dumps({**LISTS, "test": ["g", "other"]}))
    assert opened(root, tmp_path, split_by="classes", lists=str(lists)).data_id != data.data_id


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "lists.json is no JSON"),
        ("[]", "lists.json must map train, validation and test"),
        (
            json.dumps({**LISTS, "tset": []}),
            "lists.json: unknown split 'tset'. Did you mean 'test'",
        ),
        (json.dumps({**LISTS, "val": []}), "lists.json: validation must be a list of names"),
        (json.dumps({"train": ["d"], "test": ["e"]}), "validation must be a list of names"),
        (
            json.dumps({**LISTS, "validation": ["e"]}),
            "lists.json has val and validation, which are one split: leave one out",
        ),
        (
            json.dumps(LISTS)[:-1] + ', "test": ["other"]}',
            "lists.json has the key 'test' twice: leave one out",
        ),
        (
            json.dumps({**LISTS, "test": ["f", "a b"]}),
            "has the classes 'A/B' and 'a b', which are both the folder 'A_B' of .*: leave one out",
        ),
        (
            json.dumps({**LISTS, "train": ["a-b"], "test": ["f", "A_B"]}),
            "has the classes 'a-b' and 'A_B', which are both the folder 'A_B' of .*: leave one out",
        ),
        (
            json.dumps({**LISTS, "val": ["d", "e"]}),
            "has the class 'd' twice, in the splits train and validation",
        ),
        (
            json.dumps({**LISTS, "test": ["f", "h", "i"]}),
            r"lacks 2 of the 7 classes of .*lists.json: h, i; it has A_B, c 1, d, …",
        ),
    ],
)
def test_a_list_that_cannot_be_taken_is_told(content, said, root, lists, tmp_path):
    lists.write_text(content)
    with pytest.raises(UserError, match=said) as error:
        planned(root, tmp_path, split_by="classes", lists=str(lists))
    assert "\n" not in str(error.value)


def test_a_list_that_is_not_there_names_those_that_are(root, tmp_path):
    with pytest.raises(
        UserError, match=r"`lists: cup` is no file: .* one of aircraft, cars, cub, "
    ):
        planned(root, tmp_path, split_by="classes", lists="cup")


def test_a_folder_that_is_named_exactly_comes_before_those_alike(root, lists, tmp_path):
    classes(root, {"A-B": 2, "a b": 1}, first=5000)
    said = "has the classes 'A-B' and 'A_B', which are one name but for signs, and .* has 'A/B'"
    with pytest.raises(UserError, match=said):
        planned(root, tmp_path, split_by="classes", lists=str(lists))
    # With two of the three named, the third is meant by the name that is left.
    lists.write_text(json.dumps({**LISTS, "test": ["f", "a b", "A-B"]}))
    counts = opened(root, tmp_path, split_by="classes", lists=str(lists)).counts
    assert sorted(counts["train"]) == [("A/B", 3), ("d", 5)]
    assert sorted(counts["test"]) == [("A-B", 2), ("a b", 1), ("f", 3)]


# ---- Hugging Face


def tables(root, label="label"):
    """The folder's images as tables with their files' bytes; two splits, each with every class."""
    names = sorted(folder.name for folder in root.iterdir())
    kinds = hugging_face.Features(
        {"image": hugging_face.Image(), label: hugging_face.ClassLabel(names=names), "n": _number()}
    )
    rows = {"train": [], "test": []}
    for number, name in enumerate(names):
        for i, file in enumerate(sorted((root / name).iterdir())):
            row = {"image": {"bytes": file.read_bytes(), "path": None}, label: number, "n": i}
            rows["train" if i % 2 else "test"].append(row)
    return hugging_face.DatasetDict(
        {
            split: hugging_face.Dataset.from_list(of_split, features=kinds)
            for split, of_split in rows.items()
        }
    )


def _number():
    return hugging_face.Value("int64")


@pytest.fixture
def parquet(root, tmp_path):
    folder = tmp_path / "parquet"
    for split, table in tables(root).items():
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


OF_ITS_CLASSES = {"split_by": "classes", "reads": "hugging_face"}


def test_a_copy_of_hugging_face_is_the_same_set_as_a_folder(root, parquet, lists, tmp_path):
    plain = opened(root, tmp_path, split_by="classes", lists=str(lists))
    other = tmp_path / "other"
    data = opened(parquet, other, **OF_ITS_CLASSES, lists=str(lists))
    assert data.data_id == plain.data_id
    assert data.sha256 == plain.sha256
    assert data.counts == plain.counts
    # The copy on disk as arrow, and the folder as the library itself reads it.
    tables(root, "kind").save_to_disk(tmp_path / "arrow")
    arrow = planned(tmp_path / "arrow", other, **OF_ITS_CLASSES, lists=str(lists), label="kind")
    folder = planned(root, other, **OF_ITS_CLASSES, lists=str(lists))
    first = planned(root, other, split_by="classes", lists=str(lists))
    assert len({run.id for one in (arrow, folder, first) for run in one.runs}) == 1


def test_parts_of_a_copy_are_taken_alone(parquet, lists, tmp_path, capsys):
    altered = tables(tmp_path / "images")["test"]
    altered.to_parquet(parquet / "data" / "contrast-00000-of-00001.parquet")
    given = {**OF_ITS_CLASSES, "lists": str(lists)}
    data = opened(parquet, tmp_path, **given, parts=["train", "test"])
    assert {name: count for of in data.counts.values() for name, count in of}["A/B"] == SIX["A/B"]
    assert "image_folder: 1 part left out: contrast\n" in capsys.readouterr().err
    opened(parquet, tmp_path, reads="hugging_face", parts=["test"], least_images=2)
    told = capsys.readouterr().err
    assert "2 parts left out: contrast, train; 1 class with fewer than 2 images left out" in told
    # The option is no part of an id: the same photographs without the altered part are the same.
    (parquet / "data" / "contrast-00000-of-00001.parquet").unlink()
    assert opened(parquet, tmp_path, **given).sha256 == data.sha256
    ids = [
        {run.id for run in planned(parquet, tmp_path, **given, **more).runs}
        for more in ({}, {"parts": ["test", "train"]})
    ]
    assert ids[0] == ids[1]


def test_what_was_prepared_before_there_were_parts_is_found(root, tmp_path):
    data = opened(root, tmp_path)
    (index,) = (tmp_path / "data" / "prepared").glob("image_folder-*/index.json")
    content = json.loads(index.read_text())
    content["asked"].pop("parts", None)
    index.write_text(json.dumps(content))
    root.rename(tmp_path / "elsewhere")
    assert opened(root, tmp_path).sha256 == data.sha256


def test_the_library_writes_nothing_into_the_home_folder(parquet, lists, tmp_path):
    (tmp_path / "home").mkdir()
    options = {"root": str(parquet), "size": 16, **OF_ITS_CLASSES, "lists": str(lists)}
    program = (
        "from cml_bench.data.loader import open_data;"
        f" open_data('image_folder', 'data', **{options})"
    )
    env = {**os.environ, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=env, cwd=tmp_path)
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not list(tmp_path.glob("cml_bench-hugging-face-*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"label": "lable"},
            "has the columns image, label, n: one of images and 'lable' ",
        ),
        (
            {"split_by": "csv"},
            "`split_by: csv` names files: with `reads: hugging_face` use",
        ),
        ({"split_by": "folders"}, "the class 'A_B' is in two splits"),
        ({"parts": ["train", "tset"]}, "has no part 'tset': `parts` takes some of test, train"),
        (
            {"reads": "folders", "parts": ["train"]},
            "`parts` is of `reads: hugging_face`: set that, or leave `parts` out",
        ),
        ({"root": ROOT / "tests"}, "tests is no data set that the package datasets can read"),
    ],
)
def test_a_copy_that_cannot_be_taken_is_told(options, said, parquet, lists, tmp_path):
    with pytest.raises(UserError, match=said) as error:
        planned(
            *(options.pop("root", parquet), tmp_path),
            **{**OF_ITS_CLASSES, "lists": str(lists), **options},
        )
    assert "\n" not in str(error.value)


def test_without_the_library_the_extra_is_named(parquet, lists, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs the package datasets: pip install 'cml_bench\[hug"):
        planned(parquet, tmp_path, **OF_ITS_CLASSES, lists=str(lists))


# ---- the shipped studies


def pictures(name):
    """A pair of unlike pictures for each class of a published list, and its name."""
    names = class_lists.read(class_lists.path_of(name))
    for number, one in enumerate(sorted(itertools.chain(*names.values()))):
        for i in range(2):
            # Apart by 16 and more, since JPEG changes colours a little.
            colour = (number % 16 * 16, number // 16 % 16 * 16, number // 256 * 80 + 40 * i)
            yield one, Image.new("RGB", (20, 18), colour)


def bird_folders(root, name):
    """CUB and ImageNet: a folder for each class."""
    for number, (one, picture) in enumerate(pictures(name)):
        (root / one).mkdir(parents=True, exist_ok=True)
        picture.save(root / one / f"{number}.jpg", quality=100, subsampling=0)


def cars(root, name):
    """The hub's copy of Stanford Cars: parquet, with the names of the classes.

    Photographs of both parts have all classes, and further parts hold altered ones.
    """
    rows = []
    for one, picture in pictures(name):
        file = io.BytesIO()
        picture.save(file, format="png")
        rows.append({"image": {"bytes": file.getvalue(), "path": None}, "label": one})
    names = hugging_face.ClassLabel(names=sorted({row["label"] for row in rows}))
    kinds = hugging_face.Features({"image": hugging_face.Image(), "label": names})
    for row in rows:
        row["label"] = names.str2int(row["label"])
    for part, of_part in {"train": rows[::2], "test": rows[1::2], "contrast": rows[1::2]}.items():
        table = hugging_face.Dataset.from_list(of_part, features=kinds)
        table.to_parquet(root / "data" / f"{part}-00000-of-00001.parquet")


def aircraft(root, name):
    """The published archive of FGVC-Aircraft, unpacked."""
    data = root / "fgvc-aircraft-2013b" / "data"
    (data / "images").mkdir(parents=True)
    lines = {"trainval": [], "test": []}
    for number, (one, picture) in enumerate(pictures(name)):
        picture.save(data / "images" / f"{number:07}.jpg", quality=100, subsampling=0)
        lines["test" if number % 2 else "trainval"].append(f"{number:07} {one}")
    for part, of_part in lines.items():
        (data / f"images_variant_{part}.txt").write_text("\n".join(of_part))
    names = sorted({line.partition(" ")[2] for line in lines["test"]})
    (data / "variants.txt").write_text("\n".join(names))


COPIES = {
    "cub": bird_folders,
    "tiered_imagenet": bird_folders,
    "cars": cars,
    "aircraft": aircraft,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_study_reads_a_copy_of_its_set(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    root = tmp_path / "copy"
    COPIES[name](root, name)
    content = merged([f"configs/images/{name}.yaml"])
    (experiment,) = content["experiments"].values()
    assert experiment["data_options"]["root"].startswith("data/own")
    experiment["data_options"] |= {"root": str(root), "size": 16}
    experiment |= {"shots": [1], "query": 1, "evaluation": {"query": 1, "tasks": 10}}
    content |= {"results": str(tmp_path / "results"), "data_dir": str(tmp_path / "data")}
    study = resolve(parse(content, name), name)
    assert len(study.runs) == 5 * (4 + 1)  # four methods and the untrained floor
    spec = study.runs[0].spec.data
    monkeypatch.setattr(registry.datasets.get(spec.name), "smallest_class", 2)
    data = open_data(spec.name, tmp_path / "data", **spec.options, **spec.paths)
    assert tuple(data.class_counts[split] for split in SPLITS) == PUBLISHED[name]
    images = data.arrays.images.reshape(-1, 3 * 16 * 16)
    assert len(np.unique(images, axis=0)) == len(images) == 2 * sum(PUBLISHED[name])


def test_without_the_photographs_the_folder_and_the_address_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    content = merged(["configs/images/aircraft.yaml"])
    parse(content, "aircraft")  # uses the plug-in
    said = (
        r"no folder .*empty/fgvc-aircraft-2013b\. Fetch https://\S*tar\.gz and unpack it in `root`"
    )
    with pytest.raises(UserError, match=said):
        open_data("aircraft", tmp_path / "data", root=str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("splits", "odd", "said"),
    [
        (True, "bullet_train", r"bullet_train/.*png is read twice, since a folder's name is taken"),
        (False, "bullet-train", r"'label' are wanted.* set `reads: folders`, which"),
    ],
)
def test_a_class_whose_name_is_taken_for_a_split_is_refused(splits, odd, said, tmp_path):
    root = tmp_path / "images"
    for place, split in enumerate(("train", "validation", "test")):
        named = {f"{split[:2]}{n}": 4 for n in range(3)} | ({odd: 4} if split == "train" else {})
        classes(root / split if splits else root, named, 1000 * place)
    options = {"split_by": "folders"} if splits else {}
    assert opened(root, tmp_path, **options).counts, "as folders it can be taken"
    with pytest.raises(UserError, match=said):
        opened(root, tmp_path, reads="hugging_face", **options)
