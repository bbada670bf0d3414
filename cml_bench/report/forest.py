"""Forest plots: paired differences with their intervals, improvement to the right.

A table has a panel for each family of its differences (:func:`panels`): those tested without the
co-learner, and those tested with it (the † rows). The page draws these panels, and
:func:`picture` sets the same ones below each other for README and docs. Imports no torch.
"""

import math
import textwrap
from collections.abc import Sequence
from statistics import median_low
from typing import Literal

from cml_bench.evidence.table import Column, Difference, Table, TableRow
from cml_bench.figures.outcomes import LOOKS, NOT_TESTED, look
from cml_bench.figures.style import COLOURS
from cml_bench.readings import META
from cml_bench.report.charts import Spec, on_phones, short
from cml_bench.report.grids import beside_grid, difference_grid, signed

FAR = 5
"""An interval that reaches more than so many times as far from 0 as the median one is cut."""

WIDTH = 460
"""Pixels of a panel of :func:`picture`, without its labels; a panel of the page fills its place."""

# In two lines for a phone.
_TITLES = {
    "meta": ("Tested without", "the co-learner"),
    "co": ("Tested with", "the co-learner (†)"),
}

_Line = tuple[TableRow, Column, Difference]


def panels(table: Table) -> dict[str, Spec]:
    """``meta`` and ``co``: the charts of the differences that are tested without the co-learner and
    with it. A family without differences has no chart.

    These are the families within which Holm adjusts, and each has an axis of its own.
    """
    families: dict[str, list[tuple[_Line, Spec]]] = {family: [] for family in _TITLES}
    grid = difference_grid(table)
    for line, cells in zip(table.differences(), grid.rows, strict=True):
        told = dict(zip(grid.header, cells, strict=True))
        families["meta" if line[0].reading == META else "co"].append((line, told))
    return {
        family: _panel(table, _TITLES[family], lines, grid.header)
        for family, lines in families.items()
        if lines
    }


def picture(tables: Sequence[Table]) -> Spec | None:
    """The panels of all tables below each other, each table under its title where there are
    several; None without any.
    """
    drawn = [(table, list(panels(table).values())) for table in tables]
    drawn = [(table, specs) for table, specs in drawn if specs]
    views = []
    for table, specs in drawn:
        views += [_heading(table.title)] if len(drawn) > 1 else []
        views += [{**spec, "width": WIDTH} for spec in specs]
    apart = {"color": "independent", "shape": "independent"}  # each has a legend of its own
    return {"vconcat": views, "resolve": {"scale": apart}} if views else None


def _panel(
    table: Table, title: Sequence[str], lines: Sequence[tuple[_Line, Spec]], tooltip: list[str]
) -> Spec:
    low, high = reach([d for (_, _, d), _ in lines])
    rows = [{**told, **_row(table, line, low, high)} for line, told in lines]
    return _of_rows(table, title, rows, (low, high), {name: name for name in tooltip})


def _of_rows(
    table: Table,
    title: Sequence[str],
    rows: list[Spec],
    ends: tuple[float, float],
    tooltip: dict[str, str],
) -> Spec:
    """A panel with a line for each of these rows, on an axis with these ends. ``tooltip``: what is
    shown under the pointer, field -> title.
    """
    colour, shape = outcome_channel(rows, "colour"), outcome_channel(rows, "shape")
    x = {
        "type": "quantitative",
        "title": [table.rules.gain_unit, f"95 % t interval over {table.replicates}"],
        # On phones the title reaches to the left, below the labels, where there is room.
        "axis": {"tickCount": on_phones(4, 6), "titleAnchor": on_phones("end", "middle")},
        "scale": {"domain": [*ends], "nice": False},
    }
    return {
        "title": {"text": on_phones(title, " ".join(title)), "frame": "group"},
        "description": f"Paired differences of {table.title}. {' '.join(title)}. The table beneath"
        " holds the same numbers.",
        "width": "container",
        "height": 32 * len(rows),
        "data": {"values": rows},
        "encoding": {"y": _lines()},
        "layer": [_band(tooltip), *_marks(x, colour, shape), *_cut(colour)],
    }


def beside_paper(table: Table) -> Spec | None:
    """Our gains with their intervals, and the paper's gain of each as a ring on the same line; None
    where no row has both.
    """
    grid = beside_grid(table)
    tooltip = {f"told {k}": name for k, name in enumerate(grid.header[2:])}
    rows, lines = [], []
    for line, cells in zip(table.beside, grid.rows, strict=True):
        d, row = line.cell.difference, next(r for r in table.rows if r.label == line.label)
        if d is not None and line.paper_gain is not None:
            told = dict(zip(tooltip, cells[2:], strict=True))
            lines.append((told, (row, line.column, d), line))
    if not lines:
        return None
    low, high = reach([d for _, (_, _, d), _ in lines])
    theirs = [short(d.better * (line.paper_gain or 0.0)) for _, (_, _, d), line in lines]
    room = 0.05 * (high - low)
    low, high = min([low, *(v - room for v in theirs)]), max([high, *(v + room for v in theirs)])
    for (told, drawn, line), paper in zip(lines, theirs, strict=True):
        outcome = look(line.gain.verdict if line.gain else NOT_TESTED).name
        rows.append({**told, **_row(table, drawn, low, high), "outcome": outcome, "theirs": paper})
    title = ["Our gains (filled)", "and the paper's (rings)"]
    panel = _of_rows(table, title, rows, (low, high), tooltip)
    panel["description"] = (
        f"{' '.join(title)} of {table.title}. The table beneath holds the same numbers."
    )
    ring = {"type": "point", "filled": False, "size": 110, "strokeWidth": 1.6, "opacity": 1}
    still = {"shape": "circle", "color": "currentColor", "interactive": False, "aria": False}
    x = {"type": "quantitative", "field": "theirs"}
    panel["layer"].append({"mark": {**ring, **still}, "encoding": {"x": x}})
    return panel


def reach(differences: Sequence[Difference]) -> tuple[float, float]:
    """The ends of the axis, in the unit of an improvement; 0 is between them.

    The rule: how far a difference reaches is the distance from 0 of the farther end of its interval
    (of the difference itself where it has no interval). The axis holds every interval that reaches
    at most ``FAR`` times as far as the median one, and every mean difference within that distance.
    So one outlier does not squeeze the rest, wherever it lies. What is left out is cut, with an
    arrow at the edge; the number of a mean difference beyond it stands there too. Differences that
    are exactly 0 do not count for the median, which is the lower one of two in the middle.
    """
    spans, values = [], []
    for d in differences:
        value, half = d.paired.diff * d.better, d.paired.half
        half = 0.0 if math.isnan(half) else half
        spans.append((value - half, value + half))
        values.append(value)
    far = [max(abs(low), abs(high)) for low, high in spans]
    limit = FAR * median_low([distance for distance in far if distance > 0] or [0.0])
    ends = [0.0, *(value for value in values if abs(value) <= limit)]
    ends += [end for span, f in zip(spans, far, strict=True) if f <= limit for end in span]
    room = 0.05 * (max(ends) - min(ends)) or 1.0
    return short(min(ends) - room), short(max(ends) + room)


def _row(table: Table, line: _Line, low: float, high: float) -> Spec:
    """What is drawn of a difference, on an axis from ``low`` to ``high``."""
    row, column, d = line
    value, half = d.paired.diff * d.better, d.paired.half
    ends = [value] if math.isnan(half) else [value - half, value + half]
    text = signed(value, table.kind)
    return {
        "line": f"{table.compared(row)}\n{table.place(column)}",
        "value": short(value),
        "at": short(min(max(value, low), high)),
        "low": None if math.isnan(half) else short(ends[0]),
        "high": None if math.isnan(half) else short(ends[-1]),
        "outcome": look(d.outcome).name,
        "cut left": ends[0] < low,
        "cut right": ends[-1] > high,
        "left": text if value < low else "",
        "right": text if value > high else "",
    }


def _lines() -> Spec:
    """The vertical axis: what is compared and where, in two lines of text."""
    axis = {
        "labelExpr": "split(datum.label, '\\n')",
        "domain": False,
        "ticks": False,
        "labelFontSize": on_phones(9, 11),
        "labelLimit": on_phones(170, 240),  # so that there is room for the intervals
        "labelOffset": -7,  # the two lines are level with the mark
        "labelPadding": 16,  # an arrow stands between the label and the axis
    }
    return {"field": "line", "type": "nominal", "sort": None, "title": None, "axis": axis}


def _band(tooltip: dict[str, str]) -> Spec:
    """A band behind each line, which shows the line's numbers (page.css makes it visible under the
    pointer).
    """
    return {
        "mark": {"type": "rect", "color": COLOURS[5], "opacity": 0, "aria": False},
        "encoding": {
            "tooltip": [
                {"field": field, "title": title, "type": "nominal"}
                for field, title in tooltip.items()
            ]
        },
    }


def outcome_channel(rows: Sequence[Spec], part: Literal["colour", "shape"]) -> Spec:
    """The channel of the outcome's colour or shape, with a legend of those that are there."""
    there = [look for look in LOOKS.values() if look.name in {row["outcome"] for row in rows}]
    return {
        "field": "outcome",
        "type": "nominal",
        "legend": {"columns": {"expr": "width < 400 ? 2 : 4"}},
        "scale": {
            "domain": [look.name for look in there],
            "range": [getattr(look, part) for look in there],
        },
    }


def _marks(x: Spec, colour: Spec, shape: Spec) -> list[Spec]:
    """The line at zero, the intervals, and the differences by outcome."""
    still = {"interactive": False}
    return [
        {
            "data": {"values": [{}]},  # one line, not one for each difference
            "mark": {"type": "rule", "strokeDash": [3, 3], **still},
            "encoding": {"x": {"datum": 0}, "y": None},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 2, "clip": True, **still, "aria": False},
            "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, **still},
            "encoding": {"x": {**x, "field": "at"}, "color": colour, "shape": shape},
        },
    ]


def _cut(colour: Spec) -> list[Spec]:
    """An arrow outside the axis where an interval is cut, and the number of a difference that lies
    there.
    """
    layers: list[Spec] = []
    edges = {"left": ({"value": 0}, -1), "right": ({"value": {"expr": "width"}}, 1)}
    for side, (edge, way) in edges.items():
        arrow = {"type": "point", "filled": True, "opacity": 1, "size": 60, "interactive": False}
        text = {"type": "text", "fontSize": 11, "interactive": False}
        layers += [
            {
                "transform": [{"filter": f"datum['cut {side}']"}],
                "mark": {**arrow, "shape": f"triangle-{side}", "xOffset": 10 * way, "aria": False},
                "encoding": {"x": edge, "color": colour},
            },
            {
                "mark": {**text, "align": side, "dx": -10 * way, "dy": -9},
                "encoding": {"x": edge, "text": {"field": side}},
            },
        ]
    return layers


def _heading(title: str) -> Spec:
    """The title above the panels of a table, in as many lines as it needs."""
    lines = textwrap.wrap(title, 52)
    text = {"type": "text", "align": "left", "baseline": "top", "fontSize": 14, "fontWeight": 600}
    return {
        "width": WIDTH,
        "height": 18 * len(lines),
        "data": {"values": [{}]},
        "mark": {**text, "lineHeight": 18},
        "encoding": {"x": {"value": 0}, "y": {"value": 0}, "text": {"value": lines}},
    }
