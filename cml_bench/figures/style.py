"""How pictures look: colours, dashes, legends, files.

Imports no torch, and of matplotlib the non-interactive backend only.
"""

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cml_bench.study.plan import Plan

# Okabe and Ito's palette: told apart with every common colour-vision deficiency, and in grey by
# lightness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)))
matplotlib.rcParams.update({"svg.hashsalt": "cml_bench", "font.size": 9, "axes.spines.top": False})
matplotlib.rcParams.update({"axes.spines.right": False, "svg.fonttype": "path"})
matplotlib.rcParams["text.parse_math"] = False  # a label's `$` and `_` mean themselves


def order(plan: Plan) -> list[str]:
    """The keys of a study's methods, each once: a key's place is the number of its style, the same
    in all charts and figures of the study.
    """
    return list(dict.fromkeys(key for methods in plan.members.values() for key in methods))


def line_style(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th line: every colour once before the dashes change."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": DASHES[k // len(COLOURS) % len(DASHES)],
    }


def legend(figure: Figure, axis: Axes, names: list[str], columns: int) -> None:
    """A legend of what the panel has, by these names in their order."""
    # matplotlib leaves out labels that begin with "_": a panel's own labels are numbers, and the
    # names are given here.
    handles, _ = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


def encode(figure: Figure, kind: str) -> bytes:
    """The picture as png, svg or pdf, without dates, so that equal content gives equal bytes."""
    buffer = io.BytesIO()
    metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
