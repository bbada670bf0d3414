"""Prepared data and archives that are damaged: named by training, mended by fetching."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cml_bench import registry
from cml_bench.__main__ import main
from cml_bench.data._source import sha256_of
from cml_bench.data.omniglot import Omniglot
from cml_bench.data.stored import ImageArrays
from cml_bench.errors import UserError
from cml_bench.registry import datasets
from cml_bench.spec import canonical
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.cases import said
from tests.helpers.checkouts import ROOT
from tests.helpers.damage import flip
from tests.helpers.omniglot import without_the_end
from tests.helpers.plans import dumped
from tests.helpers.specs import glyph_spec
from tests.helpers.studies import study

DAMAGE = {
    "other data": lambda index: index.update(data_id="glyphs/v1/28px"),
    "another order of the splits": lambda index: index.update(
        splits={k: v[::-1] for k, v in index["splits"].items()}
    ),
    "splits that are none": lambda index: index.update(splits=[1]),
    "no groups": lambda index: index.update(group=0),
    "another size": lambda index: index["sizes"].append(1),
}


def edited(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def own_data(data_dir, tmp_path) -> Path:
    """A copy of the prepared glyphs, to be damaged."""
    shutil.copytree(data_dir, tmp_path / "data")
    return tmp_path / "data"


def opened(folder: Path):
    cls = registry.datasets.get("glyphs")
    return cls(cls.Options(size=16)).open(folder, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_index_is_noticed_by_training_and_mended_by_fetch(
    damage, own_data, tmp_path, capsys
):
    before, home = opened(own_data).sha256, own_data / "prepared" / "glyphs-v1-16px"
    edited(home / "index.json", damage)
    (tmp_path / "spec.json").write_text(json.dumps(canonical(glyph_spec())))
    folders = ("--results", str(tmp_path / "results"), "--data-dir", str(own_data))
    text = said(capsys, "train", str(tmp_path / "spec.json"), *folders)
    assert f"the prepared data in {home} is damaged" in text
    assert "Move the folder away and run `python -m cml_bench fetch glyphs" in text
    assert not list(tmp_path.glob("results/runs/*/record.json"))
    assert main(["fetch", "glyphs", "--options", '{"size": 16}', "--data-dir", str(own_data)]) == 0
    assert opened(own_data).sha256 == before


def test_whole_data_is_not_made_again(own_data, monkeypatch):
    cls = registry.datasets.get("glyphs")
    monkeypatch.setattr(cls, "build", lambda self, paths: pytest.fail("made again"))
    cls(cls.Options(size=16)).prepare(own_data)


def test_fetch_names_a_damaged_archive_and_leaves_nothing(tmp_path, capsys):
    copies = {}
    for file in Omniglot.files:
        path = tmp_path / file.name
        shutil.make_archive(str(path.with_suffix("")), "zip", ROOT / "configs")
        without_the_end(path)
        copies[file.name] = {"path": str(path), "sha256": sha256_of(path)}
    resolved = resolve(
        parse(study(sources={"omniglot": copies}, data_dir=str(tmp_path / "data")), "t"), "t"
    )
    (tmp_path / "plan.json").write_text(dumped(resolved))
    stamp = tmp_path / "data" / "ready.json"
    text = said(
        capsys,
        *("fetch", "omniglot", "--options", "{}"),
        *("--plan", str(tmp_path / "plan.json"), "--stamp", str(stamp)),
    )
    assert f"{tmp_path / 'images_background.zip'} is damaged (BadZipFile" in text
    assert not [path for path in (tmp_path / "data").rglob("*.*") if path.name != ".lock"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda home: (home / "images.npy").unlink(),
        lambda home: flip(home / "images.npy", -1),
        lambda home: (home / "images.npy").write_bytes((home / "images.npy").read_bytes()[:-9]),
        lambda home: (home / "index.json").write_text("{"),
        lambda home: (home / "index.json").write_text("{}"),
    ],
)
def test_damaged_arrays_are_noticed_named_and_made_anew(damage, tmp_path):
    import torch

    class Tiny(datasets.get("glyphs")):
        name = "tiny"
        made = 0

        def build(self, paths):
            type(self).made += 1
            images = np.arange(2 * 3 * 256, dtype=np.uint8).reshape(6, 1, 16, 16)
            splits = {"train": np.array([0]), "validation": np.array([1]), "test": np.array([1])}
            return ImageArrays(images, np.array([3, 3]), splits)

    data = Tiny(Tiny.Options(size=16))
    data.prepare(tmp_path)
    home = data.folder(tmp_path)
    data.open(tmp_path, torch.device("cpu"), torch.float32)
    before = data.sha256
    damage(home)
    if (home / "index.json").exists():
        with pytest.raises(UserError, match=r"the prepared data in .* is damaged .*makes it anew"):
            Tiny(data.options).open(tmp_path, torch.device("cpu"), torch.float32)
    data.prepare(tmp_path)
    assert Tiny.made == 2
    assert Tiny(data.options).open(tmp_path, torch.device("cpu"), torch.float32).sha256 == before
