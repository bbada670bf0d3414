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


def curves(wanted: dict[int, list[RunSpec]], figure: dict[str, Any], store: Store) -> dict[str, np.ndarray]:
    """Adapted curves of a sinusoid figure: ``wanted`` gives for each shot K the finished run of each row.

    Returns ``x`` (points,) and for each shot K: ``truth/K`` (tasks, points), ``support_x/K`` and ``support_y/K``
    (tasks, K), ``curves/K`` (rows, tasks, points).
    """
    tasks, x = figure["tasks"], np.linspace(*RANGE, _POINTS)
    out: dict[str, np.ndarray] = {"x": x}
    for shot, specs in wanted.items():
        out |= {f"{name}/{shot}": value for name, value in _tasks(specs[0], tasks, x).items()}
        lines = []
        for row, spec in zip(figure["runs"], specs, strict=True):
            head = "meta" if row["reading"] == "meta" else "co"
            lines.append(_lines(store, spec, tasks, x, head))
        out[f"curves/{shot}"] = np.stack(lines)
    return out


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
