"""``cosine``: cosine of the gradients of the two heads over outer steps (figure 3b)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field

from cml_bench.errors import UserError, unknown
from cml_bench.figures.kinds._captions import BAND, smoothed
from cml_bench.records import Record, Store
from cml_bench.registry import figures
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import Arrays, FigureConfig, Positive, Row, Wanted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


@figures.register("cosine")
class CosineFigure(FigureConfig):
    """From records, which hold it for every layer at each validation."""

    looks = FigureConfig.looks | {"smooth"}

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
            f" one validation task, the same at each point; {smoothed(self.smooth)}."
            f" {BAND.format(unit)}"
        )

    def check_run(
        self, spec: RunSpec, readings: Sequence[str], layers: Sequence[str], place: str
    ) -> None:
        """There are two heads, and the layer that is named."""
        if "co" not in readings:
            raise UserError(f"{place}: a figure of kind cosine is for runs with two heads.")
        if self.layer and self.layer not in layers:
            raise unknown(f"{place}: layer", self.layer, layers)

    def resolved(self, layers: Sequence[str]) -> Self:
        """With the layer that is meant where none is named."""
        return self if self.layer else self.model_copy(update={"layer": layers[-1]})

    def measured(self, wanted: Wanted, store: Store, data_dir: Path, place: str) -> Arrays:
        """``layer``, and for each shot K: ``steps/K`` (steps,), ``cosine/K`` (rows, seeds,
        steps).
        """
        from cml_bench.figures.measures import series

        def points(record: Record, row: Row) -> dict[str, dict[int, float]]:
            kept = record.curves.diagnostics
            if not kept or kept[0].cosine is None:
                raise UserError(
                    f"{place}, row {row.label!r}: {record.folder} has no cosine of two heads in its"
                    " record: its method has one head, or it was trained with --diagnostics off."
                )
            by_step = {point.step: (point.cosine or {}).get(self.layer) for point in kept}
            return {"cosine": {step: c for step, c in by_step.items() if c is not None}}

        arrays = series(self.runs, wanted, store, ("cosine",), points)
        return arrays | {"layer": np.array(self.layer)}

    def drawn(self, arrays: Arrays, styles: Sequence[int]) -> "Picture":
        """One panel for each shot."""
        from cml_bench.figures import draw

        shots = arrays["shots"].tolist()
        picture, axes = draw.grid(self.title, 1, len(shots))
        for axis, shot in zip(axes[0], shots, strict=True):
            for k, values in enumerate(arrays[f"cosine/{shot}"]):
                draw.line(axis, arrays[f"steps/{shot}"], values, self.smooth, k, styles[k])
            axis.axhline(0, color="black", linewidth=0.8)
            title = f"{shot}-shot, {arrays['layer'].item()}"
            axis.set(title=title, xlabel="outer step", ylabel="cosine")
        return draw.with_legend(picture, axes, arrays)
