"""Predictions of stored models on given test tasks, as arrays for figures."""

from typing import Any

import numpy as np
import torch

from cml_bench.data.sinusoid import RANGE, Sinusoid
from cml_bench.engine.train import build_data
from cml_bench.episodes import Episodes
from cml_bench.errors import UserError
from cml_bench.learner import load
from cml_bench.records import Store
from cml_bench.spec import RunSpec

_POINTS = 201


def curves(plan: dict[str, Any], key: str, store: Store) -> dict[str, np.ndarray]:
    """Adapted curves of a sinusoid figure.

    Returns ``x`` (points,), ``shots``, ``tasks``, ``labels``, and for each shot K: ``truth/K`` (tasks, points),
    ``support_x/K`` and ``support_y/K`` (tasks, K), ``curves/K`` (rows, tasks, points).
    """
    figure = plan["figures"][key]
    experiment = plan["study"]["experiments"][figure["experiment"]]
    shots, tasks = sorted(experiment["shots"]), figure["tasks"]
    x = np.linspace(*RANGE, _POINTS)
    out: dict[str, np.ndarray] = {"x": x, "shots": np.array(shots), "tasks": np.array(tasks)}
    out["labels"] = np.array([row["label"] for row in figure["runs"]])
    for shot in shots:
        specs = [_spec(plan, figure, experiment, row["run"], shot) for row in figure["runs"]]
        out |= {f"{name}/{shot}": value for name, value in _tasks(specs[0], tasks, x).items()}
        lines = []
        for row, spec in zip(figure["runs"], specs, strict=True):
            if store.read(spec) is None:
                raise UserError(f"{key} needs a run that is not finished: {spec.title}.")
            head = "meta" if row["reading"] == "meta" else "co"
            lines.append(_lines(store, spec, tasks, x, head))
        out[f"curves/{shot}"] = np.stack(lines)
    return out


def _spec(plan: dict[str, Any], figure: dict[str, Any], experiment: dict[str, Any], run: str, shot: int) -> RunSpec:
    wanted = plan["members"][figure["experiment"]][run][str(shot)]
    specs = [RunSpec.model_validate(item["spec"]) for item in plan["runs"] if item["id"] in wanted]
    chosen = [spec for spec in specs if spec.seed == figure["seed"]]
    if not chosen:
        raise UserError(f"{figure['title']}: the run {run!r} at {shot}-shot has no seed {figure['seed']}.")
    return chosen[0]


def _episodes(spec: RunSpec) -> Episodes:
    data = build_data(spec).open(None, torch.device("cpu"), torch.float64)
    if not isinstance(data, Sinusoid):
        raise UserError(f"adapted curves are drawn for the sinusoid, not for {spec.data.name}.")
    return Episodes(data, "test", spec.way, spec.shot, spec.evaluation.query)


def _tasks(spec: RunSpec, tasks: list[int], x: np.ndarray) -> dict[str, np.ndarray]:
    episodes = _episodes(spec)
    support = [episodes.batch(i, 1).support for i in tasks]
    waves = [Sinusoid.truth(episodes.key, i, spec.shot, spec.evaluation.query) for i in tasks]
    return {
        "truth": np.stack([amplitude * np.sin(x - phase) for amplitude, phase in waves]),
        "support_x": np.stack([s.x[0, :, 0].numpy() for s in support]),
        "support_y": np.stack([s.y[0, :, 0].numpy() for s in support]),
    }


def _lines(store: Store, spec: RunSpec, tasks: list[int], x: np.ndarray, head: str) -> np.ndarray:
    learner, episodes = load(store.folder(spec)), _episodes(spec)
    grid = torch.from_numpy(x).unsqueeze(1)
    found = []
    for i in tasks:
        support = episodes.batch(i, 1).support
        found.append(learner.adapt(support.x[0], support.y[0]).predict(grid, head)[:, 0].double().numpy())
    return np.stack(found)
