"""Gains by what normalises a query: the picture of a table of kind ``normalised``.

Colour and shape are the outcome's, as everywhere. Imports no torch.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from cml_bench.evidence.table import Column, Difference, Table, TableRow
from cml_bench.figures.outcomes import look
from cml_bench.readings import META
from cml_bench.report.charts import DASHES, Spec, on_phones, short
from cml_bench.report.forest import outcome_channel

_WAYS = {
    "task": "all queries",
    "support": "support set",
    "two_classes": "two classes",
    "one_class": "one class",
}
_WIDTH, _ACROSS = 230, 4  # of the static picture: pixels of a panel, panels in a row

_Line = tuple[TableRow, Column, Difference]


def panels(table: Table) -> list[Spec]:
    """A chart for each comparison, those with the co-learner first: the paired improvement over the
    ways of normalising, a line for each shot. They share the vertical axis. Empty for other tables.
    """
    lines = [line for line in table.differences() if line[1].normalised_with]
    if not lines:
        return []
    # One scale of outcomes for all panels: beside each other they share it.
    every, ends = [_point(line) for line in lines], _ends(lines)
    looks = outcome_channel(every, "colour"), outcome_channel(every, "shape")
    by_row = [[*group] for _, group in groupby(lines, key=lambda line: line[0].label)]
    by_row.sort(key=lambda group: group[0][0].reading == META)
    return [_panel(table, group, ends, looks) for group in by_row]


def picture(tables: Sequence[Table]) -> Spec | None:
    """The panels of all such tables, several in a row; None without any."""
    drawn = [{**spec, "width": _WIDTH} for table in tables for spec in panels(table)]
    rows = [{"hconcat": drawn[k : k + _ACROSS]} for k in range(0, len(drawn), _ACROSS)]
    return {"vconcat": rows} if rows else None


def _ends(lines: Sequence[_Line]) -> list[float]:
    every = [0.0]
    for _, _, d in lines:
        half = 0.0 if math.isnan(d.paired.half) else d.paired.half
        every += [d.better * d.paired.diff - half, d.better * d.paired.diff + half]
    room = 0.05 * (max(every) - min(every)) or 1.0
    return [short(min(every) - room), short(max(every) + room)]


def _panel(
    table: Table, lines: Sequence[_Line], ends: list[float], looks: tuple[Spec, Spec]
) -> Spec:
    row = lines[0][0]
    points = [_point(line) for line in lines]
    title = [f"{row.label} −", row.against or ""]
    shots = list(dict.fromkeys(point["shots"] for point in points))
    x: dict[str, Any] = {
        "field": "way",
        "type": "nominal",
        "sort": [*_WAYS.values()],
        "title": "in a batch with a query",
        "axis": {"labelAngle": on_phones(-40, -25), "domain": False, "ticks": False},
    }
    return {
        "title": {"text": title},
        "description": f"Paired improvement by what normalises a query, {' '.join(title)}, with"
        " 95 % t intervals. The table beneath holds the same numbers.",
        "width": "container",
        "height": 190,
        "data": {"values": points},
        "encoding": {"x": x},
        "layer": _layers(table, shots, ends, looks),
    }


def _layers(
    table: Table, shots: Sequence[str], ends: list[float], looks: tuple[Spec, Spec]
) -> list[Spec]:
    """The line at zero, a line for each shot, the intervals and the means by outcome."""
    colour, shape = looks
    y = {
        "type": "quantitative",
        "title": table.rules.gain_unit,
        "scale": {"domain": ends, "nice": False},
    }
    dash = {
        "field": "shots",
        "type": "nominal",
        "scale": {"domain": shots, "range": [DASHES[k % len(DASHES)] for k in range(len(shots))]},
    }
    told = [{"field": name} for name in ("shots", "way", "gain", "interval", "outcome")]
    still = {"interactive": False, "aria": False}
    return [
        {
            "data": {"values": [{}]},
            "mark": {"type": "rule", "strokeDash": [3, 3], **still},
            "encoding": {"x": None, "y": {"datum": 0, **y}},
        },
        {
            "mark": {"type": "line", "strokeWidth": 1, "color": "currentColor", **still},
            "encoding": {"y": {**y, "field": "gain"}, "strokeDash": dash},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 2, **still},
            "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {
                "y": {**y, "field": "gain"},
                "color": colour,
                "shape": shape,
                "tooltip": told,
            },
        },
    ]


def _point(line: _Line) -> Spec:
    _, column, d = line
    gain, half = d.better * d.paired.diff, d.paired.half
    known = not math.isnan(half)
    return {
        "shots": f"{column.shot}-shot",
        "way": _WAYS[column.normalised_with or "task"],
        "gain": short(gain),
        "low": short(gain - half) if known else None,
        "high": short(gain + half) if known else None,
        "interval": f"{gain:+.2f} ± {half:.2f}".replace("-", "−") if known else "",
        "outcome": look(d.outcome).name,
    }
