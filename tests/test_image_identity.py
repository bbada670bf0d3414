"""``image_folder``: content identifies a user's own images, not the place, names or lists."""

import json
import shutil

import pytest

import cml_bench
from cml_bench.data.loader import EpisodeLoader, open_data
from cml_bench.engine.build import Settings
from cml_bench.engine.run import run
from cml_bench.errors import UserError
from cml_bench.records import Store
from cml_bench.study import bundle, plan
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers import own_images
from tests.helpers.own_images import (
    FOLDERS,
    HALVES,
    eight,
    in_splits,
    opened,
    picture,
    planned,
)
from tests.helpers.simulated import LEVEL, finish

root, split_folders = pytest.fixture(eight), pytest.fixture(in_splits)


def test_place_and_names_do_not_count_but_content_does(split_folders, tmp_path):
    other = tmp_path / "elsewhere"
    for split in ("train", "val", "test"):
        for number, folder in enumerate(sorted((split_folders / split).iterdir(), reverse=True)):
            for i, file in enumerate(sorted(folder.iterdir(), reverse=True)):
                place = other / split / f"{split}{number}" / f"{i}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place)
    one, two = (planned(path, tmp_path, **FOLDERS) for path in (split_folders, other))
    assert one.runs[0].id == two.runs[0].id
    assert one.data[0].data_id == two.data[0].data_id
    a, b = (
        opened(split_folders, tmp_path / "1", **FOLDERS),
        opened(other, tmp_path / "2", **FOLDERS),
    )
    assert a.sha256 == b.sha256, "equal sets give equal episodes"
    assert a.unordered_sha256 == b.unordered_sha256
    picture(other / "val" / "val0" / "0.png", 7)
    three = planned(other, tmp_path, **FOLDERS)
    assert three.runs[0].id != one.runs[0].id, "another picture is another set"
    picture(split_folders / "val" / "d" / "more.png", 7)
    assert planned(split_folders, tmp_path, **FOLDERS).runs[0].id != one.runs[0].id


def test_what_leads_to_the_same_split_does_not_count(root, tmp_path):
    """The digest says which images each split has, so a colleague's lists give the same runs."""
    one = planned(root, tmp_path, shares=HALVES).runs[0].id
    assert planned(root, tmp_path, shares=HALVES, least_images=2).runs[0].id == one
    drawn = opened(root, tmp_path, shares=HALVES)
    by_name = {split: [name for name, _ in of] for split, of in drawn.counts.items()}
    own = tmp_path / "mine.json"
    own.write_text(json.dumps(by_name))
    assert planned(root, tmp_path, split_by="classes", lists=str(own)).runs[0].id == one
    for split, names in by_name.items():
        for name in names:
            home = {"validation": "val"}.get(split, split)
            shutil.copytree(root / name, tmp_path / "split" / home / name)
    assert planned(tmp_path / "split", tmp_path, **FOLDERS).runs[0].id == one
    assert planned(root, tmp_path, shares=HALVES, split_seed=1).runs[0].id != one


def test_no_path_is_in_an_id_or_a_record(split_folders, tmp_path):
    whole = planned(split_folders, tmp_path, **FOLDERS)
    spec = whole.runs[0].spec
    assert not {"root", "lists"} & set(spec.data.options)
    assert whole.data[0].options["root"] == str(split_folders), "the one who fetches knows it"
    assert str(split_folders) not in json.dumps(whole.json_values()["runs"])
    moved = spec.model_copy(update={"data": spec.data.model_copy(update={"paths": {}})})
    assert moved.id == spec.id


def test_a_prepared_set_needs_no_folder(split_folders, tmp_path):
    whole = planned(split_folders, tmp_path, **FOLDERS)
    opened(split_folders, tmp_path, **FOLDERS)
    shutil.rmtree(split_folders)
    again = planned(split_folders, tmp_path, **FOLDERS)
    assert again.runs[0].id == whole.runs[0].id
    settings = Settings(
        results=tmp_path / "results", data_dir=tmp_path / "data", report=lambda text: None
    )
    record = run(whole.runs[0].spec, settings)
    assert record.data_sha256 == opened(split_folders, tmp_path, **FOLDERS).sha256
    learner = cml_bench.load(record.folder)
    data = opened("", tmp_path, **FOLDERS, sha256=whole.data[0].options["sha256"])
    task = next(iter(EpisodeLoader(data, 2, 1, 2, batch_size=1, split="test")))
    (x, y), (queries, _) = task["train"], task["test"]
    answers = learner.adapt(x[0], y[0]).predict(queries[0])
    assert len(answers) == 4
    with pytest.raises(UserError, match=r"there is no folder .* has nothing that"):
        planned(split_folders, tmp_path, **FOLDERS, resampling="lanczos")
    split_folders.mkdir()  # as where a disk is not mounted
    assert planned(split_folders, tmp_path, **FOLDERS).runs[0].id == whole.runs[0].id


def test_a_bundle_has_the_digest_so_its_tables_need_no_images(split_folders, tmp_path):
    asked = own_images.study(split_folders, tmp_path, **FOLDERS)
    whole = resolve(parse(asked, "my.yaml"), "my.yaml")
    finish(whole, tmp_path / "theirs", LEVEL)
    bundle.write(whole, asked, tmp_path / "theirs", tmp_path / "study.zip")
    shutil.rmtree(split_folders)
    made = bundle.read_in(tmp_path / "study.zip", tmp_path / "mine")
    assert str(tmp_path) not in made.configuration.read_text()
    content = json.loads(made.configuration.read_text()) | {"data_dir": str(tmp_path / "data")}
    again = resolve(parse(content, "my.yaml"), "my.yaml")
    assert [spec.id for spec in again.specs.values()] == [spec.id for spec in whole.specs.values()]
    store = Store(tmp_path / "mine")
    assert all(store.usable(spec)[0] for spec in again.specs.values())
    with pytest.raises(UserError, match=r"`root` names no folder, .* not prepared in .* Correct"):
        open_data("image_folder", tmp_path / "data", **again.data[0].options)
    assert not (tmp_path / "data").exists()


def test_what_changes_in_the_folder_makes_a_new_plan(split_folders, tmp_path, monkeypatch):
    made = []

    def here(content, path, where):
        made.append(path)
        known = resolve(parse(content, where), where)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known.json_values()))
        return known

    monkeypatch.setattr(plan, "_resolved_apart", here)
    content = own_images.study(split_folders, tmp_path, **FOLDERS)
    one, two = plan.cached(content, "t"), plan.cached(content, "t")
    assert len(made) == 1
    assert one.runs[0].id == two.runs[0].id
    picture(split_folders / "test" / "g" / "more.png", 5)
    assert plan.cached(content, "t").runs[0].id != one.runs[0].id
    monkeypatch.setenv("PLACE", str(split_folders))
    content["experiments"]["e"]["data_options"]["root"] = "$PLACE"
    assert plan.cached(content, "t").data[0].options["root"] == str(split_folders)


def test_images_that_changed_after_planning_are_refused(split_folders, tmp_path):
    options = planned(split_folders, tmp_path, **FOLDERS).data[0].options
    picture(split_folders / "test" / "g" / "more.png", 5)
    with pytest.raises(UserError, match="holds other images than those asked for"):
        open_data("image_folder", tmp_path / "data", **options)
    assert not (tmp_path / "data" / "prepared").exists()
