"""Damaged files and wrong input: one paragraph that names the culprit, and the rest goes on."""

import json
import shutil

import numpy as np
import pytest

from cml_bench import registry
from cml_bench.__main__ import main
from cml_bench.data.stored import ImageArrays
from cml_bench.engine.build import Settings
from cml_bench.engine.jobs import run_all
from cml_bench.engine.models import read_models
from cml_bench.engine.run import run
from cml_bench.errors import UserError
from cml_bench.evidence import gate
from cml_bench.evidence.build import build
from cml_bench.records import Store, write_episodes
from cml_bench.registry import datasets
from cml_bench.report import write
from cml_bench.spec import RunSpec, canonical
from cml_bench.study import status
from cml_bench.system.locks import run_lock
from tests.helpers.cases import said
from tests.helpers.simulated import finish, study
from tests.helpers.specs import sinusoid_spec

LEVEL = {"base": 60.0, "meta": 63.0, "co": 64.0}

DAMAGE = {
    "record.json cut off": (
        lambda f: (f / "record.json").write_text((f / "record.json").read_text()[:90])
    ),
    "record.json without status": lambda f: edit(f, lambda c: c.pop("status")),
    "record.json without data hash": lambda f: edit(f, lambda c: c.pop("data_sha256")),
    "record.json of another shape": lambda f: (f / "record.json").write_text("[]"),
    "record.json with an unknown status": lambda f: edit(f, lambda c: c.update(status="fine")),
    "record.json without machine": lambda f: edit(f, lambda c: c.pop("machine")),
    "record.json with another spec": lambda f: edit(f, lambda c: c["spec"].update(steps=7)),
    "episodes.npz cut off": (
        lambda f: (f / "episodes.npz").write_bytes((f / "episodes.npz").read_bytes()[:40])
    ),
    "episodes.npz packed in another way": lambda f: packed_otherwise(f / "episodes.npz"),
    "episodes.npz is one array": lambda f: one_array(f / "episodes.npz"),
    "episodes.npz gone": lambda f: (f / "episodes.npz").unlink(),
}


def edit(folder, change):
    content = json.loads((folder / "record.json").read_text())
    change(content)
    (folder / "record.json").write_text(json.dumps(content))


def one_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def packed_otherwise(path):
    """Both of the archive's headers name a compression that nobody has."""
    content = path.read_bytes()
    for magic, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = content.index(magic) + offset
        content = content[:at] + b"\x63\0" + content[at + 2 :]
    path.write_bytes(content)


def first(store: Store, method="maml"):
    return next(
        r.folder
        for r in store.all()
        if r.spec.method == method and r.spec.seed == 1 and r.spec.shot == 1
    )


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_run_is_missing_from_its_tables_and_named_there(damage, tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path, LEVEL)
    folder = first(store)
    damage(folder)
    text = write.text(resolved, tmp_path, [])
    assert f"Counted as missing: {folder}" in text.replace("\n", " ")
    assert "Move the folder away and start again" in text.replace("\n", " ")
    assert [
        cell.summary.finished for cell in build(resolved, store, "table1").rows[0].cells.values()
    ] == [4, 5]
    write.tables(resolved, tmp_path, [])
    page = write.page(resolved, tmp_path).read_text()
    assert folder.name in page
    assert "19 of 20 runs are finished" in page


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_run_is_an_offender_of_the_gate(damage, tmp_path, capsys):
    reference = tmp_path / "ci.json"
    finish(study(seeds=10), tmp_path / "reference", LEVEL)
    gate.update(study(seeds=10), tmp_path / "reference", reference)
    resolved = study(seeds=3)
    damage(first(finish(resolved, tmp_path / "now", LEVEL)))
    found = {f.cell: f.problem for f in gate.check(resolved, tmp_path / "now", reference)}
    assert [cell for cell, problem in found.items() if problem] == ["e/maml/1-shot/meta"]


def test_check_prints_its_table_although_a_run_is_damaged(tmp_path, capsys, monkeypatch):
    from cml_bench import commands_show

    finish(study(seeds=10), tmp_path / "reference", LEVEL)
    gate.update(study(seeds=10), tmp_path / "reference", tmp_path / "ci.json")
    folder = first(finish(study(seeds=3), tmp_path / "now", LEVEL))
    (folder / "episodes.npz").unlink()
    monkeypatch.setattr(commands_show, "_resolved", lambda args: study(seeds=3))
    assert (
        main(
            ["check", "--results", str(tmp_path / "now"), "--reference", str(tmp_path / "ci.json")]
        )
        == 2
    )
    shown = capsys.readouterr()
    assert shown.out.count("holds") == 5
    offender = shown.out.splitlines()[2]
    assert offender.startswith("e/maml/1-shot/meta")
    assert f"{folder / 'episodes.npz'} is missing or damaged" in offender
    assert "1 of 6 cells do not hold" in shown.err


def test_check_and_its_update_on_the_command_line(tmp_path, capsys, monkeypatch):
    """Exit code, table of offenders, and what moved."""
    from cml_bench import commands_show

    reference, results = tmp_path / "ci.json", tmp_path / "now"
    plans = {"ten": study(seeds=10), "three": study(seeds=3)}
    monkeypatch.setattr(
        commands_show, "_resolved", lambda args: plans["ten" if args.update else "three"]
    )
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


CELL = {
    "kind": "regression",
    "recipe": "r",
    "data_sha256": "d",
    "seeds": 10,
    "mean": 0.5,
    "deviation": 0.1,
}
BAD_CELLS = [
    {"kind": "other"},
    {"seeds": 1},
    {"seeds": "10"},
    {"mean": None},
    {"deviation": -1.0},
    {"recipe": 3},
]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}x",
        '{"a": 1}',
        '{"a": {"mean": 1}}',
        *(json.dumps({"a": {**CELL, **bad}}) for bad in BAD_CELLS),
    ],
)
def test_a_reference_of_another_shape_is_named(content, tmp_path):
    (tmp_path / "ci.json").write_text(content)
    with pytest.raises(UserError, match=r"ci\.json is damaged"):
        gate.read_reference(tmp_path / "ci.json")


VALUES = {"gone": ..., "null": None, "{}": {}, "word": "x", "number": 3, "[]": []}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_no_key_of_a_record_brings_tables_page_status_or_gate_down(value, tmp_path):
    """Each key in turn is gone or of another kind: the record is refused by name, or everything
    renders.
    """
    resolved = study(seeds=1, kind="cost")
    store = finish(resolved, tmp_path / "r", LEVEL)
    folder = next(r.folder for r in store.all() if r.spec.method == "maml")
    good, refused = json.loads((folder / "record.json").read_text()), 0
    for key in good:
        bad = {name: content for name, content in good.items() if name != key}
        (folder / "record.json").write_text(
            json.dumps(bad if value is ... else {**bad, key: value})
        )
        _, problem = store.usable(RunSpec.model_validate(good["spec"]))
        if problem:
            refused += 1
            assert f"{folder / 'record.json'} " in problem
            assert "Move the folder away" in problem
        else:
            write.text(resolved, tmp_path / "r", [])
            write.page(resolved, tmp_path / "r")
            status.text(resolved, tmp_path / "r")
    assert refused >= 12


@pytest.mark.parametrize(
    ("kept", "message"),
    [({}, "has no results for 'meta@1', only for nothing"), ({"meta@1": 7}, "has 7 test episodes")],
)
def test_a_series_that_is_missing_or_short_is_one_run_fewer(kept, message, tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path, LEVEL)
    folder = first(store)
    write_episodes(folder, {key: np.full(n, 60, np.uint16) for key, n in kept.items()})
    table = build(resolved, store, "table1")
    assert [cell.summary.finished for cell in table.rows[0].cells.values()] == [4, 5]
    (note,) = [note for note in table.notes if note.startswith("Counted as missing")]
    assert folder.name in note
    assert message in note


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


# -- the command line


def test_files_that_are_not_what_they_should_be(tmp_path, capsys):
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "list.json").write_text("[]")
    resolved = study(seeds=1).json_values()
    (tmp_path / "plan.json").write_text(json.dumps(resolved))
    for name in ("empty", "list"):
        for command in ("status", "table", "report"):
            assert "is no resolved plan" in said(
                capsys, command, "--plan", str(tmp_path / f"{name}.json")
            )
        assert f"{name}.json" in said(capsys, "train", str(tmp_path / f"{name}.json"))
        assert "is no resolved plan" in said(
            capsys, "train", str(tmp_path / f"{name}.json"), "--job", "x"
        )
    assert "is a plan of several jobs: name one with --job" in said(
        capsys, "train", str(tmp_path / "plan.json")
    )
    assert "has no job 'x': name one" in said(
        capsys, "train", str(tmp_path / "plan.json"), "--job", "x"
    )
    resolved["runs"][0]["spec"].pop("shot")
    (tmp_path / "bad.json").write_text(json.dumps(resolved))
    job = resolved["jobs"][0]["id"]
    assert "shot: Field required" in said(capsys, "train", str(tmp_path / "bad.json"), "--job", job)
    assert "Is a directory" in said(capsys, "train", str(tmp_path))
    assert "Is a directory" in said(capsys, "plan", "--config", str(tmp_path))


EDITS = {
    "a run without its spec": (lambda p: p["runs"][0].pop("spec"), "it has no 'spec'"),
    "a spec without its shot": (lambda p: p["runs"][0]["spec"].pop("shot"), "shot: Field required"),
    "no runs": (lambda p: p.update(runs=None), "its parts are of other kinds"),
    "jobs that are none": (lambda p: p.update(jobs=1), "its parts are of other kinds"),
    "a job of an unknown run": (
        lambda p: p["jobs"][0]["runs"].append("zz"),
        "there is no run 'zz'",
    ),
    "a cell without its table": (lambda p: p["cells"][0].pop("table"), "it has no 'table'"),
    "no members": (lambda p: p.update(members={}), "it has no 'e'"),
    "an empty study": (lambda p: p.update(study={}), "experiments: Field required"),
    "a table of an unknown kind": (
        lambda p: p["tables"]["table1"].update(kind="x"),
        "tables.table1.kind: Input",
    ),
}


@pytest.mark.parametrize(("change", "message"), EDITS.values(), ids=EDITS)
def test_a_plan_that_was_edited_is_refused_by_every_command(change, message, tmp_path, capsys):
    plan, path = study(seeds=1).json_values(), str(tmp_path / "plan.json")
    change(plan)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    for command in ("status", "table", "report", "figure", "publish"):
        text = said(capsys, command, "--plan", path, "--results", str(tmp_path))
        assert text.startswith(f"error: {path} is no resolved plan (")
        assert message in text
    assert message in said(capsys, "train", path, "--job", "x")
    assert message in said(capsys, "train", path)
    assert message in said(capsys, "fetch", "sinusoid", "--plan", path)


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
    [
        ({"method": "mmal"}, "Did you mean 'maml'"),
        ({"method": "../../evil"}, "method: String should match pattern"),
        ({"network": {"name": "conv4", "options": {}}}, "conv4 takes images"),
        ({"options": {"inner_rate": 1}}, "unknown key 'inner_rate'"),
    ],
)
def test_a_spec_that_cannot_be_run_leaves_no_folder(change, message, tmp_path, capsys):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({**canonical(sinusoid_spec()), **change}))
    for _ in range(2):
        text = said(capsys, "train", str(path), "--results", str(tmp_path / "results"))
        assert text.startswith(f"error: {path}: ")
        assert message in text
        assert not (tmp_path / "results").exists()


def test_a_run_of_a_study_that_cannot_be_built_has_an_error_log_and_takes_no_lock(tmp_path):
    """Its job's other runs are made, and `status` can say why it is not."""
    good = sinusoid_spec()
    bad = good.model_copy(update={"options": {"inner_rate": 1}})
    settings = Settings(results=tmp_path, report=lambda text: None)
    with pytest.raises(UserError, match="unknown key 'inner_rate'"):
        run_all([bad, good], settings, tmp_path / "stamp.json")
    assert [path.name for path in Store(tmp_path).folder(bad).iterdir()] == ["error.log"]
    assert Store(tmp_path).read(good).status == "finished"


def test_a_finished_run_is_returned_although_its_method_has_changed_since(
    tmp_path, capsys, monkeypatch
):
    spec = sinusoid_spec()
    (tmp_path / "spec.json").write_text(json.dumps(canonical(spec)))
    arguments = ["train", str(tmp_path / "spec.json"), "--results", str(tmp_path / "results")]
    assert main(arguments) == 0
    capsys.readouterr()
    monkeypatch.setattr(registry.method("maml"), "version", 99)
    assert main(arguments) == 0
    assert "step 0" not in capsys.readouterr().out, "nothing is trained"


def test_a_run_that_cannot_be_built_leaves_nothing_behind(tmp_path):
    """Called directly, without the command line in front of it."""
    spec = sinusoid_spec()
    with pytest.raises(UserError, match="Did you mean 'maml'"):
        run(
            spec.model_copy(update={"method": "mmal"}),
            Settings(results=tmp_path, report=lambda text: None),
        )
    assert not list(tmp_path.iterdir())


def test_a_single_run_that_diverges_is_an_error_and_keeps_its_record(tmp_path, capsys):
    spec = sinusoid_spec(protocol_options={"outer_lr": 1e30})
    (tmp_path / "spec.json").write_text(json.dumps(canonical(spec)))
    text = said(
        capsys, "train", str(tmp_path / "spec.json"), "--results", str(tmp_path / "results")
    )
    assert "diverged, its loss is not finite at step" in text
    assert "smaller inner_lr or outer_lr" in text
    assert Store(tmp_path / "results").read(spec).status == "diverged"


# -- prepared data


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda home: (home / "images.npy").unlink(),
        lambda home: flipped(home / "images.npy"),
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
