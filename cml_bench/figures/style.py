"""Pictures from arrays. Imports no torch; matplotlib's non-interactive backend only."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cml_bench.study.figure_config import FigureConfig

# Okabe and Ito's palette: told apart with every common colour-vision deficiency, and in grey by
# lightness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)))
matplotlib.rcParams.update({"svg.hashsalt": "cml_bench", "font.size": 9, "axes.spines.top": False})
matplotlib.rcParams.update({"axes.spines.right": False, "svg.fonttype": "path"})
matplotlib.rcParams["text.parse_math"] = False  # a label's `$` and `_` mean themselves


def line_style(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th line: every colour once before the dashes change."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": DASHES[k // len(COLOURS) % len(DASHES)],
    }


def curves(
    arrays: dict[str, np.ndarray], config: FigureConfig, styles: Sequence[int] = ()
) -> Figure:
    """Truth, support points and adapted curves: one row for each shot, one column for each task (as
    Figure 2).
    """
    shots, tasks = arrays["shots"].tolist(), arrays["tasks"].tolist()
    x, labels = arrays["x"], arrays["labels"].tolist()
    figure = Figure(figsize=(3.1 * len(tasks), 2.4 * len(shots) + 0.7), layout="constrained")
    axes = figure.subplots(len(shots), len(tasks), squeeze=False, sharex=True)
    for i, shot in enumerate(shots):
        for j, task in enumerate(tasks):
            axis, truth = axes[i][j], arrays[f"truth/{shot}"][j]
            axis.plot(x, truth, color="black", linewidth=1, linestyle="--", label="0")
            errors = []
            for k, label in enumerate(labels):
                line = arrays[f"curves/{shot}"][k, j]
                axis.plot(x, line, **line_style(k), linewidth=1.6, label=str(k))
                errors.append(f"{label} {np.mean((line - truth) ** 2):.2f}")
            points = arrays[f"support_x/{shot}"][j], arrays[f"support_y/{shot}"][j]
            axis.scatter(*points, color="black", s=14, zorder=3, label="support")
            axis.set_title(f"{shot}-shot, test task {task}\nMSE: {', '.join(errors)}", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("x")
    for row in axes:
        row[0].set_ylabel("y")
    legend(figure, axes[0][0], ["truth", *labels, "support"], len(labels) + 2)
    figure.suptitle(config.title)
    return figure


def legend(figure: Figure, axis: Any, names: list[str], columns: int) -> None:
    """A legend of what the panel has, by these names in their order; a name that begins with ``_``
    is shown, too.
    """
    handles, _ = (
        axis.get_legend_handles_labels()
    )  # matplotlib leaves out those whose own label begins so
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


def encode(figure: Figure, kind: str) -> bytes:
    """The picture as png, svg or pdf, without dates, so that equal content gives equal bytes."""
    buffer = io.BytesIO()
    metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
