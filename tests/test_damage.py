"""Damaged files and wrong input: one paragraph that names the culprit, and the rest goes on."""

import json
import shutil

import numpy as np
import pytest

from cml_bench import regression, report
from cml_bench.__main__ import main
from cml_bench.data.base import ImageArrays
from cml_bench.engine.run import read_models, run
from cml_bench.engine.train import Settings
from cml_bench.errors import UserError
from cml_bench.records import Store, run_lock
from cml_bench.registry import datasets
from cml_bench.spec import canonical
from tests.simulated import finish, study
from tests.specs import sinusoid_spec

LEVEL = {"base": 60.0, "meta": 63.0, "co": 64.0}

DAMAGE = {
    "record.json cut off": lambda f: (f / "record.json").write_text((f / "record.json").read_text()[:90]),
    "record.json without status": lambda f: edit(f, lambda c: c.pop("status")),
    "record.json without data hash": lambda f: edit(f, lambda c: c.pop("data_sha256")),
    "record.json with another spec": lambda f: edit(f, lambda c: c["spec"].update(steps=7)),
    "episodes.npz cut off": lambda f: (f / "episodes.npz").write_bytes((f / "episodes.npz").read_bytes()[:40]),
    "episodes.npz gone": lambda f: (f / "episodes.npz").unlink(),
}


def edit(folder, change):
    content = json.loads((folder / "record.json").read_text())
    change(content)
    (folder / "record.json").write_text(json.dumps(content))


def first(store: Store, method="maml"):
    return next(r.folder for r in store.all() if r.spec.method == method and r.spec.seed == 1 and r.spec.shot == 1)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_run_is_missing_from_its_tables_and_named_there(damage, tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path, LEVEL)
    folder = first(store)
    damage(folder)
    text = report.text(resolved, tmp_path, [])
    assert f"Counted as missing: {folder}" in text.replace("\n", " ")
    assert "Move the folder away and start again" in text.replace("\n", " ")
    report.tables(resolved, tmp_path, [])
    page = report.page(resolved, tmp_path).read_text()
    assert folder.name in page
    assert "19 of 20 runs are finished" in page


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_run_is_an_offender_of_the_gate(damage, tmp_path, capsys):
    reference = tmp_path / "ci.json"
    finish(study(seeds=10), tmp_path / "reference", LEVEL)
    regression.update(study(seeds=10), tmp_path / "reference", reference)
    resolved = study(seeds=3)
    damage(first(finish(resolved, tmp_path / "now", LEVEL)))
    found = {f.cell: f.problem for f in regression.check(resolved, tmp_path / "now", reference)}
    assert [cell for cell, problem in found.items() if problem] == ["e/maml/1-shot/meta"]


def test_check_and_its_update_on_the_command_line(tmp_path, capsys, monkeypatch):
    """Exit code, table of offenders, and what moved."""
    from cml_bench import __main__ as cli

    reference, results = tmp_path / "ci.json", tmp_path / "now"
    plans = {"ten": study(seeds=10), "three": study(seeds=3)}
    monkeypatch.setattr(cli, "_resolved", lambda args: plans["ten" if args.update else "three"])
    finish(plans["ten"], results, LEVEL)
    arguments = ["check", "--results", str(results), "--reference", str(reference)]
    assert main([*arguments, "--update"]) == 0
    assert capsys.readouterr().out.count("(new)") == 6
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("holds") == 6
    shutil.rmtree(results)
    finish(plans["ten"], results, {**LEVEL, "base": 40.0})
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out.count("is worse than the reference") == 2
    assert "2 of 6 cells do not hold" in shown.err
    assert main([*arguments, "--update"]) == 0
    moved = [line for line in capsys.readouterr().out.splitlines() if "/maml/" in line]
    assert len(moved) == 2
    assert all("(-" in line for line in moved), "the baseline's references fell"
    assert main(arguments) == 0


@pytest.mark.parametrize("content", ["[]", "{}x", '{"a": 1}', '{"a": {"mean": 1}}'])
def test_a_reference_of_another_shape_is_named(content, tmp_path):
    (tmp_path / "ci.json").write_text(content)
    with pytest.raises(UserError, match=r"ci\.json is damaged"):
        regression.read_reference(tmp_path / "ci.json")


def test_a_damaged_model_is_named(tmp_path):
    settings = Settings(results=tmp_path, report=lambda text: None)
    record = run(sinusoid_spec("maml+cml"), settings)
    path = record.folder / "best_co.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"best_co\.safetensors is damaged .*Move the folder"):
        read_models(record.folder)


def test_what_a_killed_writer_left_goes_with_the_next_lock(tmp_path):
    (tmp_path / ".record.json.x1.tmp").write_text("{")
    with run_lock(tmp_path):
        assert not list(tmp_path.glob(".*.tmp"))


# -- the command line ---------------------------------------------------------------------------------


def said(capsys, *arguments: str) -> str:
    """One paragraph, exit code 2."""
    assert main(list(arguments)) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def test_files_that_are_not_what_they_should_be(tmp_path, capsys):
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "list.json").write_text("[]")
    resolved = study(seeds=1)
    (tmp_path / "plan.json").write_text(json.dumps(resolved))
    for name in ("empty", "list"):
        for command in ("status", "table", "report"):
            assert "is no resolved plan" in said(capsys, command, "--plan", str(tmp_path / f"{name}.json"))
        assert f"{name}.json" in said(capsys, "train", str(tmp_path / f"{name}.json"))
        assert "is no resolved plan" in said(capsys, "train", str(tmp_path / f"{name}.json"), "--job", "x")
    assert "is a plan of several jobs: name one with --job" in said(capsys, "train", str(tmp_path / "plan.json"))
    assert "has no job 'x'" in said(capsys, "train", str(tmp_path / "plan.json"), "--job", "x")
    resolved["runs"][0]["spec"].pop("shot")
    (tmp_path / "bad.json").write_text(json.dumps(resolved))
    job = resolved["jobs"][0]["id"]
    assert "shot: Field required" in said(capsys, "train", str(tmp_path / "bad.json"), "--job", job)
    assert "Is a directory" in said(capsys, "train", str(tmp_path))
    assert "Is a directory" in said(capsys, "plan", "--config", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--options", "{bad"], "is no JSON object"), (["--options", "[1]"], "is no JSON object")],
)
def test_options_that_are_no_json(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fetch", "omniglot", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_threads_are_a_number_from_one_on(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", "x.json", "--threads", "0"])
    assert "'0' is no number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [({"method": "mmal"}, "Did you mean 'maml'"), ({"method": "../../evil"}, "method: String should match pattern"),
     ({"network": {"name": "conv4", "options": {}}}, "conv4 takes images"),
     ({"options": {"inner_rate": 1}}, "unknown key 'inner_rate'")],
)  # fmt: skip
def test_a_spec_that_cannot_be_run_leaves_no_folder(change, message, tmp_path, capsys):
    (tmp_path / "spec.json").write_text(json.dumps({**canonical(sinusoid_spec()), **change}))
    assert message in said(capsys, "train", str(tmp_path / "spec.json"), "--results", str(tmp_path / "results"))
    assert not list(tmp_path.rglob("run.log"))
    assert not list((tmp_path / "results").glob("runs/*/record.json"))


def test_a_single_run_that_diverges_is_an_error_and_keeps_its_record(tmp_path, capsys):
    spec = sinusoid_spec(protocol_options={"outer_lr": 1e30})
    (tmp_path / "spec.json").write_text(json.dumps(canonical(spec)))
    text = said(capsys, "train", str(tmp_path / "spec.json"), "--results", str(tmp_path / "results"))
    assert "diverged, its loss is not finite at step" in text
    assert "smaller inner_lr or outer_lr" in text
    assert Store(tmp_path / "results").read(spec).status == "diverged"


# -- prepared data ------------------------------------------------------------------------------------


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [lambda home: (home / "images.npy").unlink(), lambda home: flipped(home / "images.npy"),
     lambda home: (home / "images.npy").write_bytes((home / "images.npy").read_bytes()[:-9]),
     lambda home: (home / "index.json").write_text("{"), lambda home: (home / "index.json").write_text("{}")],
)  # fmt: skip
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
