"""``tsne``: t-SNE of one task's features before and after adaptation (figure 4)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from cml_bench.errors import UserError, unknown
from cml_bench.figures.kinds._captions import EXAMPLES
from cml_bench.records import Store
from cml_bench.registry import figures
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import Arrays, ProbeFigure, Seed, Wanted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture
    from torch import Tensor

    from cml_bench.data.episodes import Episodes
    from cml_bench.engine.learner import Learner
    from cml_bench.figures.probes import Met
    from cml_bench.methods.base import Method, Params

PANELS = {"before": "before adaptation", "after": "after adaptation", "queries": "queries"}
_MARKERS = "osD^vP*X"
_Clouds = dict[str, tuple[np.ndarray, np.ndarray]]  # panel -> features (T, n, ...), labels (T, n)


@figures.register("tsne")
class TSNEFigure(ProbeFigure):
    """One task is drawn, of one seed; silhouettes are over many tasks and all seeds."""

    data_kind = "classification"

    kind: Literal["tsne"]
    examples: Literal["query", "support"] = Field(
        "support", description="of the panels before and after adaptation"
    )
    task: Seed = Field(0, description="the test task that is drawn")
    seed: Seed = 0
    layer: str = Field("", description="name of a layer; empty: the features that the heads read")
    perplexity: float = Field(8.0, gt=0, le=1000)

    @property
    def only_seed(self) -> int:
        """See :class:`FigureConfig`."""
        return self.seed

    def definition(self, unit: str) -> str:
        """As said in the caption."""
        layer = f"The output of {self.layer}" if self.layer else "The features that the heads read"
        return (
            f"{layer}, of {EXAMPLES[self.examples]} of test task {self.task} before and after"
            f" adaptation, and of its queries after it; seed {self.seed}; each panel embedded alone"
            f" by t-SNE (perplexity {self.perplexity:g}, start by PCA). Above each panel the"
            f" silhouette of the classes in the features themselves: mean over {self.tasks} test"
            f" tasks and all {unit} ± its 95 % t interval over {unit}; in brackets the drawn"
            " task's. Models of the best validation by the meta head."
        )

    def check_run(
        self, spec: RunSpec, readings: Sequence[str], layers: Sequence[str], place: str
    ) -> None:
        """Each panel has enough examples for the perplexity."""
        least = min(self.shown(spec), spec.way * spec.evaluation.query)
        if self.perplexity >= least:
            raise UserError(
                f"{place}: t-SNE of {least} examples needs a perplexity below their"
                f" number, not {self.perplexity:g}: lower it, or leave {spec.shot} out of the"
                " figure's shots."
            )

    def measured(self, wanted: Wanted, store: Store, data_dir: Path, place: str) -> Arrays:
        """For each shot K and panel P: ``labels/K/P`` (n,), ``points/K/P`` (rows, n, 2),
        ``score/K/P`` (rows, seeds) mean silhouettes over the tasks, ``drawn/K/P`` (rows,) that of
        the drawn task. P: before, after, queries.
        """
        out: Arrays = {}
        for shot, rows in wanted.items():
            seeds = max(len(runs) for runs in rows)
            scores = {panel: np.full((len(rows), seeds), np.nan) for panel in PANELS}
            drawn = []
            for i, runs in enumerate(rows):
                drawn.append(self._row(runs, store, data_dir, i, scores))
            for panel in PANELS:
                out |= {
                    f"score/{shot}/{panel}": scores[panel],
                    f"labels/{shot}/{panel}": drawn[-1][panel][2],
                    f"points/{shot}/{panel}": np.stack([one[panel][0] for one in drawn]),
                    f"drawn/{shot}/{panel}": np.array([one[panel][1] for one in drawn]),
                }
        return out

    def _row(
        self,
        runs: list[RunSpec],
        store: Store,
        data_dir: Path,
        i: int,
        scores: dict[str, np.ndarray],
    ) -> dict[str, tuple[np.ndarray, float, np.ndarray]]:
        """Fill in row ``i`` of the scores, and give panel -> points, silhouette and labels of the
        drawn task.
        """
        from cml_bench.figures import probes

        drawn: dict[str, tuple[np.ndarray, float, np.ndarray]] = {}
        for j, spec in enumerate(runs):
            learner, episodes = probes.opened(store, spec, data_dir)
            for panel, values in self._silhouettes(learner, episodes).items():
                scores[panel][i, j] = np.mean(values)
            if spec.seed == self.seed and not drawn:  # of several class splits the first
                drawn = self._embedded(learner, episodes)
        return drawn

    def _silhouettes(self, learner: "Learner", episodes: "Episodes") -> dict[str, list[float]]:
        from cml_bench.figures import measures, probes

        scores: dict[str, list[float]] = {panel: [] for panel in PANELS}
        for met in probes.meetings(learner, episodes, self.tasks):
            for panel, (features, labels) in self._clouds(learner.method, met).items():
                pairs = zip(features, labels, strict=True)
                scores[panel] += [measures.silhouette(*pair) for pair in pairs]
        return scores

    def _embedded(
        self, learner: "Learner", episodes: "Episodes"
    ) -> dict[str, tuple[np.ndarray, float, np.ndarray]]:
        from cml_bench.figures import measures, probes

        (met,) = probes.meetings(learner, episodes, 1, self.task)
        return {
            panel: (
                measures.tsne(features[0], self.perplexity),
                measures.silhouette(features[0], labels[0]),
                labels[0],
            )
            for panel, (features, labels) in self._clouds(learner.method, met).items()
        }

    def _clouds(self, method: "Method", met: "Met") -> _Clouds:
        """What each panel shows of some tasks."""
        shown = met.examples(self.examples)
        return {
            "before": (self._features(method, met, met.before, shown.x), shown.y.numpy()),
            "after": (self._features(method, met, met.after, shown.x), shown.y.numpy()),
            "queries": (
                self._features(method, met, met.after, met.task.query.x),
                met.task.query.y.numpy(),
            ),
        }

    def _features(self, method: "Method", met: "Met", params: "Params", x: "Tensor") -> np.ndarray:
        """The features (T, n, ...) of the chosen layer."""
        import torch

        with torch.no_grad():
            if not self.layer:
                return method.features(met.groups, params, x).double().numpy()
            by_name = method.activations(met.groups, params, x)
            if self.layer not in by_name:
                raise unknown("layer", self.layer, by_name)
            return by_name[self.layer].double().numpy()

    def drawn(self, arrays: Arrays, styles: Sequence[int]) -> "Picture":
        """A row for each shot and method; classes by colour and marker."""
        from cml_bench.figures import draw

        shots, labels = arrays["shots"].tolist(), arrays["labels"].tolist()
        rows = [(shot, k) for shot in shots for k in range(len(labels))]
        picture, axes = draw.grid(self.title, len(rows), len(PANELS), share=False)
        for of_row, (shot, k) in zip(axes, rows, strict=True):
            for axis, panel in zip(of_row, PANELS, strict=True):
                _cloud(axis, arrays, f"{shot}/{panel}", k)
                title = f"{labels[k]}, {shot}-shot, {PANELS[panel]}"
                axis.set_title(f"{title}\n{_score(arrays, f'{shot}/{panel}', k)}", size=8)
        return picture


def _cloud(axis: "Axes", arrays: Arrays, place: str, k: int) -> None:
    """The points of row ``k`` in a panel."""
    from cml_bench.figures.style import COLOURS

    classes, points = arrays[f"labels/{place}"], arrays[f"points/{place}"][k]
    for c in np.unique(classes):
        x, y = points[classes == c].T
        colour, marker = COLOURS[c % len(COLOURS)], _MARKERS[c % len(_MARKERS)]
        axis.scatter(x, y, s=16, linewidths=0, color=colour, marker=marker)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _score(arrays: Arrays, place: str, k: int) -> str:
    from cml_bench.figures.measures import band

    score, own = band(arrays[f"score/{place}"][k]), arrays[f"drawn/{place}"][k]
    spread = "" if np.isnan(score.half) else f" ± {score.half:.2f}"
    return f"silhouette {score.mean:.2f}{spread} ({own:.2f})"
