"""Files and options that commands are given and cannot use: plans, specifications, numbers."""

import json

import pytest

from cml_bench import registry
from cml_bench.__main__ import main
from cml_bench.engine.build import Settings
from cml_bench.engine.jobs import run_all
from cml_bench.engine.run import run
from cml_bench.errors import UserError
from cml_bench.records import Store
from cml_bench.spec import canonical
from tests.helpers.cases import said
from tests.helpers.simulated import study
from tests.helpers.specs import sinusoid_spec


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
    """The other runs of its job are trained, and `status` can say why this one is not."""
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
    """``run`` is called directly here, without the checks of the command line."""
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
