"""A repacked copy is known by a digest of its images that does not depend on their order."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cml_bench import registry
from cml_bench.data import prepared, references
from cml_bench.data._arrays import ImageArrays, hash_unordered
from cml_bench.data._source import RemoteFile, sha256_of
from cml_bench.data.prepared import LocalCopy
from cml_bench.data.references import FILE, Reference
from cml_bench.data.stored import ImageSet
from cml_bench.engine.run import run
from cml_bench.errors import UserError
from cml_bench.evidence.build import build
from cml_bench.records import read
from cml_bench.report import forms, summary, write
from tests.helpers.beside_paper import LEVEL, study
from tests.helpers.simulated import finish
from tests.helpers.specs import glyph_spec

ID = "glyphs/v1/28px"
SIZES = (3, 4, 3, 5)
SPLITS = {"train": [0, 1], "validation": [2], "test": [3]}


def arrays(classes=None, splits=None, group=1) -> ImageArrays:
    """Classes of small images, all of them different, in splits."""
    if classes is None:
        values = np.arange(sum(SIZES) * 8, dtype=np.uint8).reshape(-1, 2, 2, 2)
        classes = np.split(values, np.cumsum(SIZES)[:-1])
    return ImageArrays(
        np.concatenate(classes),
        np.array([len(part) for part in classes]),
        {name: np.array(numbers, int) for name, numbers in (splits or SPLITS).items()},
        group,
    )


def parts(whole: ImageArrays) -> list[np.ndarray]:
    return [part.copy() for part in np.split(whole.images, np.cumsum(whole.sizes)[:-1])]


@given(st.randoms(use_true_random=False))
def test_the_order_of_images_and_of_classes_does_not_count(random):
    whole = arrays()
    classes = [part[random.sample(range(len(part)), len(part))] for part in parts(whole)]
    order = random.sample(range(len(classes)), len(classes))
    splits = {
        name: random.sample([order.index(number) for number in numbers], len(numbers))
        for name, numbers in SPLITS.items()
    }
    shuffled = arrays([classes[number] for number in order], splits)
    assert hash_unordered(shuffled) == hash_unordered(whole)


def changed_pixel(classes):
    classes[1][2, 0, 1, 1] += 1


def image_in_another_class(classes):
    classes[0], classes[1] = classes[0][:-1], np.concatenate((classes[1], classes[0][-1:]))


def two_images_exchanged(classes):
    classes[0][0], classes[1][0] = classes[1][0].copy(), classes[0][0].copy()


def image_twice(classes):
    classes[2] = np.concatenate((classes[2], classes[2][:1]))


def image_twice_in_place_of_another(classes):
    classes[2][1] = classes[2][0]


def image_missing(classes):
    classes[3] = classes[3][1:]


def classes_of_two_splits_exchanged(classes):
    classes[0], classes[2] = classes[2], classes[0]


CHANGES = [
    changed_pixel,
    image_in_another_class,
    two_images_exchanged,
    image_twice,
    image_twice_in_place_of_another,
    image_missing,
    classes_of_two_splits_exchanged,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_other_data_has_another_digest(change):
    classes = parts(arrays())
    change(classes)
    assert hash_unordered(arrays(classes)) != hash_unordered(arrays())


def test_shape_and_groups_count():
    whole = arrays()
    flat = whole._replace(images=whole.images.reshape(-1, 1, 2, 4))
    assert hash_unordered(flat) != hash_unordered(whole)
    four = [np.arange(32, dtype=np.uint8).reshape(4, 2, 2, 2)]
    splits = {"train": [0]}
    pairs = hash_unordered(arrays(four, splits, group=2))
    assert hash_unordered(arrays([four[0][[2, 3, 0, 1]]], splits, group=2)) == pairs
    assert hash_unordered(arrays([four[0][[0, 2, 1, 3]]], splits, group=2)) != pairs


# -- prepared data


class Few(ImageSet):
    """Three classes from one file, in the order of its rows."""

    input_shape, smallest_class, image_count, name = (1, 2, 2), 3, 9, "few"
    class_counts = {"train": 1, "validation": 1, "test": 1}
    data_id = "few/v1"
    files = (RemoteFile("file", ("http://127.0.0.1:9/",), 0, md5="0" * 32),)

    def build(self, paths):
        with np.load(paths["file"]) as content:
            images, labels = content["images"], content["labels"]
        splits = {name: np.array([number]) for number, name in enumerate(self.class_counts)}
        rows = [images[labels == number] for number in range(3)]
        return ImageArrays(np.concatenate(rows), np.full(3, 3), splits)


def few(folder: Path, name: str, order) -> dict:
    """Prepare the images of :class:`Few` with its rows in this order; what the index says."""
    order, path = list(order), folder / f"{name}.npz"
    images = np.arange(36, dtype=np.uint8).reshape(9, 1, 2, 2)
    np.savez(path, images=images[order], labels=np.repeat(np.arange(3), 3)[order])
    own = {"file": LocalCopy(path=str(path), sha256=sha256_of(path))}
    Few(Few.Options()).prepare(folder / name, own)
    return prepared.index(folder / name, "few/v1")


@pytest.fixture
def known(monkeypatch):
    """Make a digest the reference of a data set."""

    def add(data_id, sha256, compared=False):
        made = {data_id: Reference(unordered_sha256=sha256, compared=compared, source="a test")}
        monkeypatch.setattr(references, "references", lambda: made)

    return add


def test_a_copy_in_another_order_has_the_digest_of_the_reference(tmp_path, known, capsys):
    first = few(tmp_path, "a", range(9))
    assert first["differs"] == "an own copy of the data, whose digest is not a published one"
    assert "not set against published ones" in capsys.readouterr().err
    known("few/v1", first["unordered_sha256"])
    again = few(tmp_path, "b", reversed(range(9)))
    assert again["sha256"] != first["sha256"], "episodes are drawn by number: this is another order"
    assert again["unordered_sha256"] == first["unordered_sha256"]
    assert again["differs"].startswith("a repacked copy")
    told = capsys.readouterr().err
    assert "a repacked copy" in told
    assert "not set against" not in told
    opened = Few(Few.Options()).open(tmp_path / "b", torch.device("cpu"), torch.float32)
    assert opened.unordered_sha256 == again["unordered_sha256"]


@pytest.mark.parametrize(
    ("other", "compared", "told"),
    [
        (False, False, "the published files have the reference digest"),
        (False, True, ""),
        (True, True, "references.json of the package has another: please report it"),
    ],
)
def test_who_has_the_published_files_compares_the_reference(
    tmp_path, known, capsys, monkeypatch, other, compared, told
):
    index = few(tmp_path, "a", range(9))
    capsys.readouterr()
    known("few/v1", "0" * 64 if other else index["unordered_sha256"], compared)
    (md5,) = (text for text in index["files"]["file"] if text.startswith("md5:"))
    file = RemoteFile("file", ("http://127.0.0.1:9/",), 0, md5=md5.removeprefix("md5:"))
    monkeypatch.setattr(Few, "files", (file,))
    (tmp_path / "a" / "prepared" / "few-v1" / "index.json").unlink()
    assert "differs" not in few(tmp_path, "a", range(9)), "this is the published file"
    err = capsys.readouterr().err
    assert told in err
    assert bool(told) is bool(err)


def test_an_index_of_an_earlier_version_stays_valid(tmp_path):
    few(tmp_path, "a", range(9))
    path = tmp_path / "a" / "prepared" / "few-v1" / "index.json"
    content = json.loads(path.read_text())
    del content["unordered_sha256"]
    path.write_text(json.dumps(content))
    before = path.stat().st_mtime_ns
    few(tmp_path, "a", range(9))
    assert path.stat().st_mtime_ns == before, "nothing is made anew"
    opened = Few(Few.Options()).open(tmp_path / "a", torch.device("cpu"), torch.float32)
    assert opened.unordered_sha256 == ""


def test_a_record_holds_the_digest_of_its_data(settings):
    record = run(glyph_spec(), settings)
    index = prepared.index(settings.data_dir, record.spec.data_id)
    assert record.data_unordered_sha256 == index["unordered_sha256"] != ""
    path = record.folder / "record.json"
    content = json.loads(path.read_text())
    del content["data_unordered_sha256"]
    path.write_text(json.dumps(content))
    assert read(record.folder).data_unordered_sha256 == ""


# -- verdicts

OWN = "an own copy of the data, whose digest is not a published one"
NOT_YET = "repacked copy, digest not yet compared with the published file"


def on_a_copy(folder, digest="1" * 64, seeds=range(6)):
    """A study whose records were made on an own copy with this digest."""
    resolved = study(folder)
    store = finish(resolved, folder / "r", LEVEL, 0.3)
    for path in (folder / "r" / "runs").glob("*/record.json"):
        content = json.loads(path.read_text())
        content["data_differs"] = OWN
        if digest and content["spec"]["seed"] in seeds:
            content["data_unordered_sha256"] = digest
        path.write_text(json.dumps(content))
    return resolved, store


@pytest.mark.parametrize(("compared", "said"), [(False, NOT_YET), (True, "repacked copy")])
def test_a_verdict_on_a_repacked_copy_says_so(tmp_path, known, compared, said):
    known(ID, "1" * 64, compared)
    resolved, store = on_a_copy(tmp_path)
    table = build(resolved, store, "beside")
    line = table.beside[0]
    assert (line.outcome, line.told) == ("reproduced", f"reproduced ({said})")
    assert table.beside[-1].told == table.beside[-1].reason, "without a verdict nothing is added"
    assert f"reproduced ({said})" in forms.text(table)
    assert sum(note.startswith(f"{said.capitalize()}: its images") for note in table.notes) == 1
    assert summary.tally([table])["reproduced"] == 2
    page = write.page(resolved, tmp_path / "r").read_text()
    assert f"</span> reproduced ({said})</td>" in re.sub("</?abbr[^>]*>", "", page)
    assert f"… ({said})" in page, "its provenance says no more than the verdict"


@pytest.mark.parametrize(
    ("digest", "seeds"), [("2" * 64, range(6)), ("", range(6)), ("1" * 64, range(5))]
)
def test_another_copy_has_no_verdict(tmp_path, known, digest, seeds):
    """Its digest is another one, its records are older, or one of six is."""
    known(ID, "1" * 64, True)
    table = build(*on_a_copy(tmp_path, digest, seeds), "beside")
    assert {line.outcome for line in table.beside if line.label == "MAML"} == {
        f"not comparable: {OWN}"
    }


def test_the_published_data_is_no_copy(tmp_path, known):
    known(ID, "1" * 64, True)
    resolved = study(tmp_path)
    table = build(resolved, finish(resolved, tmp_path / "r", LEVEL, 0.3), "beside")
    assert table.beside[0].told == "reproduced"


# -- the references


def test_the_references_are_of_data_sets_of_this_package():
    ids = {
        make(name, **options).data_id
        for name, options in (
            ("omniglot", {}),
            ("omniglot", {"rotations": True}),
            ("cifar_fs", {}),
            ("fc100", {}),
            ("vgg_flower", {}),
        )
    }
    assert set(references.references()) == ids
    assert not any(item.compared for item in references.references().values())


def make(name, **options):
    cls = registry.datasets.get(name)
    return cls(cls.Options(**options))


def test_a_wrong_reference_is_named(monkeypatch, tmp_path):
    path = tmp_path / FILE.name
    path.write_text(json.dumps({"few/v1": {"unordered_sha256": "x", "compared": False}}))
    monkeypatch.setattr(references, "FILE", path)
    with pytest.raises(UserError, match=r"few/v1: unordered_sha256: .*source: "):
        references.references.__wrapped__()
