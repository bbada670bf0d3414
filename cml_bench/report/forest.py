"""Forest plots: paired differences with their intervals, improvement to the right.

:func:`chart` is drawn by the page's reader, :func:`picture` by matplotlib. Imports no torch.
"""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cml_bench.evidence.table import Difference, Table
from cml_bench.evidence.verdict import GAIN, LOSS, UNDECIDED
from cml_bench.figures.style import COLOURS
from cml_bench.report.charts import Spec, short
from cml_bench.report.grids import difference_grid, signed
from cml_bench.report.summary import NOT_TESTED

GREY = "#767676"  # contrast 4.5 to 1 on the white page, 4.2 on the dark one
OUTCOMES = {
    GAIN: (COLOURS[2], "triangle-up"),
    LOSS: (COLOURS[1], "triangle-down"),
    UNDECIDED: (GREY, "diamond"),
    NOT_TESTED: (GREY, "circle"),
}


def _unit(table: Table) -> str:
    """What the axis counts."""
    return table.rules.gain_unit


# -- a chart of the page


def chart(table: Table) -> Spec | None:
    """A line for each paired difference with its 95 % interval; None without any.

    A difference far beyond the others would squeeze them, so it is named at the edge of the axis.
    """
    differences = list(table.differences())
    if not differences:
        return None
    grid = difference_grid(table)
    low, high = _reach([d for _, _, d in differences])
    rows = []
    for (row, column, d), cells in zip(differences, grid.rows, strict=True):
        value, half = d.paired.diff * d.better, d.paired.half
        text = signed(value, table.kind)
        rows.append(
            {
                **dict(zip(grid.header, cells, strict=True)),
                "line": f"{table.compared(row)}\n{table.place(column)}",
                "value": short(value),
                "low": None if math.isnan(half) else short(value - half),
                "high": None if math.isnan(half) else short(value + half),
                "outcome": d.outcome if d.outcome in OUTCOMES else NOT_TESTED,
                "left": f"◀ {text}" if value < low else "",
                "right": f"{text} ▶" if value > high else "",
            }
        )
    x = {
        "type": "quantitative",
        "title": [_unit(table), "95 % t interval"],
        "scale": {"domain": [low, high], "nice": False},
    }
    return {
        "description": f"Paired differences of {table.title}; the table beneath holds the same"
        " numbers.",
        "width": "container",
        "height": 32 * len(rows),
        "data": {"values": rows},
        "encoding": {"y": _lines()},
        "layer": [_hover(grid.header), *_marks(x, rows), *_beyond()],
    }


def _reach(differences: Sequence[Difference]) -> tuple[float, float]:
    """The ends of the axis. Intervals that reach more than five times as far as the median one are
    not considered.
    """
    ends = []
    for d in differences:
        value, half = d.paired.diff * d.better, float(np.nan_to_num(d.paired.half))
        ends.append((value - half, value + half))
    far = [max(abs(low), abs(high)) for low, high in ends]
    limit = 5 * float(np.median(far))
    kept = [pair for pair, reach in zip(ends, far, strict=True) if reach <= limit] or ends
    low, high = min(0.0, *(a for a, _ in kept)), max(0.0, *(b for _, b in kept))
    room = 0.05 * (high - low) or 1.0
    return short(low - room), short(high + room)


def _lines() -> Spec:
    """The vertical axis: what is compared and where, in two lines of text."""
    # On a phone the labels are cut shorter, so that there is room for the intervals.
    limit = {"expr": "containerSize()[0] < 480 ? 125 : 240"}
    axis = {
        "labelExpr": "split(datum.label, '\\n')",
        "domain": False,
        "ticks": False,
        "labelLimit": limit,
    }
    return {"field": "line", "type": "nominal", "sort": None, "title": None, "axis": axis}


def _hover(tooltip: list[str]) -> Spec:
    """A band behind each line. Under the pointer it is visible, and shows the line's numbers."""
    select = {"type": "point", "on": "pointerover", "clear": "pointerout"}
    shown = {"param": "row", "empty": False, "value": 0.25}
    return {
        "params": [{"name": "row", "select": select}],
        "mark": {"type": "rect", "color": COLOURS[5], "aria": False},
        "encoding": {
            "opacity": {"condition": shown, "value": 0},
            "tooltip": [{"field": name, "type": "nominal"} for name in tooltip],
        },
    }


def _marks(x: Spec, rows: list[Spec]) -> list[Spec]:
    """The line at zero, the intervals, and the differences by outcome."""
    there = [outcome for outcome in OUTCOMES if outcome in {row["outcome"] for row in rows}]
    colour, shape = (
        {
            "field": "outcome",
            "legend": {"columns": 2},
            "scale": {"domain": there, "range": [OUTCOMES[o][k] for o in there]},
        }
        for k in (0, 1)
    )
    still = {"clip": True, "interactive": False}
    return [
        {
            "mark": {"type": "rule", "strokeDash": [3, 3]},
            "encoding": {"x": {"datum": 0}, "y": None},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 2, **still, "aria": False},
            "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, **still},
            "encoding": {"x": {**x, "field": "value"}, "color": colour, "shape": shape},
        },
    ]


def _beyond() -> list[Spec]:
    """The numbers of differences that lie outside the axis, at its edges."""
    edge = {"type": "text", "fontSize": 11}
    return [
        {
            "mark": {**edge, "align": "left", "dx": 4},
            "encoding": {"x": {"value": 0}, "text": {"field": "left"}},
        },
        {
            "mark": {**edge, "align": "right", "dx": -4},
            "encoding": {"x": {"value": {"expr": "width"}}, "text": {"field": "right"}},
        },
    ]


# -- a picture


def picture(tables: list[Table]) -> Figure | None:
    """A panel for each table that has paired differences; None without any.

    Panels of one kind of table share an axis. It holds the intervals of the first table and all
    differences. Intervals of two or three runs may be cut, since they would squeeze all others.
    """
    panels = []
    for table in tables:
        lines = [
            (f"{table.compared(row)}, {table.place(column)}", d)
            for row, column, d in table.differences()
        ]
        panels += [(table, lines)] if lines else []
    if not panels:
        return None
    heights = [len(lines) for _, lines in panels]
    figure = Figure(figsize=(7, 0.24 * sum(heights) + 1.1 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False).ravel()
    scales: dict[str, Axes] = {}
    for axis, (table, lines) in zip(axes, panels, strict=True):
        _panel(axis, lines, table)
        if len(panels) > 1:
            axis.set_title(textwrap.fill(table.title, 60), fontsize="medium")
        first = scales.setdefault(table.kind, axis)
        low, high = first.get_xlim()
        values, room = [d.paired.diff * d.better for _, d in lines], 0.05 * (high - low)
        first.set_xlim(
            min(low, *(v - room for v in values)), max(high, *(v + room for v in values))
        )
        if first is not axis:
            axis.sharex(first)
    return figure


def _panel(axis: Axes, lines: list[tuple[str, Difference]], table: Table) -> None:
    for y, (_, d) in enumerate(reversed(lines)):
        # One seed has a half-width of nan, and is drawn grey without a whisker.
        value, half = d.paired.diff * d.better, d.paired.half
        colour = COLOURS[2] if value - half > 0 else COLOURS[1] if value + half < 0 else "grey"
        axis.errorbar(value, y, xerr=half, fmt="o", color=colour, capsize=3, markersize=4)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(lines)), [label for label, _ in reversed(lines)])
    axis.set_xlabel(f"{_unit(table)} (95 % t interval over {table.replicates})")
    axis.margins(y=0.5 / max(len(lines), 1))
