"""``cka``: linear CKA of each layer's output before and after adaptation (figure 3d)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cml_bench.errors import UserError
from cml_bench.figures.kinds._captions import BARS, EXAMPLES
from cml_bench.records import Store
from cml_bench.registry import figures
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import Arrays, ProbeFigure, Row, Wanted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture
    from torch import Tensor

    from cml_bench.data.episodes import Episodes
    from cml_bench.engine.learner import Learner
    from cml_bench.methods.base import Groups, Method, Params


@figures.register("cka")
class CKAFigure(ProbeFigure):
    """On the first test tasks, with the stored models."""

    kind: Literal["cka"]
    estimator: Literal["biased", "unbiased"] = "biased"

    def definition(self, unit: str) -> str:
        """As said in the caption."""
        return (
            f"Linear CKA, {self.estimator} estimator, of a layer's flattened output on"
            f" {EXAMPLES[self.examples]} before and after adaptation, mean over {self.tasks} test"
            f" tasks. {BARS.format(unit)}"
        )

    def check_run(
        self, spec: RunSpec, readings: Sequence[str], layers: Sequence[str], place: str
    ) -> None:
        """A task has enough examples for the estimator."""
        shown = self.shown(spec)
        if self.estimator == "unbiased" and shown < 4:
            raise UserError(
                f"{place}: the unbiased estimator needs at least 4 examples, not {shown}: set"
                " estimator: biased."
            )

    def measured(self, wanted: Wanted, store: Store, data_dir: Path, place: str) -> Arrays:
        """``layers`` (layers,), and for each shot K ``cka/K`` (rows, seeds, layers)."""
        from cml_bench.figures import probes
        from cml_bench.figures.measures import linear_cka

        def measure(learner: "Learner", episodes: "Episodes", row: Row) -> dict[str, float]:
            values: dict[str, list[float]] = {}
            for met in probes.meetings(learner, episodes, self.tasks):
                x = met.examples(self.examples).x
                before, after = (
                    _outputs(learner.method, met.groups, params, x, row.head)
                    for params in (met.before, met.after)
                )
                for name in before:
                    pairs = zip(before[name], after[name], strict=True)
                    values.setdefault(name, []).extend(
                        linear_cka(a, b, self.estimator) for a, b in pairs
                    )
            return {name: float(np.nanmean(of_tasks)) for name, of_tasks in values.items()}

        return probes.by_layer(self.runs, wanted, store, data_dir, "cka", measure)

    def drawn(self, arrays: Arrays, styles: Sequence[int]) -> "Picture":
        """One panel for each shot; a group of bars for each layer."""
        from cml_bench.figures import draw

        unit = "CKA, before and after adaptation"
        picture, axes = draw.bars(self.title, arrays, styles, "cka", unit)
        for axis in axes[0]:
            axis.set_ylim(min(0, axis.get_ylim()[0]), 1.05)
        return draw.with_legend(picture, axes, arrays)


def _outputs(
    method: "Method", groups: "Groups", params: "Params", x: "Tensor", head: str
) -> Arrays:
    """Outputs (T, n, ...) of each layer of psi, and of the head as ``head``."""
    import torch

    with torch.no_grad():
        by_layer = {
            **method.activations(groups, params, x),
            "head": method.outputs(groups, params, x, (head,))[head],
        }
    return {name: value.double().numpy() for name, value in by_layer.items()}
