"""``accuracy``: accuracy in training and in validation over outer steps (figure 3a)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cml_bench.figures.kinds._captions import BAND, smoothed
from cml_bench.records import Record, Store
from cml_bench.registry import figures
from cml_bench.study.figure_config import Arrays, FigureConfig, Positive, Row, Wanted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_PARTS = ("training", "validation")


@figures.register("accuracy")
class AccuracyFigure(FigureConfig):
    """From records: a training point is over the tasks since the last point."""

    data_kind = "classification"
    looks = FigureConfig.looks | {"smooth"}

    kind: Literal["accuracy"]
    smooth: Positive = Field(1, description="mean over so many points, each with those before it")

    def definition(self, unit: str) -> str:
        """As said in the caption."""
        return (
            "Training: queries of the tasks since the last point; validation: the protocol's"
            f" validation tasks; {smoothed(self.smooth)}. {BAND.format(unit)}"
        )

    def measured(self, wanted: Wanted, store: Store, data_dir: Path, place: str) -> Arrays:
        """For each shot K: ``steps/K`` (steps,), ``training/K`` and ``validation/K`` (rows, seeds,
        steps) in [0, 1].
        """
        from cml_bench.figures.measures import series

        return series(self.runs, wanted, store, _PARTS, _points)

    def drawn(self, arrays: Arrays, styles: Sequence[int]) -> "Picture":
        """One row of panels for each shot: training, validation."""
        from cml_bench.figures import draw

        shots = arrays["shots"].tolist()
        picture, axes = draw.grid(self.title, len(shots), 2)
        for i, shot in enumerate(shots):
            for axis, part in zip(axes[i], _PARTS, strict=True):
                for k, values in enumerate(arrays[f"{part}/{shot}"]):
                    steps = arrays[f"steps/{shot}"]
                    draw.line(axis, steps, 100 * values, self.smooth, k, styles[k])
                axis.set(title=f"{shot}-shot, {part}", xlabel="outer step", ylabel="accuracy, %")
        return draw.with_legend(picture, axes, arrays)


def _points(record: Record, row: Row) -> dict[str, dict[int, float]]:
    """Training and validation -> outer step -> accuracy of the row's head."""
    curves, out = record.curves, {}
    for name, scores in zip(_PARTS, (curves.train, curves.validation), strict=True):
        pairs = zip(curves.step, scores.score(row.head), strict=False)
        out[name] = {step: value for step, value in pairs if value is not None}
    return out
