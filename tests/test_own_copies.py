"""A user's own copies of data are never taken for other copies or for the published data."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cml_bench import registry
from cml_bench.__main__ import main
from cml_bench.costs import estimate
from cml_bench.data import prepared, stored
from cml_bench.data._source import RemoteFile, sha256_of
from cml_bench.data.loader import open_data
from cml_bench.data.prepared import LocalCopy
from cml_bench.data.stored import ImageArrays, ImageSet
from cml_bench.engine import checkpoint
from cml_bench.engine.run import extend, run
from cml_bench.errors import UserError
from cml_bench.records import Store
from cml_bench.study import config, cost, plan, preflight
from cml_bench.study.resolve import resolve
from tests.helpers import archives
from tests.helpers.checkouts import snakemake, trained
from tests.helpers.plans import dumped
from tests.helpers.specs import glyph_spec

ID, KEY = "cifar_fs/bertinetto/32px", "cifar_fs-bertinetto-32px"
TERMS = "the terms of use of CIFAR-FS are not acknowledged"


def study(folder: Path, **more) -> dict:
    experiment = {
        "data": "cifar_fs",
        "network": "conv4",
        "network_options": {"filters": 2},
        "shots": [1],
        "query": 2,
        "steps": 2,
        "methods": {"maml": {}},
        "protocol_options": {"val_every": 2, "val_tasks": 2},
        "evaluation": {"tasks": 3, "query": 2},
    }
    table = {
        "kind": "accuracy",
        "experiment": "e",
        "title": "T",
        "rows": [{"label": "MAML", "run": "maml"}],
    }
    fixed = {
        "study": "own",
        "seeds": 1,
        "experiments": {"e": experiment},
        "tables": {"table1": table},
    }
    return {**fixed, "data_dir": str(folder / "data"), "results": str(folder / "results"), **more}


def resolved(content: dict) -> dict:
    return estimate.add(resolve(config.parse(content, "t"), "t"))


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> list[dict]:
    """Two pieces of configuration, each of which names a miniature of CIFAR-100."""
    sources = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp(f"copy{seed}")
        sources.append(
            archives.sources({"cifar_fs": archives.cifar100(folder, train=3, test=1, seed=seed)})
        )
    return sources


def fetch(content: dict, folder: Path) -> tuple[int, dict]:
    """Run `fetch` with the study's plan: its exit code and the stamp."""
    folder.mkdir(exist_ok=True)
    (folder / "plan.json").write_text(dumped(resolved(content)))
    stamp = folder / "data" / "ready" / f"{KEY}.json"
    code = main(["fetch", "cifar_fs", "--plan", str(folder / "plan.json"), "--stamp", str(stamp)])
    return code, json.loads(stamp.read_text())


@pytest.fixture
def offline(monkeypatch):
    """Make every download an error."""
    original = stored.obtain_all

    def only_own(files, downloads, own, room):
        if missing := [file.name for file in files if file.name not in own]:
            raise UserError(f"{missing[0]} would be downloaded")
        return original(files, downloads, own, room)

    monkeypatch.setattr(stored, "obtain_all", only_own)


def test_another_copy_is_prepared_anew_and_the_same_is_not(copies, tmp_path, monkeypatch):
    one, two = (study(tmp_path, **copy) for copy in copies)
    stamps = [fetch(content, tmp_path)[1] for content in (one, two)]
    assert stamps[0]["data_id"] == stamps[1]["data_id"] == ID
    assert stamps[0]["sha256"] != stamps[1]["sha256"]
    named = [copy["sources"]["cifar_fs"]["cifar-100-python.tar.gz"]["sha256"] for copy in copies]
    assert [
        f"sha256:{sha256}" in s["files"]["cifar-100-python.tar.gz"]
        for s, sha256 in zip(stamps, named, strict=True)
    ] == [True] * 2
    monkeypatch.setattr(stored, "obtain_all", lambda *args: pytest.fail("made again"))
    assert fetch(two, tmp_path) == (0, stamps[1])


def test_a_copy_that_is_no_longer_named_is_not_what_is_published(copies, tmp_path, offline, capsys):
    own, bare = study(tmp_path, **copies[0]), study(tmp_path)
    assert fetch(own, tmp_path)[0] == 0
    assert cost.downloads(resolved(own)) == 0
    assert cost.downloads(resolved(bare)) == 169_001_437
    assert "downloads 169.0 MB" in cost.summary(resolved(bare))
    assert f"{ID}: what is prepared was made from other files and is not taken" in cost.summary(
        resolved(bare)
    )
    assert f"{ID}: not the published data: there are 400 images" in cost.summary(resolved(own))
    assert fetch(bare, tmp_path)[0] == 2
    assert "cifar-100-python.tar.gz would be downloaded" in capsys.readouterr().err
    assert open_data("cifar_fs", tmp_path / "data").differs
    assert "not the published data: there are 400 images" in capsys.readouterr().err


def test_terms_do_not_lapse_by_a_miniature(copies, tmp_path, monkeypatch):
    cls = registry.datasets.get("cifar_fs")
    monkeypatch.setattr(cls, "terms", "https://example.org/terms")
    own = {**study(tmp_path, **copies[0]), "acknowledged": ["cifar_fs"]}
    fetch(own, tmp_path)
    assert preflight.blocked(resolved(own)) == {}
    assert TERMS in preflight.blocked(resolved(study(tmp_path)))[ID]
    assert preflight.blocked(resolved({**own, "acknowledged": []})) == {}, (
        "what is there is what is asked for"
    )


def test_a_job_does_not_train_on_what_another_study_prepared_meanwhile(copies, tmp_path, capsys):
    one, two = (study(tmp_path, **copy) for copy in copies)
    fetch(one, tmp_path)
    first = tmp_path / "first.json"
    (tmp_path / "plan.json").rename(first)
    fetch(two, tmp_path)
    job = resolved(one).jobs[0].id
    assert main(["train", str(first), "--job", job]) == 2
    assert f"{KEY} was made from other files than the study own asks for" in capsys.readouterr().err
    assert not list(tmp_path.glob("results/runs/*"))
    assert main(["train", str(tmp_path / "plan.json"), "--job", job]) == 0


# -- what an index says

PUBLISHED = [{"a": "sha256:1", "b": "md5:2"}, {"c": ""}]


@pytest.mark.parametrize(
    ("index", "own", "wanted"),
    [
        ({}, {}, False),
        ({"sha256": "x"}, {}, True),
        ({"differs": "so"}, {}, False),
        ({"sha256": "x"}, {"a": "9"}, False),
        ({"files": {"a": ["sha256:1"], "b": ["sha256:3", "md5:2"]}}, {}, True),
        ({"files": {"a": ["sha256:1"], "b": ["sha256:3", "md5:2"]}}, {"b": "3"}, True),
        ({"files": {"a": ["sha256:1"], "b": ["sha256:3", "md5:2"]}}, {"b": "2"}, False),
        ({"files": {"a": ["sha256:9"], "b": ["sha256:3", "md5:2"]}}, {"b": "3"}, False),
        ({"files": {"a": ["sha256:9"], "b": ["sha256:3", "md5:2"]}}, {"a": "9"}, True),
        ({"files": {"a": ["sha256:1"]}}, {}, False),
        ({"files": {"c": ["sha256:7", prepared.FIRST]}}, {}, True),
        ({"files": {"c": ["sha256:7"]}}, {}, False),
        ({"files": {"c": ["sha256:7"]}}, {"c": "7"}, True),
        ({"files": {"c": 7}}, {}, False),
        ({"files": {"c": ["sha256:7", prepared.FIRST]}}, {"a": "1"}, False),
    ],
)
def test_which_arrays_are_those_that_are_asked_for(index, own, wanted):
    assert prepared.is_wanted(index, PUBLISHED, own) is wanted


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_damaged_index_says_nothing(text, tmp_path):
    home = prepared.home(tmp_path, ID)
    home.mkdir(parents=True)
    (home / "index.json").write_text(text)
    assert prepared.index(tmp_path, ID) == {}


def test_arrays_from_before_files_were_kept(copies, tmp_path, offline):
    own, bare = study(tmp_path, **copies[0]), study(tmp_path)
    fetch(own, tmp_path)
    path = prepared.home(tmp_path / "data", ID) / "index.json"
    content = json.loads(path.read_text())
    del content["files"]
    path.write_text(json.dumps(content))
    assert [len(preflight.other_data(resolved(s))) for s in (own, bare)] == [1, 1]
    del content["differs"]
    path.write_text(json.dumps(content))
    assert [len(preflight.other_data(resolved(s))) for s in (own, bare)] == [1, 0]
    assert fetch(own, tmp_path)[1]["files"], "made anew"


class Two(ImageSet):
    """A set of two classes of three images from one file."""

    input_shape, smallest_class, image_count, name = (1, 2, 2), 3, 6, "two"
    class_counts = {"train": 1, "validation": 0, "test": 1}
    data_id = "two/v1"

    def build(self, paths):
        images = np.full((6, 1, 2, 2), len(paths["file"].read_bytes()), np.uint8)
        images[:, :, 0] = 0  # a class whose images have one value only is refused
        splits = {"train": np.array([0]), "validation": np.array([], int), "test": np.array([1])}
        return ImageArrays(images, np.array([3, 3]), splits)


def test_a_copy_with_the_right_numbers_is_the_published_one_only_by_its_digest(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "file"
    path.write_bytes(b"published")
    own = {"file": LocalCopy(path=str(path), sha256=sha256_of(path))}
    md5 = hashlib.md5(b"published").hexdigest()
    for wanted, differs in (
        (md5, ""),
        ("0" * 32, "an own copy of the data, whose digest is not a published one"),
    ):
        monkeypatch.setattr(
            Two, "files", (RemoteFile("file", ("http://127.0.0.1:9/",), 0, md5=wanted),)
        )
        folder = tmp_path / wanted
        Two(Two.Options()).prepare(folder, own)
        assert (
            Two(Two.Options()).open(folder, torch.device("cpu"), torch.float32).differs == differs
        )
        assert ("an own copy" in capsys.readouterr().err) is bool(differs)
        files = prepared.index(folder, "two/v1")["files"]["file"]
        assert files == [f"sha256:{own['file'].sha256}", f"md5:{md5}"]


# -- finished runs


def other_pixels(settings) -> None:
    """Let the prepared glyphs say that they are other data."""
    path = next(Path(settings.data_dir).rglob("index.json"))
    path.write_text(re.sub('"sha256": "....', '"sha256": "0000', path.read_text()))


@pytest.fixture
def own_settings(settings, tmp_path):
    shutil.copytree(settings.data_dir, tmp_path / "data")
    return replace(settings, data_dir=tmp_path / "data", checkpoint_seconds=0.0)


def test_a_finished_run_of_other_data_is_not_taken(own_settings):
    record = run(glyph_spec(), own_settings)
    before = (record.folder / "record.json").read_bytes()
    other_pixels(own_settings)
    for again in (
        lambda: run(glyph_spec(), own_settings),
        lambda: extend(record.folder, {"tasks": 40}, own_settings),
    ):
        with pytest.raises(
            UserError, match=r"was trained on other data.*0000.*Move the folder away .* `results`"
        ):
            again()
    assert (record.folder / "record.json").read_bytes() == before
    next(Path(own_settings.data_dir).rglob("index.json")).unlink()
    assert run(glyph_spec(), own_settings).content == record.content, (
        "without data there is nothing to compare"
    )


def test_a_checkpoint_of_other_data_is_not_continued(own_settings, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            "cml_bench.engine.run._finish",
            lambda *args: (_ for _ in ()).throw(UserError("stopped")),
        )
        with pytest.raises(UserError, match="stopped"):
            run(glyph_spec(), own_settings)
    folder = Store(own_settings.results).folder(glyph_spec())
    state = checkpoint.load(folder)
    checkpoint.save(folder, {**state, "step": state["step"] + 1, "data": "1" * 64})
    with pytest.raises(
        UserError, match=r"was trained on other data: glyphs/v1/16px of SHA-256 111111111111…"
    ):
        run(glyph_spec(), own_settings)


# -- as a user runs it


@pytest.mark.slow
def test_a_study_whose_copy_changes_or_is_no_longer_named(checkout, copies, tmp_path):
    def start(*args: str, **more):
        (checkout / "own.yaml").write_text(yaml.safe_dump(study(tmp_path, **more)))
        return snakemake(checkout, *args, config="own.yaml")

    done = start(**copies[0])
    assert (done.returncode, trained(done)) == (0, 1), done.stderr[-3000:]
    index = prepared.index(tmp_path / "data", ID)
    again = start(**copies[0])
    assert (again.returncode, trained(again)) == (0, 0)
    assert f"{ID}: not the published data: there are 400 images" in again.stdout

    other = start(**copies[1])
    assert prepared.index(tmp_path / "data", ID)["sha256"] != index["sha256"]
    assert other.returncode != 0, "the finished run is of the other copy"
    assert "was trained on other data" in other.stdout + other.stderr
    (tmp_path / "results" / "runs").rename(tmp_path / "results" / "moved")
    other = start(**copies[1])
    assert (other.returncode, trained(other)) == (0, 1), other.stderr[-3000:]

    dry = start("-n")
    assert "preparing data set" in dry.stdout + dry.stderr
    assert "what is prepared was made from other files and is not taken" in dry.stderr


@pytest.mark.slow
def test_a_dry_run_says_what_will_not_run(checkout):
    dry = snakemake(
        checkout, "-n", "table1_n3", "--config", "results=dry", config="configs/paper.yaml"
    )
    assert dry.returncode == 0, dry.stderr[-2000:]
    assert re.search(
        r"^not run, \d+ runs: the terms of use of MiniImagenet are not acknow",
        dry.stderr,
        re.MULTILINE,
    )


@pytest.mark.slow
def test_table3_is_a_target_of_its_study(checkout):
    dry = snakemake(
        checkout, "-n", "table3", "--config", "results=dry", config="configs/graphs.yaml"
    )
    said = dry.stdout + dry.stderr
    assert dry.returncode == 0, dry.stderr[-2000:]
    assert "rendering table3" in said
    methods = "gmeta, gmeta+cml, amm_gnn, amm_gnn+cml"
    for data in ("citeseer", "amazon_computer"):
        assert f"preparing data set {data}" in said
        assert f"training 6 runs: {methods} on {data}, split tlp-1234, 5-shot, seed 0" in said
        assert f"training 6 runs: {methods} on {data}, split r2, 1-shot, seed 0" in said
    assert re.search(r"^not run, \d+ runs: .*corafull", dry.stderr, re.MULTILINE), (
        "its file has to be brought"
    )
    assert not any("on corafull" in line for line in said.splitlines() if "training" in line)


def test_a_plan_keeps_what_is_published(tmp_path):
    (tmp_path / "plan.json").write_text(dumped(resolved(study(tmp_path))))
    item = plan.read_plan(tmp_path / "plan.json").data[0]
    assert item.published == [{"cifar-100-python.tar.gz": "md5:eb9058c3a382ffc7106e4002c42a8d85"}]
