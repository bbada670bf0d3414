"""What a configuration may say of a figure. Imports no torch.

The paper leaves open what exactly its figures 3 and 4 show: each definition is an option here, and
:meth:`FigureConfig.definition` puts the choice into the caption.
"""

from typing import Annotated, Literal

from pydantic import Field

from cml_bench.spec import MOST_EXAMPLES, MOST_SEED, Model
from cml_bench.texts import Line

Positive = Annotated[int, Field(ge=1, le=MOST_EXAMPLES)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Tasks = Annotated[int, Field(ge=1, le=10_000)]


class Row(Model):
    """One row of a table, one line of a figure."""

    label: Line
    run: str = Field(description="a key of the experiment's methods")
    reading: str = Field(
        "meta", description="which result of the run: see the documentation of readings"
    )
    against: str | None = Field(None, description="the baseline's key, for the paired difference")
    shown: bool = Field(True, description="no: the row stands among the paired differences only")

    @property
    def head(self) -> str:
        """The head whose result it shows in a figure: meta or co."""
        return "meta" if self.reading == "meta" else "co"


class FigureConfig(Model):
    """What every figure has."""

    experiment: str
    title: Line
    caption: Line = ""
    runs: tuple[Row, ...] = Field(
        min_length=1, description="its lines; a reading is that of a head: meta or co"
    )
    shots: tuple[Positive, ...] = Field((), description="which of the experiment's; empty: all")

    @property
    def experiments(self) -> tuple[str, ...]:
        """Names of the experiments whose runs it shows."""
        return (self.experiment,)

    def definition(self, unit: str) -> str:
        """What is drawn, in sentences for the caption: the options' choices. ``unit``: seeds, or
        class splits.
        """
        return ""


class CurvesFigure(FigureConfig):
    """Adapted curves of one seed's models on test tasks (figure 2)."""

    kind: Literal["curves"]
    tasks: tuple[Seed, ...] = Field(
        (0, 1, 2), min_length=1, description="numbers of test tasks, from 0 on"
    )
    seed: Seed = 0


class AccuracyFigure(FigureConfig):
    """Accuracy in training and in validation over outer steps (figure 3a), from records."""

    kind: Literal["accuracy"]
    smooth: Positive = Field(1, description="mean over so many points, each with those before it")

    def definition(self, unit: str) -> str:
        """As said in the caption."""
        return (
            "Training: queries of the tasks since the last point; validation: the protocol's"
            f" validation tasks; {_smoothed(self.smooth)}. {_BAND.format(unit)}"
        )


class CosineFigure(FigureConfig):
    """Cosine of the gradients of the two heads over outer steps (figure 3b), from records."""

    kind: Literal["cosine"]
    layer: str = Field(
        "", description="name of a layer of psi; empty: the last one below the heads"
    )
    smooth: Positive = 1

    def definition(self, unit: str) -> str:
        """As said in the caption."""
        layer = self.layer or "the last layer below the heads"
        return (
            "Gradients of the two heads' query losses with respect to the weights (not the biases)"
            f" of {layer} before adaptation, through the inner loop in the method's own order, on"
            f" one validation task, the same at each point; {_smoothed(self.smooth)}."
            f" {_BAND.format(unit)}"
        )


class ProbeFigure(FigureConfig):
    """Measured on the first test tasks with the stored models (those of the best validation by the
    meta head).
    """

    examples: Literal["query", "support"] = "query"
    tasks: Tasks = Field(100, description="so many test tasks, the first ones")


class GradientsFigure(ProbeFigure):
    """Norm of the gradient of each layer's weights (figure 3c)."""

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
            else ("the loss of the row's head alone")
        )
        at = (
            "the adapted weights"
            if self.at == "adapted"
            else "the initial weights, through the inner loop"
        )
        return (
            f"Euclidean norm of the gradient of {loss} on {_EXAMPLES[self.examples]} with respect"
            f" to {at} of each layer (no biases, no batch-norm), mean over {self.tasks} test tasks."
            f" {_BARS.format(unit)}"
        )


class CKAFigure(ProbeFigure):
    """Linear CKA of each layer's output before and after adaptation (figure 3d)."""

    kind: Literal["cka"]
    estimator: Literal["biased", "unbiased"] = "biased"

    def definition(self, unit: str) -> str:
        """As said in the caption."""
        return (
            f"Linear CKA, {self.estimator} estimator, of a layer's flattened output on"
            f" {_EXAMPLES[self.examples]} before and after adaptation, mean over {self.tasks} test"
            f" tasks. {_BARS.format(unit)}"
        )


class TSNEFigure(ProbeFigure):
    """t-SNE of one task's features before and after adaptation and of its queries (figure 4)."""

    kind: Literal["tsne"]
    examples: Literal["query", "support"] = Field(
        "support", description="of the panels before and after adaptation"
    )
    task: Seed = Field(0, description="the test task that is drawn")
    seed: Seed = 0
    layer: str = Field("", description="name of a layer; empty: the features that the heads read")
    perplexity: float = Field(8.0, gt=0, le=1000)

    def definition(self, unit: str) -> str:
        """As said in the caption."""
        layer = f"The output of {self.layer}" if self.layer else "The features that the heads read"
        return (
            f"{layer}, of {_EXAMPLES[self.examples]} of test task {self.task} before and after"
            f" adaptation, and of its queries after it; seed {self.seed}; each panel embedded alone"
            f" by t-SNE (perplexity {self.perplexity:g}, start by PCA). Above each panel the"
            f" silhouette of the classes in the features themselves: mean over {self.tasks} test"
            f" tasks and all {unit} ± its 95 % t interval over {unit}; in brackets the drawn"
            " task's. Models of the best validation by the meta head."
        )


_EXAMPLES = {"query": "the query examples", "support": "the support examples"}
_BAND = "Line: mean over {}; band: 95 % t interval of that mean."
_BARS = (
    "Models of the best validation by the meta head. Bar: mean over {}; whisker: 95 % t interval of"
    " that mean."
)


def _smoothed(points: int) -> str:
    return "not smoothed" if points == 1 else f"each point the mean of the last {points}"


OneSeed = CurvesFigure | TSNEFigure  # kinds that show one seed's models
Figure = Annotated[
    CurvesFigure | AccuracyFigure | CosineFigure | GradientsFigure | CKAFigure | TSNEFigure,
    Field(discriminator="kind"),
]
