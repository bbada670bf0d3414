"""Damaged records and references: the culprit is named in one paragraph, and the rest goes on."""

import json
import shutil

import numpy as np
import pytest

from cml_bench.__main__ import main
from cml_bench.engine.build import Settings
from cml_bench.engine.models import read_models
from cml_bench.engine.run import run
from cml_bench.errors import UserError
from cml_bench.evidence import gate
from cml_bench.evidence.build import build
from cml_bench.records import Store, write_episodes
from cml_bench.report import write
from cml_bench.spec import RunSpec
from cml_bench.study import status
from cml_bench.system.locks import run_lock
from tests.helpers.simulated import LEVEL, finish, study
from tests.helpers.specs import sinusoid_spec

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
    """Let both headers of the archive name a compression that nobody has."""
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
    problems = {f.cell: f.problem for f in gate.check(resolved, tmp_path / "now", reference)}
    assert [cell for cell, problem in problems.items() if problem] == ["e/maml/1-shot/meta"]


def test_check_prints_its_table_although_a_run_is_damaged(tmp_path, capsys, monkeypatch):
    from cml_bench import commands_show

    finish(study(seeds=10), tmp_path / "reference", LEVEL)
    gate.update(study(seeds=10), tmp_path / "reference", tmp_path / "ci.json")
    folder = first(finish(study(seeds=3), tmp_path / "now", LEVEL))
    (folder / "episodes.npz").unlink()
    monkeypatch.setattr(commands_show, "planned", lambda args: study(seeds=3))
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
    """Checked are the exit code, the table of offenders, and the list of references that moved."""
    from cml_bench import commands_show

    reference, results = tmp_path / "ci.json", tmp_path / "now"
    plans = {"ten": study(seeds=10), "three": study(seeds=3)}
    monkeypatch.setattr(
        commands_show, "planned", lambda args: plans["ten" if args.update else "three"]
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
    """Each key in turn is missing or of another kind.

    Either the record is refused by name, or all tables and pages can be made.
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
