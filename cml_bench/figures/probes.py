"""What stored models do on given test tasks, as arrays for figures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cml_bench.data.episodes import Episodes, Examples, Task
from cml_bench.data.sinusoid import RANGE, Sinusoid
from cml_bench.engine.build import build_data, check_data_of
from cml_bench.engine.evaluate import ready
from cml_bench.engine.learner import Learner, load
from cml_bench.errors import UserError, unknown
from cml_bench.figures import measures
from cml_bench.methods.base import Groups, Method, Params
from cml_bench.records import Store
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import (
    CKAFigure,
    CurvesFigure,
    GradientsFigure,
    ProbeFigure,
    TSNEFigure,
)

Arrays = dict[str, np.ndarray]
Wanted = dict[int, list[list[RunSpec]]]  # shot -> the runs of each row, one a seed
_POINTS = 201


def curves(wanted: Wanted, figure: CurvesFigure, store: Store, data_dir: Path) -> Arrays:
    """Adapted curves of a sinusoid figure, of one seed.

    Returns ``x`` (points,) and for each shot K: ``truth/K`` (tasks, points), ``support_x/K`` and
    ``support_y/K`` (tasks, K), ``curves/K`` (rows, tasks, points).
    """
    tasks, x = figure.tasks, np.linspace(*RANGE, _POINTS)
    out: Arrays = {"x": x}
    for shot, rows in wanted.items():
        specs = [runs[0] for runs in rows]
        out |= {f"{name}/{shot}": value for name, value in _waves(specs[0], tasks, x).items()}
        lines = []
        for row, spec in zip(figure.runs, specs, strict=True):
            lines.append(_lines(store, spec, tasks, x, row.head))
        out[f"curves/{shot}"] = np.stack(lines)
    return out


def _sinusoids(spec: RunSpec) -> Episodes:
    data = build_data(spec).open(None, torch.device("cpu"), torch.float64)
    if not isinstance(data, Sinusoid):
        raise UserError(f"adapted curves are drawn for the sinusoid, not for {spec.data.name}.")
    return Episodes(data, "test", spec.way, spec.shot, spec.evaluation.query)


def _waves(spec: RunSpec, tasks: list[int], x: np.ndarray) -> Arrays:
    episodes = _sinusoids(spec)
    support = [episodes.batch(i, 1).support for i in tasks]
    waves = [Sinusoid.truth(episodes.key, i, spec.shot, spec.evaluation.query) for i in tasks]
    return {
        "truth": np.stack([amplitude * np.sin(x - phase) for amplitude, phase in waves]),
        "support_x": np.stack([s.x[0, :, 0].numpy() for s in support]),
        "support_y": np.stack([s.y[0, :, 0].numpy() for s in support]),
    }


def _lines(store: Store, spec: RunSpec, tasks: list[int], x: np.ndarray, head: str) -> np.ndarray:
    learner, episodes = load(store.folder(spec)), _sinusoids(spec)
    grid = torch.from_numpy(x).unsqueeze(1)
    found = []
    for i in tasks:
        support = episodes.batch(i, 1).support
        found.append(
            learner.adapt(support.x[0], support.y[0]).predict(grid, head)[:, 0].double().numpy()
        )
    return np.stack(found)


# -- figures 3c, 3d and 4
# ------------------------------------------------------------------------------


class Met(NamedTuple):
    """Some test tasks, and a model before and after it has adapted to them; tensors are (T,
    ...).
    """

    task: Task
    groups: Groups
    before: Params
    after: Params

    def examples(self, which: str) -> Examples:
        """``support`` or ``query``."""
        return self.task.query if which == "query" else self.task.support


def _opened(store: Store, spec: RunSpec, data_dir: Path) -> tuple[Learner, Episodes]:
    """A run's stored model and its test episodes, from the data that it was trained on."""
    learner = load(store.folder(spec), data_dir=data_dir)
    check_data_of(learner.record, data_dir)
    leaf = next(iter(learner.groups["base"].values()))
    data = learner.data or build_data(spec).open(data_dir, leaf.device, leaf.dtype)
    return learner, Episodes(data, "test", spec.way, spec.shot, spec.evaluation.query)


def meetings(learner: Learner, episodes: Episodes, tasks: int, first: int = 0) -> Iterator[Met]:
    """The model on test tasks ``first .. first+tasks-1``, a few at a time, adapted as it is
    tested.
    """
    method = learner.method
    at_once = method.network.tasks_at_once(episodes.data.device)
    for start in range(first, first + tasks, at_once):
        task = episodes.batch(start, min(at_once, first + tasks - start))
        wide = ready(method, learner.groups, task)
        path = list(method.trajectory(wide, task.support, method.inner_steps))
        before, after = (
            {name: p.detach() for name, p in params.items()} for params in (path[0], path[-1])
        )
        yield Met(task, wide, before, after)


def gradients(wanted: Wanted, figure: GradientsFigure, store: Store, data_dir: Path) -> Arrays:
    """Gradient norms for figure 3c: ``layers`` (layers,) and for each shot K ``norms/K`` (rows,
    seeds, layers).
    """

    def measure(learner: Learner, episodes: Episodes, row: dict[str, Any]) -> dict[str, float]:
        heads = (row.head,) if figure.loss == "head" else learner.method.heads
        total: dict[str, float] = {}
        for met in meetings(learner, episodes, figure.tasks):
            for name, value in gradient_norms(learner.method, met, heads, figure).items():
                total[name] = total.get(name, 0.0) + value.sum().item()
        return {name: value / figure.tasks for name, value in total.items()}

    return _by_layer(wanted, figure, store, data_dir, "norms", measure)


def gradient_norms(
    method: Method, met: Met, heads: tuple[str, ...], figure: GradientsFigure
) -> dict[str, Tensor]:
    """Norm (T,) of the gradient of each layer's weights, by the layer's name; see GradientsFigure
    for the options.
    """
    examples, names = (
        met.examples(figure.examples),
        [f"{layer}.weight" for layer in method.network.layers],
    )
    if figure.at == "initial":
        start = met.groups["base"]
        order = {"create_graph": method.second_order}
        *_, params = method.trajectory(met.groups, met.task.support, method.inner_steps, **order)
    else:
        start = params = {name: p.requires_grad_() for name, p in met.after.items()}
    outputs = method.outputs(met.groups, params, examples.x, heads)
    weight = {head: method.head_weight(head) if figure.loss == "outer" else 1.0 for head in heads}
    loss = sum(weight[head] * method.criterion(outputs[head], examples.y).sum() for head in heads)
    grads = torch.autograd.grad(loss, [start[name] for name in names], materialize_grads=True)
    return {
        name.removesuffix(".weight"): torch.linalg.vector_norm(grad.flatten(1).double(), dim=1)
        for name, grad in zip(names, grads, strict=True)
    }


def similarity(wanted: Wanted, figure: CKAFigure, store: Store, data_dir: Path) -> Arrays:
    """CKA before and after adaptation for figure 3d: ``layers``, and for each shot K ``cka/K``.

    ``cka/K`` is (rows, seeds, layers).
    """

    def measure(learner: Learner, episodes: Episodes, row: dict[str, Any]) -> dict[str, float]:
        head, values = row.head, {}
        for met in meetings(learner, episodes, figure.tasks):
            x = met.examples(figure.examples).x
            before, after = (
                layers(learner.method, met.groups, p, x, head) for p in (met.before, met.after)
            )
            for name in before:
                pairs = zip(before[name], after[name], strict=True)
                values.setdefault(name, []).extend(
                    measures.linear_cka(a, b, figure.estimator) for a, b in pairs
                )
        return {name: float(np.nanmean(found)) for name, found in values.items()}

    return _by_layer(wanted, figure, store, data_dir, "cka", measure)


def layers(method: Method, groups: Groups, params: Params, x: Tensor, head: str) -> Arrays:
    """Outputs (T, n, ...) of each layer of psi, and of ``head`` under that name."""
    with torch.no_grad():
        found = {
            **method.activations(groups, params, x),
            "head": method.outputs(groups, params, x, (head,))[head],
        }
    return {name: value.double().numpy() for name, value in found.items()}


def _by_layer(
    wanted: Wanted, figure: ProbeFigure, store: Store, data_dir: Path, name: str, measure
) -> Arrays:
    """``measure(learner, episodes, row)`` gives a number by layer: all rows, seeds and shots as
    arrays.
    """
    found = {
        shot: [
            [measure(*_opened(store, spec, data_dir), row) for spec in runs]
            for row, runs in zip(figure.runs, rows, strict=True)
        ]
        for shot, rows in wanted.items()
    }
    names = list(
        dict.fromkeys(key for rows in found.values() for row in rows for one in row for key in one)
    )
    out: Arrays = {"layers": np.array(names)}
    for shot, rows in found.items():
        seeds = max(len(row) for row in rows)
        values = np.full((len(rows), seeds, len(names)), np.nan)
        for i, row in enumerate(rows):
            for j, one in enumerate(row):
                values[i, j] = [one.get(key, np.nan) for key in names]
        out[f"{name}/{shot}"] = values
    return out


PANELS = ("before", "after", "queries")


def embedding(wanted: Wanted, figure: TSNEFigure, store: Store, data_dir: Path) -> Arrays:
    """t-SNE of one task and silhouettes of many, for figure 4.

    For each shot K: ``labels/K/PANEL`` (n,), ``points/K/PANEL`` (rows, n, 2), ``score/K/PANEL``
    (rows, seeds) mean silhouettes over the tasks, ``drawn/K/PANEL`` (rows,) that of the drawn task;
    PANEL: before, after, queries.
    """
    out: Arrays = {}
    for shot, rows in wanted.items():
        seeds = max(len(runs) for runs in rows)
        for panel in PANELS:
            out[f"score/{shot}/{panel}"] = np.full((len(rows), seeds), np.nan)
        points: dict[str, list[np.ndarray]] = {panel: [] for panel in PANELS}
        drawn: dict[str, list[float]] = {panel: [] for panel in PANELS}
        for i, runs in enumerate(rows):
            for j, spec in enumerate(runs):
                learner, episodes = _opened(store, spec, data_dir)
                scores: dict[str, list[float]] = {panel: [] for panel in PANELS}
                for met in meetings(learner, episodes, figure.tasks):
                    for panel, (features, labels) in _clouds(learner.method, met, figure).items():
                        pairs = zip(features, labels, strict=True)
                        scores[panel] += [measures.silhouette(*pair) for pair in pairs]
                for panel in PANELS:
                    out[f"score/{shot}/{panel}"][i, j] = np.mean(scores[panel])
                if (
                    spec.seed == figure.seed and len(points["before"]) == i
                ):  # of several class splits the first
                    (met,) = meetings(learner, episodes, 1, figure.task)
                    for panel, (features, labels) in _clouds(learner.method, met, figure).items():
                        points[panel].append(measures.tsne(features[0], figure.perplexity))
                        drawn[panel].append(measures.silhouette(features[0], labels[0]))
                        out[f"labels/{shot}/{panel}"] = labels[0]
        for panel in PANELS:
            out |= {
                f"points/{shot}/{panel}": np.stack(points[panel]),
                f"drawn/{shot}/{panel}": np.array(drawn[panel]),
            }
    return out


def _clouds(
    method: Method, met: Met, figure: TSNEFigure
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Panel -> features (T, n, ...) and labels (T, n)."""
    shown, found = met.examples(figure.examples), {}
    for panel, params, examples in (
        ("before", met.before, shown),
        ("after", met.after, shown),
        ("queries", met.after, met.task.query),
    ):
        with torch.no_grad():
            if not figure.layer:
                features = method.features(met.groups, params, examples.x)
            else:
                by_name = method.activations(met.groups, params, examples.x)
                if figure.layer not in by_name:
                    raise unknown("layer", figure.layer, by_name)
                features = by_name[figure.layer]
        found[panel] = features.double().numpy(), examples.y.numpy()
    return found
