"""From configuration to plan: shared runs, jobs, cached plans and the commands on them."""

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
        "images.zip of Omniglot must be fetched by hand: get it from https://example.org/ask and"
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


# Counting the operations of the whole paper takes a minute: test_benchmarks.py does it once.
LONG = ("graphs", "omniglot_methods")  # they have kinds of runs that take seconds to count
SHIPPED = [
    pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in LONG else ())
    for path in sorted((ROOT / "configs").glob("*.yaml"))
    if path.stem != "paper"
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
    task = "--method maml+cml --network conv4 --data glyphs --way 5 --shot 1"
    described = command("describe", *task.split(), "--json")
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
