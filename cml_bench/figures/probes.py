"""What stored models do on test tasks: the tools of the kinds of figures that look at models."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cml_bench.data.episodes import Episodes, Examples, Task
from cml_bench.engine.build import build_data, check_data_of
from cml_bench.engine.evaluate import ready
from cml_bench.engine.learner import Learner, load
from cml_bench.methods.base import Groups, Params
from cml_bench.records import Store
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import Arrays, Row, Wanted

Measure = Callable[[Learner, Episodes, Row], dict[str, float]]  # a number by layer


class Met(NamedTuple):
    """Some test tasks, and a model before and after its adaptation to them: tensors (T, ...)."""

    task: Task
    groups: Groups
    before: Params
    after: Params

    def examples(self, which: str) -> Examples:
        """``support`` or ``query``."""
        return self.task.query if which == "query" else self.task.support


def opened(store: Store, spec: RunSpec, data_dir: Path) -> tuple[Learner, Episodes]:
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


def by_layer(
    lines: Sequence[Row],
    wanted: Wanted,
    store: Store,
    data_dir: Path,
    name: str,
    measure: Measure,
) -> Arrays:
    """``layers`` (layers,), and for each shot K ``name/K`` (rows, seeds, layers) as measured.

    nan where a row has fewer seeds than another, or a network lacks the layer.
    """
    measured = {
        shot: [
            [measure(*opened(store, spec, data_dir), row) for spec in runs]
            for row, runs in zip(lines, rows, strict=True)
        ]
        for shot, rows in wanted.items()
    }
    every = [one for rows in measured.values() for row in rows for one in row]
    names = list(dict.fromkeys(layer for one in every for layer in one))
    out: Arrays = {"layers": np.array(names)}
    for shot, rows in measured.items():
        values = np.full((len(rows), max(map(len, rows)), len(names)), np.nan)
        for i, row in enumerate(rows):
            for j, one in enumerate(row):
                values[i, j] = [one.get(layer, np.nan) for layer in names]
        out[f"{name}/{shot}"] = values
    return out
