"""A table at one look, for its page: performance profiles and probabilities of improvement.

``evidence/profiles.py`` has the definitions. Imports no torch.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from cml_bench.evidence import profiles
from cml_bench.evidence.profiles import Improvement, Profile
from cml_bench.evidence.table import Table
from cml_bench.figures import style
from cml_bench.figures.style import COLOURS
from cml_bench.report.charts import DASHES, Spec, on_phones, short
from cml_bench.study.plan import Plan


def section(plan: Plan, table: Table) -> list[Spec]:
    """The charts of a table that has several columns; empty for any other."""
    found, better = profiles.profiles(table), profiles.improvements(table)
    own = looks(plan, table)
    charts = [_profile(found, own, table.title)] if found else []
    return charts + ([_improvement(better, own, table.title)] if better else [])


def looks(plan: Plan, table: Table) -> dict[str, tuple[str, list[int]]]:
    """Label of a row -> its colour, that of its method in all charts, and its dashes, which
    differ where a colour comes again.
    """
    order, found, seen = style.order(plan), {}, Counter[str]()
    for row in plan.tables[table.key].rows:
        colour = COLOURS[order.index(row.run) % len(COLOURS)]
        found[row.label] = (colour, DASHES[seen[colour] % len(DASHES)])
        seen[colour] += 1
    return found


def _profile(found: Sequence[Profile], looks: dict[str, tuple[str, list[int]]], title: str) -> Spec:
    names = [one.label for one in found]
    shared: Spec = {"field": "method", "type": "nominal"}
    legend = {"symbolType": "stroke", "symbolOpacity": 1, "symbolStrokeWidth": 2.5}
    channels = {
        channel: {
            **shared,
            "legend": legend,
            "scale": {"domain": names, "range": [looks[name][k] for name in names]},
        }
        for k, channel in enumerate(("color", "strokeDash"))
    }
    ends = [float(found[0].levels[0]), float(found[0].levels[-1])]
    x = {"field": "score", "type": "quantitative", "title": "accuracy, %"}
    y = {"type": "quantitative", "scale": {"domain": [0, 1]}, "title": "share of runs above it"}
    chosen = {"type": "point", "fields": ["method"]}
    step = {"interpolate": "step-after", "clip": True}
    return {
        "title": "Performance profile",
        "description": f"Performance profile of {title}: the share of runs above each accuracy.",
        "width": "container",
        "height": 230,
        "usermeta": {"entry": 7 * max(map(len, names)) + 44},
        "data": {"values": [_curve(one) for one in found]},
        "transform": [{"flatten": ["score", "share", "low", "high"]}],
        "encoding": {"x": {**x, "scale": {"domain": ends, "nice": False}}, **channels},
        "layer": [
            {
                "mark": {"type": "area", "strokeWidth": 0, "aria": False, **step},
                "encoding": {
                    "y": {**y, "field": "low"},
                    "y2": {"field": "high"},
                    "strokeDash": None,
                    "opacity": {"condition": {"param": "row", "value": 0.12}, "value": 0},
                },
            },
            {
                "params": [{"name": "row", "select": chosen, "bind": "legend"}],
                "mark": {"type": "line", "strokeWidth": 2, **step},
                "encoding": {
                    "y": {**y, "field": "share"},
                    "opacity": {"condition": {"param": "row", "value": 1}, "value": 0.06},
                },
            },
        ],
    }


def _curve(one: Profile) -> Spec:
    names = {"score": one.levels, "share": one.share, "low": one.low, "high": one.high}
    values: dict[str, Any] = {
        name: [short(float(v)) if np.isfinite(v) else None for v in of]
        for name, of in names.items()
    }
    return {"method": one.label, **values}


def _improvement(
    found: Sequence[Improvement], looks: dict[str, tuple[str, list[int]]], title: str
) -> Spec:
    rows = [{**_beaten(one), "colour": looks[one.label][0]} for one in found]
    colour = {"field": "colour", "type": "nominal", "scale": None}
    ticks = {"tickCount": on_phones(2, 5), "format": ".1f"}
    x = {"type": "quantitative", "title": "probability of improvement", "axis": ticks}
    axis = {"labelExpr": "split(datum.label, '\\n')", "labelLimit": 200, "labelOffset": -7}
    still = {"interactive": False}
    return {
        "title": "Probability of improvement",
        "description": f"Probability of improvement of {title}: that a run of a row beats a run of"
        " its baseline.",
        "width": "container",
        "height": 32 * len(rows),
        "data": {"values": rows},
        "encoding": {
            "y": {
                "field": "line",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {**axis, "domain": False, "ticks": False},
            },
            "tooltip": [{"field": name} for name in ("probability", "cells", "seeds")],
        },
        "layer": [
            {
                "data": {"values": [{}]},
                "mark": {"type": "rule", "strokeDash": [3, 3], **still},
                "encoding": {"x": {"datum": 0.5, **x}, "y": None, "tooltip": None},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {
                    "color": colour,
                    "x": {**x, "field": "low", "scale": {"domain": [0, 1]}},
                    "x2": {"field": "high"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
                "encoding": {"x": {**x, "field": "value"}, "color": colour},
            },
        ],
    }


def _beaten(one: Improvement) -> Spec:
    p = one.whole.improvement
    return {
        "line": f"{one.label}\nover {one.against}",
        "value": short(p.value),
        "low": short(p.low),
        "high": short(p.high),
        "probability": f"{p.value:.2f} [{p.low:.2f}, {p.high:.2f}]",
        "cells": one.whole.cells,
        "seeds": one.whole.seeds,
    }
