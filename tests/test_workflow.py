"""The DAG as a user runs it, on a study of seconds."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent

CONFIG = {
    "study": "tiny",
    "title": "A tiny study",
    "seeds": 2,
    "experiments": {
        "sinusoid": {
            "data": "sinusoid", "network": "mlp", "network_options": {"hidden": [8, 8]}, "way": 1, "shots": [5],
            "query": "shot", "steps": 20, "protocol_options": {"val_every": 10, "val_tasks": 10},
            "evaluation": {"tasks": 20, "query": 10, "inner_steps": [0, 1]}, "runs_per_job": 2,
            "methods": {"maml": {"options": {"inner_lr": 0.01}}, "maml+cml": {"options": {"cml": {"gamma": 0.2}}}},
        },
        "glyphs": {
            "data": "glyphs", "data_options": {"size": 16}, "network": "conv4", "network_options": {"filters": 4},
            "way": 5, "shots": [1], "query": 2, "steps": 2, "protocol_options": {"val_every": 1, "val_tasks": 4},
            "evaluation": {"tasks": 6, "query": 2},
            "methods": {"maml": {"options": {"inner_lr": 0.4}}, "maml+cml": {}, "pixel_nn": {}},
        },
    },
    "tables": {
        "sinusoid": {
            "kind": "regression", "experiment": "sinusoid", "title": "Sinusoid",
            "rows": [{"label": "MAML", "run": "maml"}, {"label": "MAML + CML", "run": "maml+cml", "against": "maml"}],
        },
        "table1": {
            "kind": "accuracy", "experiment": "glyphs", "title": "Glyphs",
            "rows": [
                {"label": "Pixel nearest neighbour", "run": "pixel_nn"},
                {"label": "MAML", "run": "maml"},
                {"label": "MAML + CML", "run": "maml+cml", "against": "maml"},
                {"label": "MAML + CML†", "run": "maml+cml", "reading": "co", "against": "maml"},
            ],
        },
    },
    "figures": {
        "figure2": {
            "kind": "curves", "experiment": "sinusoid", "title": "Curves", "tasks": [0, 1],
            "runs": [{"label": "MAML", "run": "maml"}, {"label": "MAML + CML", "run": "maml+cml"}],
        }
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """What a clone has, without results: the workflow in a folder of its own."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("workflow", "profiles", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


def snakemake(folder: Path, *args: str, config: str = "tiny.yaml") -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", config, *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def trained(done: subprocess.CompletedProcess) -> int:
    """How many train jobs Snakemake counted."""
    found = re.search(r"^train\s+(\d+)$", done.stdout + done.stderr, flags=re.MULTILINE)
    return int(found[1]) if found else 0


@pytest.mark.slow
def test_a_study_from_nothing_to_its_report_and_what_a_second_start_does(checkout):
    done = snakemake(checkout)
    assert done.returncode == 0, done.stderr[-3000:]
    assert trained(done) == 2 + 5
    assert "MAML + CML" in done.stdout, "the tables end in the terminal"
    out = checkout / "results" / "tiny"
    for made in ("report.html", "tables/sinusoid.md", "tables/table1.tex", "tables/table1.csv", "figures/figure2.png"):
        assert (out / made).stat().st_size > 200, made
    records = sorted((checkout / "results" / "runs").glob("*/record.json"))
    assert len(records) == 4 + 5
    before = {path: path.read_bytes() for path in records}

    again = snakemake(checkout)
    assert again.returncode == 0
    assert trained(again) == 0
    assert "rendering" not in again.stdout + again.stderr, "nothing is made again"
    assert "MAML + CML" in again.stdout, "the tables are shown all the same"

    # An edited title changes the tables, and trains nothing.
    edited = json.loads(json.dumps(CONFIG))
    edited["tables"]["table1"]["title"] = "Another title"
    (checkout / "edited.yaml").write_text(yaml.safe_dump(edited))
    retitled = snakemake(checkout, config="edited.yaml")
    assert retitled.returncode == 0, retitled.stderr[-3000:]
    assert trained(retitled) == 0
    assert "Another title" in retitled.stdout

    # A lost stamp, or a job planned anew, finds its runs finished.
    for stamp in (checkout / "results" / "done").glob("*.json"):
        stamp.unlink()
    more = snakemake(checkout, "--config", "seeds=3")
    assert more.returncode == 0, more.stderr[-3000:]
    assert {path: path.read_bytes() for path in records} == before
    assert len(list((checkout / "results" / "runs").glob("*/record.json"))) == 6 + 7


@pytest.mark.slow
def test_one_table_is_a_target(checkout):
    dry = snakemake(checkout, "-n", "table1", "--config", "results=elsewhere")
    assert dry.returncode == 0, dry.stderr[-2000:]
    assert "rendering tables" in dry.stdout + dry.stderr


@pytest.mark.slow
def test_a_wrong_configuration_stops_before_anything_runs(checkout):
    bad = json.loads(json.dumps(CONFIG))
    bad["experiments"]["glyphs"]["network"] = "conv5"
    (checkout / "bad.yaml").write_text(yaml.safe_dump(bad))
    done = snakemake(checkout, config="bad.yaml")
    assert done.returncode != 0
    assert "unknown network 'conv5'. Did you mean 'conv4'?" in done.stderr
    assert "Traceback" not in done.stderr
