"""`status`: the state of every run, per table and as JSON, and stamps whose runs are gone."""

import json

import pytest

from cml_bench.__main__ import main
from cml_bench.costs import estimate
from cml_bench.records import Progress, write_failure, write_progress
from cml_bench.report import write
from cml_bench.study import cost, preflight, status
from cml_bench.system.locks import run_lock
from tests.helpers.checkouts import changed, start, trained
from tests.helpers.plans import dumped, edited
from tests.helpers.simulated import LEVEL, finish, study


@pytest.fixture
def mixed(tmp_path):
    """Twelve runs at two shots: some finished, one diverged, and one in every other state."""
    resolved = study(seeds=3)
    shots = {True: "diverged", False: "finished"}
    store = finish(
        resolved, tmp_path, LEVEL, status=lambda s: shots[s.seed == 2], only=lambda s: s.shot == 1
    )
    others = [r.spec for r in resolved.runs if r.spec.shot == 5]
    for spec in others[:4]:
        store.folder(spec).mkdir()
    write_progress(store.folder(others[0]), Progress(step=1200, steps=30000, loss=0.5, left=3725))
    write_failure(store.folder(others[1]), "Traceback\nRuntimeError: out of memory\n")
    (store.folder(others[2]) / "checkpoint-a.pt").write_bytes(b"x")
    write_progress(store.folder(others[2]), Progress(step=7, steps=9, left=60))
    (store.folder(others[3]) / "record.json").write_text("{")
    return resolved, store, others, tmp_path


def test_every_state_is_told_with_what_a_person_needs(mixed):
    resolved, store, others, results = mixed
    with run_lock(store.folder(others[0])):
        states = status.states(resolved, results)
        text = status.text(resolved, results)
    told = {spec.id: (states[spec.id].state, states[spec.id].more) for spec in others}
    assert told[others[0].id] == (
        "running",
        "step 1,200 of 30,000, loss 0.500, about 1 h 02 min left",
    )
    assert told[others[1].id][0] == "failed"
    assert "RuntimeError: out of memory (see " in told[others[1].id][1]
    assert told[others[2].id] == ("interrupted", "step 7 of 9; goes on from its checkpoint")
    assert told[others[3].id][0] == "failed"
    assert "record.json is damaged" in told[others[3].id][1]
    assert told[others[4].id] == ("missing", "")
    counts = status.counts(resolved, states)
    want = {"finished": 4, "diverged": 2, "running": 1, "interrupted": 1, "failed": 2, "missing": 2}
    assert counts == {"all runs": want, "table1": want}
    assert "table1: 4 finished, 2 diverged, 1 running, 1 interrupted, 2 failed, 2 missing" in text
    assert "running: maml on glyphs" in text


BROKEN = [
    "{",
    "[]",
    "3",
    "{}",
    '{"step": 1, "steps": 2, "loss": "x", "left": null}',
    '{"step": "1", "steps": 2, "loss": null, "left": null}',
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_progress_file_is_no_matter(content, mixed):
    resolved, store, others, results = mixed
    (store.folder(others[0]) / "progress.json").write_text(content)
    with run_lock(store.folder(others[0])):
        assert status.states(resolved, results)[others[0].id].more == "starting"


def test_an_error_log_of_any_bytes_is_shown(mixed):
    resolved, store, others, results = mixed
    (store.folder(others[1]) / "error.log").write_bytes(b"one\nOSError: caf\xe9")
    told = status.states(resolved, results)[others[1].id]
    assert (told.state, told.more.startswith("OSError: caf")) == ("failed", True)


def test_runs_without_their_data_have_the_reason(mixed, monkeypatch):
    resolved, _, others, results = mixed
    lost = {others[4].id: "the terms of use of x are not acknowledged"}
    monkeypatch.setattr(preflight, "not_run", lambda plan: lost)
    text = status.text(resolved, results)
    assert "1 not run" in text
    assert "not run: the terms of use of x are not acknowledged" in text


@pytest.mark.slow
def test_after_damage_the_advice_given_brings_the_whole_table_back(checkout):
    """A damaged record costs only its own run.

    When its folder is moved away as advised, that one run is trained.
    """
    config = {**changed(), "study": "mended", "results": "mended"}
    assert trained(start(checkout, config)) == 4
    folder, *others = sorted((checkout / "mended" / "runs").iterdir())
    kept = {other: (other / "record.json").read_bytes() for other in others}
    (folder / "record.json").write_text("{")
    config["tables"]["sinusoid"]["title"] = "Another title"  # makes Snakemake write the table anew
    damaged = start(checkout, config)
    assert (damaged.returncode, trained(damaged)) == (0, 0), damaged.stderr[-3000:]
    assert "Counted as missing: " in damaged.stdout
    assert "3 of 4 runs are made" in damaged.stdout
    folder.rename(checkout / "mended" / "elsewhere")
    again = start(checkout, config)
    assert (again.returncode, trained(again)) == (0, 1), again.stderr[-3000:]
    assert (folder / "record.json").exists()
    assert {other: (other / "record.json").read_bytes() for other in others} == kept
    assert "Another title" in again.stdout
    assert "issing" not in again.stdout, "the table is complete"


def test_as_json_on_the_command_line(mixed, tmp_path, capsys):
    resolved, _, _, results = mixed
    (tmp_path / "plan.json").write_text(dumped(resolved))
    assert (
        main(["status", "--plan", str(tmp_path / "plan.json"), "--results", str(results), "--json"])
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert sorted({item["state"] for item in told}) == [
        "diverged",
        "failed",
        "finished",
        "interrupted",
        "missing",
    ]


def test_jobs_of_runs_that_were_moved_away_are_named_and_their_stamps_stay(tmp_path):
    resolved = edited(study(seeds=1), lambda plan: plan["study"].update(results=str(tmp_path)))
    finish(resolved, tmp_path, LEVEL)
    (tmp_path / "done").mkdir()
    stamps = [tmp_path / "done" / f"{job.id}.json" for job in resolved.jobs]
    for stamp in stamps[1:]:
        stamp.write_text("{}")
    assert preflight.lost_jobs(resolved) == set()
    for job in resolved.jobs[:2]:
        run = next(run for run in resolved.runs if run.id in job.runs)
        (tmp_path / "runs" / run.folder).rename(tmp_path / f"elsewhere-{job.id}")
    assert preflight.lost_jobs(resolved) == {resolved.jobs[1].id}, "the first had no stamp"
    assert [stamp.exists() for stamp in stamps] == [False, True, True, True]


def test_a_record_with_fewer_tasks_than_asked_and_no_weights_is_not_called_finished(tmp_path):
    asked, made = study(seeds=1, tasks=500), study(seeds=1, tasks=400)
    finish(made, tmp_path, LEVEL)
    asked = edited(asked, lambda plan: plan["study"].update(results=str(tmp_path)))
    (tmp_path / "runs" / asked.runs[0].folder / "model.safetensors").write_bytes(b"")
    states = list(status.states(asked, tmp_path).values())
    assert [state.state for state in states] == ["missing", "not run", "not run", "not run"]
    lacks = "400 test tasks are stored, and 500 are asked for"
    assert states[0].more == f"{lacks}; the next start tests the stored model further"
    assert states[1].more.startswith(
        f"its record is without weights (committed results have none), and {lacks}"
    )
    text = status.text(asked, tmp_path)
    assert "all runs: 1 missing, 3 not run" in text
    assert "missing: maml on glyphs, 5-way 1-shot, seed 0: 400 test tasks" in text
    assert f"not run, 3 runs: {states[1].more}" in cost.summary(estimate.add(asked)), (
        "so does `plan`"
    )
    assert f"Counted as missing: runs whose results do not suffice: {lacks}." in write.text(
        asked, tmp_path, []
    )
    assert {state.state for state in status.states(made, tmp_path).values()} == {"finished"}


def test_runs_that_were_made_elsewhere_are_told_with_what_cannot_be_had_of_them(tmp_path):
    asked, made = study(seeds=3, tasks=500), study(seeds=3, tasks=400)
    store = finish(asked, tmp_path, LEVEL, only=lambda s: s.shot == 1)
    finish(made, tmp_path, LEVEL, only=lambda s: s.shot == 5 and s.seed > 0)
    weights = [run for run in asked.runs if run.spec.seed == 1]
    for run in weights:
        (store.folder(run.spec) / "model.safetensors").write_bytes(b"")
    asked = edited(asked, lambda plan: plan["study"].update(results=str(tmp_path)))
    lines = status.text(asked, tmp_path).splitlines()
    assert "all runs: 6 finished, 4 missing, 2 not run" in lines
    assert "already there: 10 runs that no start of this study made; none is trained again" in lines
    assert "without weights: 4 runs of these, which cannot be tested further" in lines
    assert (
        "tested on less than is asked for: 4 runs of these; 2 can be tested further without"
        " training, 2 cannot, for want of weights" in lines
    )
    assert "already there: 8 of these runs; the other 2 take" in cost.summary(estimate.add(asked))
    (tmp_path / "done").mkdir()
    for job in asked.jobs:
        (tmp_path / "done" / f"{job.id}.json").write_text("{}")
    assert "already there" not in status.text(asked, tmp_path), "a start of this study made them"
