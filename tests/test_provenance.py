"""Records hold their source; `status` and tables tell runs of unlike source; `retrain`."""

import json
import os
import shutil
import subprocess
from dataclasses import replace

import pytest

from cml_bench.__main__ import main
from cml_bench.engine.build import Settings
from cml_bench.engine.run import run
from cml_bench.engine.train import Training
from cml_bench.errors import UserError
from cml_bench.evidence.build import build
from cml_bench.records import Store, read, write_record
from cml_bench.report import summary
from cml_bench.study import preflight, provenance, retrain, status
from cml_bench.study.plan import Plan
from cml_bench.system import sources
from cml_bench.system.locks import run_lock
from tests.helpers.plans import dumped, edited
from tests.helpers.runs import interrupted
from tests.helpers.simulated import LEVEL, finish, study
from tests.helpers.specs import sinusoid_spec

MAML = ("cml_bench.data.sinusoid", "cml_bench.methods.maml", "cml_bench.networks.mlp")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package, which tests edit; digests are of it."""
    folder = tmp_path / "checkout" / "cml_bench"
    shutil.copytree(sources.PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "PACKAGE", folder)
    monkeypatch.setattr(sources, "commit", sources.commit.__wrapped__)
    return folder


def edit(package, name, before, after):
    text = (package / name).read_text()
    assert before in text
    (package / name).write_text(text.replace(before, after, 1))


# -- digests of files


def test_the_files_of_a_run_are_those_that_compute_its_numbers():
    files = sources.files_of(MAML)
    for name in ("methods/maml.py", "methods/base.py", "networks/mlp.py", "networks/base.py"):
        assert name in files
    assert {"data/sinusoid.py", "data/episodes.py", "seeding.py"} <= set(files)
    rooms = {name.split("/")[0] for name in files}
    assert rooms == {"methods", "networks", "data", "seeding.py"}
    others = ("methods/cooperative.py", "networks/conv4.py", "data/_download.py")
    assert not {*others} & set(files)


def test_a_digest_is_of_the_code_not_of_what_is_said_of_it(package):
    before = sources.files_of(MAML)
    edit(package, "methods/maml.py", "from pydantic", "# A comment.\nfrom pydantic")
    edit(package, "methods/maml.py", "All of psi and theta", "Both psi and theta")
    assert sources.files_of(MAML) == before
    edit(package, "networks/mlp.py", "hidden", "width")
    edit(package, "engine/step.py", "import torch", "import torch as t")
    after = sources.files_of(MAML)
    assert [name for name in before if before[name] != after[name]] == ["networks/mlp.py"]


def test_both_methods_of_a_pair_share_their_baselines_file():
    files = sources.files_of(provenance.modules(sinusoid_spec("maml+cml")))
    assert files.items() >= sources.files_of(provenance.modules(sinusoid_spec())).items()
    assert "methods/cooperative.py" in files


# -- the commit


def git(folder, *arguments):
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, env=environment)


def test_the_commit_and_whether_the_package_is_as_committed(package, monkeypatch):
    root = package.parent
    (root / ".gitignore").write_text("__pycache__\n")
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-qm", "one")):
        git(root, *arguments)
    name, clean = sources.commit()
    assert (len(name), clean) == (40, True)
    (root / "results").mkdir()
    (root / "results" / "x").write_text("what is made beside the package does not matter")
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook
    assert sources.commit() == (name, True)
    (package / "methods" / "new.py").write_text("")
    assert sources.commit() == (name, False)


def test_without_a_checkout_nobody_can_tell(package, monkeypatch):
    assert sources.commit() == ("", None)
    git(package.parent, "init", "-q")  # somebody else's: the package is not in it
    assert sources.commit() == ("", None)
    monkeypatch.setenv("PATH", "")
    assert sources.commit() == ("", None)


# -- records


@pytest.fixture
def settings(tmp_path):
    return Settings(results=tmp_path / "results", device="cpu", report=lambda text: None)


def test_a_run_holds_its_source(settings):
    spec = sinusoid_spec("maml+cml", steps=2)
    made = run(spec, settings)
    assert made.source == provenance.source(spec)
    assert made.source.files == sources.files_of(provenance.modules(spec))
    assert (made.source.commit, made.source.clean) == sources.commit()
    stored = json.loads((made.folder / "record.json").read_text())["source"]
    assert sorted(stored) == ["clean", "commit", "files"]


def test_a_training_that_went_on_with_other_source_says_so(settings, monkeypatch):
    spec = sinusoid_spec(steps=20)
    began = provenance.source(spec)
    interrupted(spec, settings, 15)
    other = began.model_copy(update={"files": {**began.files, "methods/maml.py": "0" * 16}})
    monkeypatch.setattr("cml_bench.engine.train.source", lambda spec: other)
    said = []
    made = run(spec, replace(settings, report=said.append))
    assert (made.source.files, made.source.begun) == (other.files, began.files)
    assert any("was begun with other source" in line for line in said)


def test_one_that_went_on_with_the_same_source_does_not(settings):
    spec = sinusoid_spec(steps=20)
    interrupted(spec, settings, 15)
    assert run(spec, settings).source == provenance.source(spec)


def test_a_file_edited_during_a_training_does_not_change_what_is_recorded(settings, monkeypatch):
    spec = sinusoid_spec(steps=2)
    began = provenance.source(spec)
    original = Training.run

    def edited_meanwhile(self):
        original(self)
        monkeypatch.setattr("cml_bench.study.provenance.source", lambda spec: pytest.fail("late"))

    monkeypatch.setattr(Training, "run", edited_meanwhile)
    monkeypatch.setattr("cml_bench.engine.content.source", lambda spec: began)
    assert run(spec, settings).source == began


# -- status and tables


def sourced(resolved: Plan, store: Store, files=None) -> None:
    """Give the records their source; ``files`` changes it by the run's spec."""
    for spec in resolved.specs.values():
        record = store.read(spec)
        made = provenance.source(spec).model_dump(mode="json", exclude_unset=True)
        made["files"] |= files(spec) if files else {}
        write_record(record.folder, {**record.content, "source": made})


def test_status_tells_runs_of_other_and_of_unknown_source(tmp_path):
    resolved = study(seeds=3)
    store = finish(resolved, tmp_path, LEVEL)
    text = status.text(resolved, tmp_path)
    assert "of unknown source: 12 runs, whose records hold none" in text
    sourced(resolved, store)
    assert "source" not in status.text(resolved, tmp_path)
    assert {s.source for s in status.states(resolved, tmp_path).values()} == {""}
    changed = {"methods/maml.py": "0" * 16}
    sourced(resolved, store, lambda spec: changed if spec.seed == 1 else {})
    line = (
        "of other source than here: 4 runs (methods/maml.py); to train them anew: python -m"
        " cml_bench retrain METHOD"
    )
    assert line in status.text(resolved, tmp_path).split("\n")
    states = status.states(resolved, tmp_path).values()
    assert [s.source for s in states if s.source] == ["methods/maml.py"] * 4


def test_status_sees_an_edit_of_a_method_without_a_new_version(package, tmp_path):
    """Kind 13: the ids are the same, so nothing else tells."""
    resolved = study(seeds=1)
    store = finish(resolved, tmp_path, LEVEL)
    sources.loaded.cache_clear()
    sourced(resolved, store)
    assert "other source" not in status.text(resolved, tmp_path)
    edit(package, "methods/cooperative.py", "self.options.cml.gamma if", "2 if")
    text = status.text(resolved, tmp_path)
    assert "of other source than here: 2 runs (methods/cooperative.py)" in text
    sources.loaded.cache_clear()


def test_a_table_tells_runs_of_unlike_source_and_their_commits(tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path, LEVEL)
    assert not provenance.sentences(build(resolved, store, "table1").records())
    sourced(resolved, store)
    assert not provenance.sentences(build(resolved, store, "table1").records())
    changed = {"networks/conv4.py": "0" * 16}
    sourced(resolved, store, lambda spec: changed if spec.method == "maml+cml" else {})
    told = "Runs of unlike source, so a difference may be the source's: networks/conv4.py in 2"
    table = build(resolved, store, "table1")
    assert [note.startswith(told) for note in table.notes].count(True) == 1
    facts = dict(summary.provenance(resolved, table.records()))
    assert facts["commit"] == provenance.commit_of(table.records()[0])


def test_records_with_and_without_source_in_one_table_are_told(tmp_path):
    resolved = study(seeds=5)
    store = finish(resolved, tmp_path, LEVEL)
    records = [store.read(spec) for spec in resolved.specs.values()]
    sourced(edited(resolved, lambda plan: plan.update(runs=plan["runs"][:4])), store)
    records = [store.read(spec) for spec in resolved.specs.values()]
    assert provenance.sentences(records) == ["16 of 20 runs do not say which code made them."]
    assert provenance.commit_of(records[-1]) == "unknown"


# -- retrain


@pytest.fixture
def finished(tmp_path):
    """A finished study with stamps, and its plan as a file."""
    results = tmp_path / "results"
    resolved = edited(study(seeds=1), lambda plan: plan["study"].update(results=str(results)))
    finish(resolved, results, LEVEL)
    (results / "done").mkdir()
    for job in resolved.jobs:
        (results / "done" / f"{job.id}.json").write_text("{}")
    (tmp_path / "plan.json").write_text(dumped(resolved), encoding="utf-8")
    return resolved, results, tmp_path / "plan.json"


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_retrain_names_the_runs_and_moves_nothing_unless_told(finished, capsys):
    _, results, plan = finished
    before = names(results / "runs")
    assert main(["retrain", "maml", "--plan", str(plan)]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in before)
    assert f"4 runs of maml and maml+cml would be moved to {results / 'aside'}: add --yes" in said
    assert (names(results / "runs"), names(results / "aside")) == (before, [])


@pytest.mark.parametrize(("method", "count"), [("maml", 4), ("maml+cml", 2)])
def test_retrain_moves_them_whole_and_their_jobs_are_due_again(method, count, finished, capsys):
    resolved, results, plan = finished
    before = {p.name: (p / "record.json").read_bytes() for p in (results / "runs").iterdir()}
    assert main(["retrain", method, "--plan", str(plan), "--yes"]) == 0
    (aside,) = (results / "aside").iterdir()
    moved = {p.name: (p / "record.json").read_bytes() for p in aside.iterdir()}
    assert len(moved) == count
    assert all(name.startswith(method) for name in moved)
    assert moved.items() <= before.items()
    assert {*names(results / "runs")} | {*moved} == {*before}
    assert all(read(aside / name) is not None for name in moved)
    gone = {run.id for run in resolved.runs if run.folder in moved}
    due = {job.id for job in resolved.jobs if gone & {*job.runs}}
    assert preflight.lost_jobs(resolved) == due
    assert len((results / "index.csv").read_text().splitlines()) == 1 + 4 - count
    capsys.readouterr()
    assert main(["retrain", method, "--plan", str(plan), "--yes"]) == 0
    assert "nothing to move" in capsys.readouterr().out


def test_a_begun_run_is_moved_too_and_one_that_is_being_made_stops_everything(finished):
    resolved, results, _ = finished
    first = results / "runs" / resolved.runs[0].folder
    (first / "record.json").unlink()
    assert first not in retrain.folders(resolved, results, "maml")
    (first / "checkpoint-a.pt").write_bytes(b"")
    assert first in retrain.folders(resolved, results, "maml")
    with run_lock(first), pytest.raises(UserError, match="is being made now: wait for it"):
        retrain.folders(resolved, results, "maml")


def test_a_method_that_the_study_has_not_is_refused(finished):
    resolved, results, _ = finished
    with pytest.raises(UserError, match=r"unknown method of the study simulated 'mamml'.*'maml'"):
        retrain.folders(resolved, results, "mamml")


def test_runs_that_cannot_be_moved_stay_and_one_sentence_says_so(finished):
    resolved, results, _ = finished
    made = retrain.folders(resolved, results, "maml")
    (results / "aside").write_text("a file")
    with pytest.raises(UserError, match=r"runs cannot be moved from .* and nothing is lost\.$"):
        retrain.move(made, results, "maml")
    assert all(folder.exists() for folder in made)
