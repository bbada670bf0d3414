"""``curves``: adapted curves of one seed's models on test tasks (figure 2)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from cml_bench.errors import UserError
from cml_bench.records import Store
from cml_bench.registry import figures
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import Arrays, FigureConfig, Seed, Wanted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

    from cml_bench.data.base import DataSet
    from cml_bench.data.episodes import Episodes

_POINTS = 201


@figures.register("curves")
class CurvesFigure(FigureConfig):
    """Truth, support points and adapted curves of a sinusoid."""

    needs_models = True

    kind: Literal["curves"]
    tasks: tuple[Seed, ...] = Field(
        (0, 1, 2), min_length=1, description="numbers of test tasks, from 0 on"
    )
    seed: Seed = 0

    @property
    def only_seed(self) -> int:
        """See :class:`FigureConfig`."""
        return self.seed

    def check_data(self, data: "type[DataSet]", place: str) -> None:
        """Its tasks are functions of one number."""
        if not data.draws_curves:
            raise UserError(
                f"{place}: adapted curves are drawn for sets such as sinusoid, not for {data.name}."
            )

    def of_seeds(self, runs: list[RunSpec]) -> list[RunSpec]:
        """The run of the seed that is drawn."""
        return [spec for spec in runs if spec.seed == self.seed]

    def identity(self, wanted: Wanted) -> Arrays:
        """The tasks, and the one run of each row."""
        first = [[runs[0].id for runs in rows] for rows in wanted.values()]
        return {"tasks": np.array(self.tasks), "runs": np.array(first)}

    def measured(self, wanted: Wanted, store: Store, data_dir: Path, place: str) -> Arrays:
        """``x`` (points,), and for each shot K ``truth/K`` (tasks, points), ``support_x/K`` and
        ``support_y/K`` (tasks, K), ``curves/K`` (rows, tasks, points).
        """
        from cml_bench.data.sinusoid import RANGE

        x = np.linspace(*RANGE, _POINTS)
        out: Arrays = {"x": x}
        for shot, rows in wanted.items():
            specs = [runs[0] for runs in rows]
            waves = _waves(specs[0], self.tasks, x)
            out |= {f"{name}/{shot}": value for name, value in waves.items()}
            lines = [
                _lines(store, spec, self.tasks, x, row.head)
                for row, spec in zip(self.runs, specs, strict=True)
            ]
            out[f"curves/{shot}"] = np.stack(lines)
        return out

    def drawn(self, arrays: Arrays, styles: Sequence[int]) -> "Picture":
        """One row of panels for each shot, one column for each task."""
        from matplotlib.figure import Figure

        from cml_bench.figures.style import legend

        shots, tasks = arrays["shots"].tolist(), arrays["tasks"].tolist()
        labels = arrays["labels"].tolist()
        picture = Figure(figsize=(3.1 * len(tasks), 2.4 * len(shots) + 0.7), layout="constrained")
        axes = picture.subplots(len(shots), len(tasks), squeeze=False, sharex=True)
        for i, shot in enumerate(shots):
            for j in range(len(tasks)):
                _panel(axes[i][j], arrays, shot, j)
        for axis in axes[-1]:
            axis.set_xlabel("x")
        for row in axes:
            row[0].set_ylabel("y")
        legend(picture, axes[0][0], ["truth", *labels, "support"], len(labels) + 2)
        picture.suptitle(self.title)
        return picture


def _panel(axis: "Axes", arrays: Arrays, shot: int, j: int) -> None:
    """One task at one number of shots."""
    from cml_bench.figures.style import line_style

    x, truth = arrays["x"], arrays[f"truth/{shot}"][j]
    axis.plot(x, truth, color="black", linewidth=1, linestyle="--", label="0")
    errors = []
    for k, label in enumerate(arrays["labels"].tolist()):
        line = arrays[f"curves/{shot}"][k, j]
        axis.plot(x, line, **line_style(k), linewidth=1.6, label=str(k))
        errors.append(f"{label} {np.mean((line - truth) ** 2):.2f}")
    points = arrays[f"support_x/{shot}"][j], arrays[f"support_y/{shot}"][j]
    axis.scatter(*points, color="black", s=14, zorder=3, label="support")
    task = arrays["tasks"][j]
    axis.set_title(f"{shot}-shot, test task {task}\nMSE: {', '.join(errors)}", fontsize=8)


def _sinusoids(spec: RunSpec) -> "Episodes":
    import torch

    from cml_bench.data.episodes import Episodes
    from cml_bench.data.sinusoid import Sinusoid
    from cml_bench.engine.build import build_data

    # A sinusoid has no files, so the folder of the data sets does not matter.
    data = build_data(spec).open(Path(), torch.device("cpu"), torch.float64)
    if not isinstance(data, Sinusoid):
        raise UserError(f"adapted curves are drawn for the sinusoid, not for {spec.data.name}.")
    return Episodes(data, "test", spec.way, spec.shot, spec.evaluation.query)


def _waves(spec: RunSpec, tasks: Sequence[int], x: np.ndarray) -> Arrays:
    from cml_bench.data.sinusoid import Sinusoid

    episodes = _sinusoids(spec)
    support = [episodes.batch(i, 1).support for i in tasks]
    waves = [Sinusoid.truth(episodes.key, i, spec.shot, spec.evaluation.query) for i in tasks]
    return {
        "truth": np.stack([amplitude * np.sin(x - phase) for amplitude, phase in waves]),
        "support_x": np.stack([s.x[0, :, 0].numpy() for s in support]),
        "support_y": np.stack([s.y[0, :, 0].numpy() for s in support]),
    }


def _lines(
    store: Store, spec: RunSpec, tasks: Sequence[int], x: np.ndarray, head: str
) -> np.ndarray:
    """The adapted curves (tasks, points) of one run."""
    import torch

    from cml_bench.engine.learner import load

    learner, episodes = load(store.folder(spec)), _sinusoids(spec)
    grid = torch.from_numpy(x).unsqueeze(1)
    lines = []
    for i in tasks:
        support = episodes.batch(i, 1).support
        adapted = learner.adapt(support.x[0], support.y[0])
        lines.append(adapted.predict(grid, head)[:, 0].double().numpy())
    return np.stack(lines)
