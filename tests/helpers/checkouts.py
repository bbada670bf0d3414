"""The configuration of a tiny study, and Snakemake on it in a checkout."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
CONFIG = {
    "study": "tiny",
    "title": "A tiny study",
    "seeds": 2,
    "experiments": {
        "sinusoid": {
            "data": "sinusoid",
            "network": "mlp",
            "network_options": {"hidden": [8, 8]},
            "way": 1,
            "shots": [5],
            "query": "shot",
            "steps": 20,
            "protocol_options": {"val_every": 10, "val_tasks": 10},
            "evaluation": {"tasks": 20, "query": 10, "inner_steps": [0, 1]},
            "runs_per_job": 2,
            "methods": {
                "maml": {"options": {"inner_lr": 0.01}},
                "maml+cml": {"options": {"cml": {"gamma": 0.2}}},
            },
        },
        "glyphs": {
            "data": "glyphs",
            "data_options": {"size": 16},
            "network": "conv4",
            "network_options": {"filters": 4},
            "way": 5,
            "shots": [1],
            "query": 2,
            "steps": 2,
            "protocol_options": {"val_every": 1, "val_tasks": 4},
            "evaluation": {"tasks": 6, "query": 2},
            "methods": {"maml": {"options": {"inner_lr": 0.4}}, "maml+cml": {}, "pixel_nn": {}},
        },
    },
    "tables": {
        "sinusoid": {
            "kind": "regression",
            "experiment": "sinusoid",
            "title": "Sinusoid",
            "rows": [
                {"label": "MAML", "run": "maml"},
                {"label": "MAML + CML", "run": "maml+cml", "against": "maml"},
            ],
        },
        "table1": {
            "kind": "accuracy",
            "experiment": "glyphs",
            "title": "Glyphs",
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
            "kind": "curves",
            "experiment": "sinusoid",
            "title": "Curves",
            "tasks": [0, 1],
            "runs": [{"label": "MAML", "run": "maml"}, {"label": "MAML + CML", "run": "maml+cml"}],
        }
    },
}


def glyphs_experiment() -> dict:
    """The experiment on glyphs in CONFIG, with MAML alone."""
    return {**json.loads(json.dumps(CONFIG["experiments"]["glyphs"])), "methods": {"maml": {}}}


def snakemake(folder: Path, *args: str, config: str = "tiny.yaml") -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", config, *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def trained(done: subprocess.CompletedProcess) -> int:
    """The number of train jobs that Snakemake counted."""
    said = done.stdout + done.stderr
    dry = re.search(r"^train\s+(\d+)$", said, flags=re.MULTILINE)
    match = dry or re.search(r"^jobs to do: .*?trainings (\d+)", said, flags=re.MULTILINE)
    return int(match[1]) if match else 0


def changed(**fields) -> dict:
    """CONFIG with the sinusoid experiment alone, and other values of its ``fields``."""
    config = json.loads(json.dumps(CONFIG))
    config["experiments"] = {
        "sinusoid": {**config["experiments"]["sinusoid"], "runs_per_job": 1, **fields}
    }
    config["tables"] = {"sinusoid": config["tables"]["sinusoid"]}
    return {**config, "study": "grown", "figures": {}}


def start(
    folder: Path, config: dict, *args: str, **environment: str
) -> subprocess.CompletedProcess:
    (folder / "grown.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return snakemake(folder, *args, config="grown.yaml")
