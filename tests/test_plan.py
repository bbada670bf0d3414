"""From configuration to plan: what is shared, what is grouped, and errors that name the culprit."""

import datetime
import json
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from cml_bench.costs import estimate
from cml_bench.errors import UserError
from cml_bench.study import cost, plan, preflight
from cml_bench.study.config import parse, read
from cml_bench.study.resolve import resolve
from tests.helpers.studies import changed, study

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"data_options\.x \(nan\)"),
        (float("-inf"), r"data_options\.x \(-inf\)"),
        (datetime.date(2024, 7, 15), r"data_options\.x \(date\)"),
        ([1, b"y"], r"data_options\.x\.1 \(bytes\)"),
        ({1: 2, "a": 3}, r"the key 1 in experiments\.s\.data_options\.x"),
    ],
)
def test_what_json_does_not_know_is_named_with_its_key(value, message, tmp_path):
    content = changed("experiments.s.data_options", {"x": value}) | {"results": str(tmp_path)}
    with pytest.raises(
        UserError, match=rf"my\.yaml: .*{message}.* is no number, word, list or mapping"
    ) as found:
        plan.cached(content, "my.yaml")
    assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_a_damaged_cached_plan_is_resolved_anew(tmp_path, monkeypatch):
    content = study(results=str(tmp_path))
    first = plan.cached(content, "test")
    path, whole = Path(first.path), Path(first.path).read_bytes()
    monkeypatch.setattr(plan, "_resolved_apart", lambda *_: path.write_bytes(whole) and first)
    for damaged in (b"{", b"[]", b"{}", b"\xff", whole[:-9]):
        path.write_bytes(damaged)
        assert plan.cached(content, "test") == first


def test_data_that_a_person_must_fetch_makes_its_runs_not_run(tmp_path, monkeypatch):
    from cml_bench import registry
    from cml_bench.data._source import RemoteFile

    omniglot = registry.datasets.get("omniglot")
    files = (
        RemoteFile("images.zip", (), 1, "0" * 64, page="https://example.org/ask"),
        *omniglot.files,
    )
    monkeypatch.setattr(omniglot, "files", files)
    content = study(data_dir=str(tmp_path), tables={})
    content["experiments"]["o"] = {
        "data": "omniglot",
        "network": "conv4",
        "shots": [1],
        "steps": 1,
        "methods": {"maml": {}},
    }
    resolved = estimate.add(resolve(parse(content, "test"), "test"))
    reasons = preflight.not_run(resolved)
    assert len(reasons) == 2
    reason = next(iter(reasons.values()))
    assert (
        "images.zip of omniglot must be fetched by hand: get it from https://example.org/ask and"
        " put it at" in reason
    )
    assert f"not run, 2 runs: {reason}" in cost.summary(resolved)
    place = tmp_path / "downloads" / "omniglot" / "images.zip"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x")
    assert not preflight.not_run(resolved)


def test_runs_jobs_and_cells():
    resolved = resolve(parse(study(), "test"), "test")
    assert len(resolved.runs) == 2 * 2 * 2
    assert [len(job.runs) for job in resolved.jobs] == [1] * 8
    assert len(resolved.cells) == 2 * 2
    cell = next(c for c in resolved.cells if c.row == "CML" and c.shot == 10)
    titles = {run.id: run.title for run in resolved.runs}
    assert [titles[i] for i in cell.runs] == [
        f"maml+cml on sinusoid, 1-way 10-shot, seed {s}" for s in (0, 1)
    ]
    assert [titles[i] for i in cell.against] == [
        f"maml on sinusoid, 1-way 10-shot, seed {s}" for s in (0, 1)
    ]
    assert set(resolved.tables) == {"sinusoid"}


def test_cml_inherits_its_baselines_options_and_differs_in_its_own_keys_only():
    resolved = resolve(parse(study(), "test"), "test")
    by_title = {run.title: run.spec for run in resolved.runs}
    base, cml = (by_title[f"{m} on sinusoid, 1-way 5-shot, seed 1"] for m in ("maml", "maml+cml"))
    assert {key for key in type(base).model_fields if getattr(base, key) != getattr(cml, key)} == {
        "method",
        "options",
    }
    assert {key: value for key, value in cml.options.items() if key != "cml"} == base.options


def test_equal_runs_of_two_experiments_are_one_and_get_the_larger_evaluation():
    content = study()
    second = json.loads(json.dumps(content["experiments"]["s"]))
    second["evaluation"] = {"tasks": 900, "inner_steps": [0, 1]}
    content["experiments"]["t"] = second
    resolved = resolve(parse(content, "test"), "test")
    assert len(resolved.runs) == 8
    assert all(run.spec.evaluation.tasks == 900 for run in resolved.runs)


def test_runs_per_job_groups_runs():
    resolved = resolve(parse(changed("experiments.s.runs_per_job", 3), "test"), "test")
    assert [len(job.runs) for job in resolved.jobs] == [3, 3, 2]
    assert sorted(i for job in resolved.jobs for i in job.runs) == sorted(
        run.id for run in resolved.runs
    )


def test_an_added_seed_leaves_the_other_runs_as_they_are():
    two, three = ({r.id for r in resolve(parse(study(seeds=n), "t"), "t").runs} for n in (2, 3))
    assert two < three
    assert len(three - two) == 4


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sedes", 3, r"unknown key 'sedes'; known keys: study"),
        ("experiments.s.shoots", [1], r"unknown key 'experiments\.s\.shoots'"),
        (
            "experiments.s.data",
            "sinusoit",
            r"unknown data set 'sinusoit'\. Did you mean 'sinusoid'\?",
        ),
        ("experiments.s.network", "conv5", r"unknown network 'conv5'\. Did you mean 'conv4'\?"),
        ("experiments.s.methods", {"mmal": {}}, r"unknown method 'mmal'\. Did you mean 'maml'\?"),
        ("experiments.s.methods", {"pixel_nn+cml": {}}, "does not accept a co-learner"),
        (
            "experiments.s.methods.maml.options",
            {"inner_rate": 1},
            r"method maml: unknown key 'inner_rate'; known",
        ),
        (
            "experiments.s.methods.maml.options",
            {"inner_lr": -1},
            r"inner_lr: .*greater than or equal to 0",
        ),
        ("experiments.s.way", 5, "way must be 1"),
        (
            "experiments.s.protocol",
            "offical",
            r"unknown protocol preset 'offical'\. Did you mean 'official'",
        ),
        ("experiments.s.protocol_options", {"val_evry": 1}, r"unknown key 'val_evry'"),
        ("tables.sinusoid.rows.1.against", "nobody", r"row 'CML' names the run 'nobody'"),
        ("tables.sinusoid.experiment", "x", r"names the experiment 'x'; there are: s"),
        ("seeds", [1, 1], "distinct"),
        ("seeds", 0, "at least one"),
        ("study", "Bad Name", "study: "),
        ("seeds", 200_000, "seeds: .*at most 1,000 seeds"),
        ("seeds", list(range(1001)), "seeds: .*at most 1000 items"),
        ("seeds", -1, "at least one; got none"),
        (
            "experiments.s.steps",
            10**10,
            r"steps: .*less than or equal to 1000000000 \(got 10000000000\)",
        ),
        ("experiments.s.shots", [10**6], "shots.0: .*less than or equal to 100000"),
        ("device", "foo", "device: .*should match pattern"),
        (
            "acknowledged",
            ["sinusoit"],
            r"acknowledged: data set 'sinusoit'\. Did you mean 'sinusoid'",
        ),
        ("sources", {"omniglod": {}}, r"sources: data set 'omniglod'\. Did you mean 'omniglot'"),
        (
            "sources",
            {"omniglot": {"images.zip": {"path": "x", "sha256": "0" * 64}}},
            "file of omniglot 'images.zip'",
        ),
        (
            "tables.sinusoid.rows.1.reading",
            "co_pared",
            r"row 'CML': reading 'co_pared'\. Did you mean 'co_paired'",
        ),
        (
            "tables.sinusoid.rows.0.reading",
            "co",
            r"row 'MAML': reading 'co'\..* Known: meta, meta_last",
        ),
        ("experiments.s.network", "conv4", "conv4 takes images"),
        (
            "experiments.s.network_options",
            {"hidden": [400_000]},
            "hidden.0: .*less than or equal to 65536",
        ),
        ("experiments.s.network_options", {"hidden": [1] * 101}, "hidden: .*at most 100 items"),
        (
            "experiments.s.network_options",
            {"extra_blocks": 101},
            "extra_blocks: .*less than or equal to 100",
        ),
        (
            "experiments.s.methods.maml.options",
            {"inner_steps": 10**6},
            "maml: inner_steps can be at most 200, not",
        ),
        (
            "experiments.s.methods.maml+cml.options",
            {"cml": {"depth": 10**6}},
            "at most 100 hidden layers, not 1000000",
        ),
        (
            "tables.sinusoid.kind",
            "accuracy",
            "kind accuracy is for classification, and sinusoid is regression",
        ),
        (
            "tables.sinusoid.inner_steps",
            [1, 3],
            "'MAML' shows .* after 3 inner steps, .* evaluated after 1: add 3",
        ),
        (
            "experiments.s.methods.maml.options",
            {"inner_lr": float("nan")},
            "inner_lr: .*finite number",
        ),
    ],
)
def test_bad_configurations_are_refused_by_name(path, value, message):
    content = changed(path, value)
    if path == "experiments.s.methods":
        content["tables"] = {}
    with pytest.raises(UserError, match=message):
        resolve(parse(content, "test"), "test")


def test_impossible_episodes_are_refused_when_planning():
    content = changed("experiments.s.data", "glyphs")
    content["experiments"]["s"] |= {"network": "conv4", "way": 5, "shots": [12], "query": 5}
    with pytest.raises(
        UserError, match="12 support and 5 query images of one class are impossible"
    ):
        resolve(parse(content, "test"), "test")


def test_a_task_too_small_for_a_method_is_refused_when_planning():
    content = changed("experiments.s.data", "sbm")
    content["experiments"]["s"] |= {
        "network": "gcn",
        "way": 2,
        "shots": [1],
        "query": 5,
        "methods": {"amm_gnn": {}},
        "evaluation": {"tasks": 10, "query": 3},
    }
    content["tables"] = {}
    with pytest.raises(UserError, match=r"amm_gnn: a task of 8 nodes has no set of 10: raise shot"):
        resolve(parse(content, "test"), "test")


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(UserError, match=r"no configuration file .*nowhere\.yaml"):
        read(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"bad\.yaml is not readable as YAML"):
        read(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(UserError, match=r"list\.yaml: a configuration is a mapping"):
        read(tmp_path / "list.yaml")


# counting the operations of all that the paper has takes a minute; test_grid.py resolves it in any
# case
SHIPPED = [
    pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem == "paper" else ())
    for path in sorted((ROOT / "configs").glob("*.yaml"))
]


@pytest.mark.parametrize("path", SHIPPED)
def test_a_shipped_configuration_resolves(path):
    resolved = estimate.add(resolve(read(path), str(path)))
    assert resolved.runs
    assert cost.summary(resolved).startswith(f"study {resolved.study.study}")


def test_a_cached_plan_is_read_without_resolving(tmp_path, monkeypatch):
    content = study(results=str(tmp_path))
    first = plan.cached(content, "test")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("resolved again"))
    assert plan.cached(content, "test") == first
    assert json.loads(Path(first.path).read_text())["runs"] == first.json_values()["runs"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_error_in_the_subprocess_is_the_users_error(tmp_path):
    content = changed("experiments.s.network", "conv5") | {
        "results": str(tmp_path / "a" / "results")
    }
    with pytest.raises(UserError, match=r"^my\.yaml, experiment 's': unknown network 'conv5'"):
        plan.cached(content, "my.yaml")
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_planning_process_that_is_killed_is_the_users_error_too(tmp_path, monkeypatch):
    killed = subprocess.CompletedProcess([], -9, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: killed)
    with pytest.raises(
        UserError,
        match=r"my\.yaml: planning was stopped \(exit code -9\), perhaps for want of memory",
    ):
        plan.cached(study(results=str(tmp_path)), "my.yaml")


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(
        UserError, match=r"the plan cannot be written to .*/results/plans \(Not a directory\)"
    ):
        plan.cached(study(results=str(tmp_path / "results")), "my.yaml")


# -- command line


def command(*args: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "cml_bench", *args], capture_output=True, text=True, **kwargs
    )


def test_commands_print_what_scripts_read(tmp_path):
    names = json.loads(command("list", "methods", "--json").stdout)
    assert {"maml", "maml+cml"} <= set(names)
    described = command(
        "describe",
        "--method",
        "maml+cml",
        "--network",
        "conv4",
        "--data",
        "glyphs",
        "--way",
        "5",
        "--shot",
        "1",
        "--json",
    )
    parameters = json.loads(described.stdout)["parameters"]
    assert parameters == {
        "training": 186_698,
        "test": {"meta": 112_261, "co": 186_373},
        "co_learner": 74_437,
    }
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(study()))
    resolved = json.loads(command("plan", "--config", str(config), "--json").stdout)
    assert set(resolved) >= {"runs", "cells", "tables"}


def test_a_users_error_is_one_paragraph_and_exit_code_2(tmp_path):
    done = command("plan", "--config", str(tmp_path / "no.yaml"))
    assert done.returncode == 2
    assert done.stderr == f"error: there is no configuration file {tmp_path / 'no.yaml'}.\n"
    assert "Traceback" not in command("train", str(tmp_path / "no.json")).stderr
    (tmp_path / "bad.json").write_text('{"methd": "maml"}')
    bad = command("train", str(tmp_path / "bad.json"))
    assert bad.returncode == 2
    assert re.match(r"error: .*bad\.json: .*unknown key 'methd'; known keys: method", bad.stderr)


@pytest.mark.parametrize(
    "name", ["fetch", "plan", "train", "evaluate", "table", "figure", "list", "describe"]
)
def test_help_names_every_command(name):
    assert name in command("--help").stdout
    assert command(name, "--help").returncode == 0


def test_a_study_names_the_path_of_computing_and_the_command_line_overrides_it():
    from cml_bench.commands_run import settings_of

    args = Namespace(
        results=None,
        data_dir=None,
        device="cpu",
        threads=1,
        engine=None,
        checkpoint_seconds=60.0,
        diagnostics="on",
    )
    planned = parse(study(engine="plain"), "test")
    assert settings_of(args).path == "auto"
    assert settings_of(args, planned).path == "plain"
    args.engine = "fast"
    assert settings_of(args, planned).path == "fast"
