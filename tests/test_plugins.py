"""A new method, data set or network is one file: the templates work in a copy of the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.studies import plugged

ROOT = Path(__file__).parent.parent

CONFIG = {
    "study": "plugins",
    "seeds": 2,
    "experiments": {
        "e": plugged(
            steps=6,
            protocol_options={"val_every": 3, "val_tasks": 5},
            evaluation={"tasks": 10, "query": 3},
        )
    },
    "tables": {
        "t": {
            "kind": "accuracy",
            "experiment": "e",
            "title": "Plug-ins",
            "rows": [
                {"label": "Head only", "run": "headonly"},
                {"label": "Head only + CML", "run": "headonly+cml", "against": "headonly"},
            ],
        }
    },
}


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the sources with three new files, made from the templates.

    They are made as docs/extending.md says.
    """
    for name in ("cml_bench", "workflow", "profiles", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for folder, name in (("methods", "headonly"), ("data", "blobs"), ("networks", "shallow")):
        home = tmp_path / "cml_bench" / folder
        template = (home / "_template.py").read_text()
        assert template.count('register("template")') == 1
        renamed = template.replace('register("template")', f'register("{name}")')
        (home / f"{name}.py").write_text(renamed)
    (tmp_path / "plugins.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def python(folder: Path, *args: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *args], cwd=folder, capture_output=True, text=True, env=environment
    )


@pytest.mark.slow
def test_one_new_file_each_runs_through_the_whole_dag(copy):
    done = python(copy, "-m", "snakemake", "--cores", "2", "--configfile", "plugins.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Head only + CML" in done.stdout
    records = [
        json.loads(path.read_text()) for path in (copy / "results" / "runs").glob("*/record.json")
    ]
    assert (
        sorted(record["spec"]["method"] for record in records)
        == ["headonly"] * 2 + ["headonly+cml"] * 2
    )
    listed = python(copy, "-m", "cml_bench", "list", "methods", "--json")
    assert {"headonly", "headonly+cml", "maml"} <= set(json.loads(listed.stdout))
    traces = python(copy, "-m", "tests.make_traces")
    assert set(traces.stdout.split()) == {"wrote", "headonly.json", "headonly+cml.json"}, (
        traces.stderr
    )
    unlike = json.loads((copy / "tests" / "golden" / "traces" / "headonly.json").read_text())
    assert unlike != json.loads((copy / "tests" / "golden" / "traces" / "maml.json").read_text())
