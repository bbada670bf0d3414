"""Studies with made-up results: real plans and real record files, but no training."""

from pathlib import Path
from typing import Any

import numpy as np

from cml_bench.records import Store, write_episodes, write_record
from cml_bench.spec import RunSpec, canonical
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve

ANSWERS = 100  # in each episode
LEVEL = {"base": 60.0, "meta": 63.0, "co": 64.0}  # percent: +CML gains, its co head more


ROWS = [
    {"label": "MAML", "run": "maml"},
    {"label": "MAML + CML", "run": "maml+cml", "against": "maml"},
    {"label": "MAML + CML†", "run": "maml+cml", "reading": "co", "against": "maml"},
]


def experiment(tasks: int, **changes) -> dict[str, Any]:
    """MAML and MAML + CML on glyphs at two shots; ``changes`` replace keys."""
    return {
        "data": "glyphs",
        "network": "conv4",
        "way": 5,
        "shots": [1, 5],
        "query": 5,
        "steps": 100,
        "evaluation": {"tasks": tasks, "query": 5},
        "methods": {"maml": {}, "maml+cml": {}},
        **changes,
    }


def study(seeds: int = 5, kind: str = "accuracy", tasks: int = 400) -> dict[str, Any]:
    """A resolved plan of MAML and MAML + CML (and its co head) at two shots."""
    sinusoid = {
        "data": "sinusoid",
        "network": "mlp",
        "way": 1,
        "evaluation": {"tasks": tasks, "query": 5, "inner_steps": [0, 1]},
    }
    config = {
        "study": "simulated",
        "title": "A 100 % made-up study",
        "seeds": seeds,
        "experiments": {"e": experiment(tasks, **(sinusoid if kind == "regression" else {}))},
        "tables": {
            "table1": {
                "kind": kind,
                "experiment": "e",
                "title": "T & U",
                "caption": "C_1",
                "rows": ROWS,
            }
        },
    }
    return resolve(parse(config, "test"), "test")


def finish(
    resolved: dict[str, Any],
    results: Path,
    level: dict[str, float],
    seed_sd: float = 1.0,
    status=None,
    only=None,
) -> Store:
    """Write a record of every run, with scores around ``level[reading]``.

    Scores are percent, or squared errors. Runs of no steps may have a level ``untrained``.
    Seeds differ by ``seed_sd``; the base run and the +CML run of one seed differ alike up to a
    tenth of it; episodes differ by 10. ``status`` gives a run's status from its specification,
    ``only`` says which runs are finished.
    """
    store, rng = Store(results), np.random.default_rng(0)
    seed_part = rng.normal(0, seed_sd, 100)
    for run in resolved.runs:
        spec = run.spec
        if only is None or only(spec):
            folder = store.folder(spec)
            folder.mkdir(parents=True)
            arrays = {}
            readings = ("meta", "co") if spec.method.endswith("+cml") else ("meta",)
            for reading in readings if spec.evaluation.tasks else ():
                name = "base" if spec.method == "maml" else reading
                centre = level[name] if spec.steps else level.get("untrained", level[name])
                mean = centre + seed_part[spec.seed % 100] + rng.normal(0, seed_sd / 10)
                arrays |= _arrays(spec, reading, mean, rng)
            write_episodes(folder, arrays)
            content = _content(spec, status(spec) if status else "finished")
            if content["status"] != "diverged":
                parts = 1 if content["kind"] == "regression" else ANSWERS
                content["results"] = {key: float(x.mean()) / parts for key, x in arrays.items()}
            write_record(folder, content)
    return store


def _arrays(
    spec: RunSpec, reading: str, mean: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    tasks = spec.evaluation.tasks
    if spec.data.name == "sinusoid":
        return {
            f"{reading}@{k}": np.abs(mean / (k + 1) + rng.normal(0, 0.1, tasks)) for k in (0, 1)
        }
    scores = np.clip(np.round(mean + rng.normal(0, 10, tasks)), 0, ANSWERS)
    return {f"{reading}@1": scores.astype(np.uint16)}


def _content(spec: RunSpec, status: str) -> dict[str, Any]:
    cml = spec.method.endswith("+cml")
    regression = spec.data.name == "sinusoid"
    return {
        "format": 1,
        "id": spec.id,
        "spec": canonical(spec),
        "status": status,
        "kind": "regression" if regression else "classification",
        "evaluation": spec.evaluation.model_dump(mode="json"),
        "answers_per_episode": ANSWERS,
        "parameters": {
            "test": 1000,
            "co": 500 if cml else 0,
            "train": 1500 if cml else 1000,
            "co_at_test": 1400,
        },
        "flops": {"training": 120 if cml else 100, "adaptation": 1, "inference": 1},
        "seconds": {"train": 13.0 if cml else 10.0, "validation": 1.0, "test": 1.0},
        "curves": {
            "step": [0, 50, 100],
            "train": {"score_meta": [None, 0.3, 0.4]},
            "validation": {"score_meta": [0.2, 0.4, 0.5]},
        },
        "data_sha256": "0" * 64,
        "results": {},
        "created": "2026-01-01T00:00:00+00:00",
        "versions": {"cml_bench": "0", "torch": "0", "numpy": "0", "python": "0"},
        "machine": {"processor": "none", "cores": 0, "system": "none"},
        "engine": {"device": "cpu", "threads": 1, "path": "fast"},
    }
