"""Drawings of figures 3 and 4 from arrays: see :mod:`cml_bench.figures.probes` for their shapes.
Imports no torch.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cml_bench.figures.measures import band, smoothed
from cml_bench.figures.style import COLOURS, legend, line_style
from cml_bench.study.figure_config import AccuracyFigure, CosineFigure, FigureConfig

Arrays = dict[str, np.ndarray]
_MARKERS = "osD^vP*X"
_HATCHES = ("", "//", "..", "xx", "--")
_PANELS = {"before": "before adaptation", "after": "after adaptation", "queries": "queries"}


def accuracy(arrays: Arrays, figure: AccuracyFigure, styles: list[int]) -> Figure:
    """Training and validation accuracy over outer steps: one row for each shot."""
    shots = arrays["shots"].tolist()
    drawing, axes = _grid(figure, len(shots), 2)
    for i, shot in enumerate(shots):
        for j, part in enumerate(("training", "validation")):
            axis = axes[i][j]
            for k, values in enumerate(arrays[f"{part}/{shot}"]):
                _line(axis, arrays[f"steps/{shot}"], 100 * values, figure.smooth, k, styles[k])
            axis.set(title=f"{shot}-shot, {part}", xlabel="outer step", ylabel="accuracy, %")
    return _with_legend(drawing, axes, arrays)


def cosine(arrays: Arrays, figure: CosineFigure, styles: list[int]) -> Figure:
    """Cosine of the heads' gradients over outer steps: one panel for each shot."""
    shots = arrays["shots"].tolist()
    drawing, axes = _grid(figure, 1, len(shots))
    for axis, shot in zip(axes[0], shots, strict=True):
        for k, values in enumerate(arrays[f"cosine/{shot}"]):
            _line(axis, arrays[f"steps/{shot}"], values, figure.smooth, k, styles[k])
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(
            title=f"{shot}-shot, {arrays['layer'].item()}", xlabel="outer step", ylabel="cosine"
        )
    return _with_legend(drawing, axes, arrays)


def gradients(arrays: Arrays, figure: FigureConfig, styles: list[int]) -> Figure:
    """Gradient norm of each layer: one panel for each shot."""
    return _with_legend(*_bars(arrays, figure, styles, "norms", "gradient norm"), arrays)


def similarity(arrays: Arrays, figure: FigureConfig, styles: list[int]) -> Figure:
    """CKA of each layer before and after adaptation: one panel for each shot."""
    drawing, axes = _bars(arrays, figure, styles, "cka", "CKA, before and after adaptation")
    for axis in axes[0]:
        axis.set_ylim(min(0, axis.get_ylim()[0]), 1.05)
    return _with_legend(drawing, axes, arrays)


def embedding(arrays: Arrays, figure: FigureConfig, styles: list[int]) -> Figure:
    """One task's features: a row for each shot and method; classes by colour and marker."""
    shots, labels = arrays["shots"].tolist(), arrays["labels"].tolist()
    drawing, axes = _grid(figure, len(shots) * len(labels), len(_PANELS), share=False)
    for row, (shot, k) in enumerate((shot, k) for shot in shots for k in range(len(labels))):
        for axis, (panel, title) in zip(axes[row], _PANELS.items(), strict=True):
            classes = arrays[f"labels/{shot}/{panel}"]
            points = arrays[f"points/{shot}/{panel}"][k]
            for c in np.unique(classes):
                style = {"color": COLOURS[c % len(COLOURS)], "marker": _MARKERS[c % len(_MARKERS)]}
                axis.scatter(*points[classes == c].T, s=16, linewidths=0, **style)
            score = band(arrays[f"score/{shot}/{panel}"][k])
            own = arrays[f"drawn/{shot}/{panel}"][k]
            spread = "" if np.isnan(score.half) else f" ± {score.half:.2f}"
            axis.set_title(
                f"{labels[k]}, {shot}-shot, {title}\nsilhouette {score.mean:.2f}{spread}"
                f" ({own:.2f})",
                size=8,
            )
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    return drawing


def _grid(figure: FigureConfig, rows: int, columns: int, share: bool = True) -> tuple[Figure, Any]:
    drawing = Figure(figsize=(max(3.3 * columns, 5), 2.5 * rows + 0.8), layout="constrained")
    drawing.suptitle(figure.title, size=10)
    return drawing, drawing.subplots(rows, columns, squeeze=False, sharey="row" if share else False)


def _line(
    axis: Any, steps: np.ndarray, values: np.ndarray, smooth: int, k: int, style: int
) -> None:
    """Line k of the figure through ``values`` (seeds, steps), at the steps at which this method was
    validated.
    """
    there = np.isfinite(values).any(0)
    found = band(smoothed(values[:, there], smooth))
    axis.plot(steps[there], found.mean, label=str(k), linewidth=1.6, **line_style(style))
    sides = found.mean - found.half, found.mean + found.half
    axis.fill_between(
        steps[there], *sides, color=COLOURS[style % len(COLOURS)], alpha=0.2, linewidth=0
    )


def _bars(
    arrays: Arrays, figure: FigureConfig, styles: list[int], name: str, unit: str
) -> tuple[Figure, Any]:
    """Groups of bars by layer, one colour and hatch for each row."""
    shots, labels, layers = (arrays[key].tolist() for key in ("shots", "labels", "layers"))
    drawing, axes = _grid(figure, 1, len(shots))
    width = 0.8 / len(labels)
    for axis, shot in zip(axes[0], shots, strict=True):
        for k in range(len(labels)):
            found = band(arrays[f"{name}/{shot}"][k])
            places = np.arange(len(layers)) + (k - (len(labels) - 1) / 2) * width
            style = {
                "color": COLOURS[styles[k] % len(COLOURS)],
                "hatch": _HATCHES[k % len(_HATCHES)],
            }
            half = found.half if np.isfinite(found.half).any() else None  # one seed has no interval
            axis.bar(
                places,
                found.mean,
                width,
                yerr=half,
                capsize=2,
                label=str(k),
                edgecolor="white",
                **style,
            )
        axis.set_xticks(range(len(layers)), layers)
        axis.set(title=f"{shot}-shot", ylabel=unit)
    return drawing, axes


def _with_legend(drawing: Figure, axes: Any, arrays: Arrays) -> Figure:
    names = arrays["labels"].tolist()
    legend(drawing, axes[0][0], names, min(len(names), 4))
    return drawing
