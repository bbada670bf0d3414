"""What the drawings of several kinds of figures share: panels, lines and bars. Imports no torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cml_bench.figures.measures import band, smoothed
from cml_bench.figures.style import COLOURS, legend, line_style

Arrays = dict[str, np.ndarray]
_HATCHES = ("", "//", "..", "xx", "--")


def grid(title: str, rows: int, columns: int, share: bool = True) -> tuple[Figure, Any]:
    """An empty picture and its panels (rows, columns). ``share``: a row has one vertical axis."""
    picture = Figure(figsize=(max(3.3 * columns, 5), 2.5 * rows + 0.8), layout="constrained")
    picture.suptitle(title, size=10)
    return picture, picture.subplots(rows, columns, squeeze=False, sharey="row" if share else False)


def line(
    axis: Axes, steps: np.ndarray, values: np.ndarray, smooth: int, k: int, style: int
) -> None:
    """Line k of a figure with its band, through ``values`` (seeds, steps).

    It is drawn at the steps at which its own method was validated.
    """
    there = np.isfinite(values).any(0)
    mean, half = band(smoothed(values[:, there], smooth))
    axis.plot(steps[there], mean, label=str(k), linewidth=1.6, **line_style(style))
    colour = COLOURS[style % len(COLOURS)]
    axis.fill_between(steps[there], mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)


def bars(
    title: str, arrays: Arrays, styles: Sequence[int], name: str, unit: str
) -> tuple[Figure, Any]:
    """Groups of bars by layer, one colour and hatch for each row: a panel for each shot.

    ``name``: of the arrays (rows, seeds, layers) of each shot. ``unit``: what a bar's height is.
    """
    shots, labels, layers = (arrays[key].tolist() for key in ("shots", "labels", "layers"))
    picture, axes = grid(title, 1, len(shots))
    width = 0.8 / len(labels)
    for axis, shot in zip(axes[0], shots, strict=True):
        for k in range(len(labels)):
            mean, half = band(arrays[f"{name}/{shot}"][k])
            axis.bar(
                np.arange(len(layers)) + (k - (len(labels) - 1) / 2) * width,
                mean,
                width,
                yerr=half if np.isfinite(half).any() else None,  # one seed has no interval
                capsize=2,
                label=str(k),
                edgecolor="white",
                color=COLOURS[styles[k] % len(COLOURS)],
                hatch=_HATCHES[k % len(_HATCHES)],
            )
        axis.set_xticks(range(len(layers)), layers)
        axis.set(title=f"{shot}-shot", ylabel=unit)
    return picture, axes


def with_legend(picture: Figure, axes: Any, arrays: Arrays) -> Figure:
    """The picture with a legend of its rows, at most four beside each other."""
    names = arrays["labels"].tolist()
    legend(picture, axes[0][0], names, min(len(names), 4))
    return picture
