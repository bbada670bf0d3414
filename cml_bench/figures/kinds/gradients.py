"""``gradients``: norm of the gradient of each layer's weights (figure 3c)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cml_bench.figures.kinds._captions import BARS, EXAMPLES
from cml_bench.records import Store
from cml_bench.registry import figures
from cml_bench.study.figure_config import Arrays, ProbeFigure, Row, Wanted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture
    from torch import Tensor

    from cml_bench.data.episodes import Episodes
    from cml_bench.engine.learner import Learner
    from cml_bench.figures.probes import Met
    from cml_bench.methods.base import Method


@figures.register("gradients")
class GradientsFigure(ProbeFigure):
    """On the first test tasks, with the stored models."""

    kind: Literal["gradients"]
    at: Literal["adapted", "initial"] = Field(
        "adapted",
        description=(
            "with respect to the adapted parameters, or to the initial ones through the inner loop"
        ),
    )
    loss: Literal["outer", "head"] = Field(
        "outer",
        description=(
            "all heads with the weights that they have in the outer loss, or the row's reading"
            " alone"
        ),
    )

    def definition(self, unit: str) -> str:
        """As said in the caption."""
        loss = (
            "the sum of the heads' losses with their weights in the outer loss"
            if self.loss == "outer"
            else "the loss of the row's head alone"
        )
        at = (
            "the adapted weights"
            if self.at == "adapted"
            else "the initial weights, through the inner loop"
        )
        return (
            f"Euclidean norm of the gradient of {loss} on {EXAMPLES[self.examples]} with respect"
            f" to {at} of each layer (no biases, no batch-norm), mean over {self.tasks} test tasks."
            f" {BARS.format(unit)}"
        )

    def measured(self, wanted: Wanted, store: Store, data_dir: Path, place: str) -> Arrays:
        """``layers`` (layers,), and for each shot K ``norms/K`` (rows, seeds, layers)."""
        from cml_bench.figures import probes

        def measure(learner: "Learner", episodes: "Episodes", row: Row) -> dict[str, float]:
            heads = (row.head,) if self.loss == "head" else learner.method.heads
            total: dict[str, float] = {}
            for met in probes.meetings(learner, episodes, self.tasks):
                for name, value in self.norms(learner.method, met, heads).items():
                    total[name] = total.get(name, 0.0) + value.sum().item()
            return {name: value / self.tasks for name, value in total.items()}

        return probes.by_layer(self.runs, wanted, store, data_dir, "norms", measure)

    def norms(self, method: "Method", met: "Met", heads: tuple[str, ...]) -> "dict[str, Tensor]":
        """Norm (T,) of the gradient of each layer's weights, by the layer's name."""
        import torch

        examples = met.examples(self.examples)
        names = [f"{layer}.weight" for layer in method.network.layers]
        if self.at == "initial":
            start = met.groups["base"]
            *_, params = method.trajectory(
                met.groups, met.task.support, method.inner_steps, create_graph=method.second_order
            )
        else:
            start = params = {name: p.requires_grad_() for name, p in met.after.items()}
        outputs = method.outputs(met.groups, params, examples.x, heads)
        outer = self.loss == "outer"
        weight = {head: method.head_weight(head) if outer else 1.0 for head in heads}
        losses = [weight[h] * method.criterion(outputs[h], examples.y).sum() for h in heads]
        loss = torch.stack(losses).sum()
        grads = torch.autograd.grad(loss, [start[name] for name in names], materialize_grads=True)
        return {
            name.removesuffix(".weight"): torch.linalg.vector_norm(grad.flatten(1).double(), dim=1)
            for name, grad in zip(names, grads, strict=True)
        }

    def drawn(self, arrays: Arrays, styles: Sequence[int]) -> "Picture":
        """One panel for each shot; a group of bars for each layer."""
        from cml_bench.figures import draw

        picture, axes = draw.bars(self.title, arrays, styles, "norms", "gradient norm")
        return draw.with_legend(picture, axes, arrays)
