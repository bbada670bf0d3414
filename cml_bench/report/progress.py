"""The page's section "Speed or end?": gains over outer steps, and steps to reach an accuracy.

All numbers are of validation tasks; ``evidence/progress.py`` makes them. Imports no torch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cml_bench.evidence import stats
from cml_bench.evidence.change import Change
from cml_bench.evidence.progress import Arrival, Course, Reached, arrivals, courses, where
from cml_bench.evidence.table import Table
from cml_bench.report import overview
from cml_bench.report.charts import DASHES, Spec, on_phones, short, thinned
from cml_bench.report.grids import DASH, Grid, number, signed
from cml_bench.study.plan import Plan

MOST_STEPS = 60
"""Outer steps that a chart of gains shows of one comparison."""

_QUARTERS = {"a quarter": 0.25, "half": 0.5, "three quarters": 0.75, "the end": 1.0}
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")


def sections(plan: Plan, tables: Sequence[Table]) -> list[dict[str, Any]]:
    """What the page shows of each table whose comparisons have validation curves."""
    found = []
    for table in tables:
        every = courses(table)
        if drawn := [course for course in every if course.gains]:
            found.append(
                {
                    "key": table.key,
                    "title": table.title,
                    "charts": charts(table, drawn, overview.looks(plan, table)),
                    "gains": gain_grid(table, drawn),
                    "outcomes": outcome_grid(table, drawn),
                    "steps": arrival_grid(table, arrivals(table)),
                    "notes": notes(table, every),
                }
            )
    return found


def p_text(p: float) -> str:
    """As every p is printed; a dash for nan."""
    return DASH if math.isnan(p) else stats.p_text(p)


def _with_half(value: stats.Paired, kind: str, sign: int = 1) -> str:
    text = signed(sign * value.diff, kind)
    return text if math.isnan(value.half) else f"{text} ± {number(value.half, kind)}"


# -- tables


def gain_grid(table: Table, drawn: Sequence[Course]) -> Grid:
    """A line for each comparison: its difference at quarters of the training."""
    rows = []
    for course in drawn:
        at = [course.near(share) for share in _QUARTERS.values()]
        texts = [
            DASH if s is None else f"{_with_half(course.gains[s], table.kind)} ({s:,})" for s in at
        ]
        rows.append([*_compared(course), str(len(course.pairs)), *texts])
    heading = f"Paired differences on validation tasks ({table.unit}; outer step in brackets)"
    return Grid(heading, ["comparison", "where", "n", *_QUARTERS], rows, set())


def outcome_grid(table: Table, drawn: Sequence[Course]) -> Grid:
    """A line for each comparison: how its difference changes from half of the training to its end,
    whether the baseline still improves, and what follows.
    """
    header = ["comparison", "where", "half minus end", "p (Holm)", "detectable"]
    header += ["the difference"]
    header += ["baseline's own rise", "speed or end?"]
    rows = [
        [
            *_compared(course),
            *_changed(course.change, table.kind),
            _rise(course, table.kind),
            course.outcome,
        ]
        for course in drawn
    ]
    return Grid("Speed or end, on validation tasks (improvements)", header, rows, set())


def _compared(course: Course) -> list[str]:
    return [f"{course.row.label} − {course.row.against}", where(course.column)]


def _changed(change: Change | None, kind: str) -> list[str]:
    """How much the gain falls from half to the end, the adjusted p, the change that would be found
    with 80 % power, and the outcome.
    """
    if change is None:
        return [DASH] * 4
    least = DASH if math.isnan(change.detectable) else number(change.detectable, kind)
    return [_with_half(change.paired, kind), p_text(change.holm_p), least, change.outcome]


def _rise(course: Course, kind: str) -> str:
    if course.rise is None:
        return DASH
    return f"{_with_half(course.rise, kind)} (from {course.before:,})"


def arrival_grid(table: Table, found: Sequence[Arrival]) -> Grid:
    """A line for each row and place: median outer steps to its baseline's final mean and to round
    levels, and how many runs reach them.
    """
    levels = sorted({v for a in found for v in a.round}, key=lambda v: table.better * v)
    header = ["method", "where", "baseline's final mean", "steps to it", "the baseline's steps"]
    header += [f"steps to {_level(level, table)}" for level in levels]
    own_rows = {a.row.label for a in found}
    rows = []
    for a in found:
        at_round = [a.round.get(level) for level in levels]
        rows.append(
            [
                a.row.label,
                where(a.column),
                DASH if a.final is None else _level(a.final.level, table, round_one=False),
                _steps(a.final, table),
                _steps(a.base, table, named=a.row.against not in own_rows),
                *(_steps(r, table) for r in at_round),
            ]
        )
    what = "an accuracy" if table.better > 0 else "an error"
    heading = f"Outer steps until {what} is first reached in validation: median over runs"
    return Grid(heading, header, rows, set())


def _level(level: float, table: Table, round_one: bool = True) -> str:
    text = f"{level:g}" if round_one else number(level, table.kind)
    return f"{text} %" if table.better > 0 else text


def _steps(r: Reached | None, table: Table, named: bool = True) -> str:
    """``300 (7 of 8; not seed 4)``; ``> 400 (0 of 8)`` where half of the runs never get there.

    ``named``: whether those that never do are named.
    """
    if r is None or not r.total:
        return DASH
    median = f"{r.median:,.10g}"
    if math.isinf(r.median):
        median = "not by half" if r.trained is None else f"> {r.trained:,}"
    missed = f"; not {_named(r.never, table)}" if named and 0 < r.reached < r.total else ""
    return f"{median} ({r.reached} of {r.total}{missed})"


def _named(units: Sequence[str], table: Table) -> str:
    """``seed 4``, ``seeds 0, 3``, ``class split r3``."""
    noun = table.replicates if len(units) > 1 else table.replicates.removesuffix("s")
    return f"{noun} {', '.join(units)}"


# -- sentences


def notes(table: Table, every: Sequence[Course]) -> list[str]:
    """What is left out and why, a sentence for each reason."""
    why: dict[str, list[str]] = {}
    for course in every:
        line = ", ".join(_compared(course))
        if course.reason:
            why.setdefault(f"Not shown ({course.reason})", []).append(line)
        if course.left_out:
            named = _named(course.left_out, table)
            why.setdefault(f"No validation curve of {named}", []).append(line)
        if course.stopped:
            here = f"to {course.last:,} ({course.stopped} of {len(course.pairs)} pairs go on)"
            early = "Shown up to the last step at which all pairs were validated"
            why.setdefault(early, []).append(f"{line}: {here}")
    return [f"{reason}: {'; '.join(lines)}." for reason, lines in why.items()]


# -- charts


def charts(
    table: Table, drawn: Sequence[Course], looks: Mapping[str, tuple[str, list[int]]]
) -> list[Spec]:
    """A chart for each comparison and group of columns: improvement over outer steps, a line with
    its 95 % t interval for each shot. The charts of a table share the vertical axis, and each has
    the colour that its row's method has in all charts (``looks``, by the row's label).
    """
    shots = sorted({course.column.shot for course in drawn})
    domain = _reach(drawn)
    panels: dict[tuple[str, str, str], list[Course]] = {}
    for course in drawn:
        parts = (f"{course.row.label} −", course.row.against or "", course.column.group)
        panels.setdefault(parts, []).append(course)
    return [
        _panel(
            (row, ", ".join(filter(None, rest))),
            lines,
            shots,
            domain,
            table,
            looks[lines[0].row.label][0],
        )
        for (row, *rest), lines in panels.items()
    ]


def _reach(drawn: Sequence[Course]) -> tuple[float, float]:
    """The ends of the vertical axis. Every mean is on it; an interval that reaches more than five
    times as far as the median one is cut, and so is what no accuracy can differ by.
    """
    every = [(c.better * d.diff, d.half) for c in drawn for d in c.gains.values()]
    ends = sorted(abs(v) + h for v, h in every if math.isfinite(h))
    limit = 5 * ends[len(ends) // 2] if ends else math.inf
    low, high = min(0.0, *(v for v, _ in every)), max(0.0, *(v for v, _ in every))
    for value, half in every:
        if abs(value) + half <= limit:
            low, high = min(low, value - half), max(high, value + half)
    if drawn[0].better > 0:
        low, high = max(low, -100.0), min(high, 100.0)
    room = 0.05 * (high - low) or 1.0
    return short(low - room), short(high + room)


def _panel(
    title: tuple[str, str],
    lines: Sequence[Course],
    shots: Sequence[int],
    domain: tuple[float, float],
    table: Table,
    colour: str,
) -> Spec:
    x = {
        "field": "step",
        "type": "quantitative",
        "title": "outer step",
        "axis": {"tickCount": 5, "grid": False},
        "scale": {"zero": True, "nice": False},
    }
    y = {
        "type": "quantitative",
        "title": [table.rules.gain_unit, "(validation tasks)"],
        "scale": {"domain": [*domain], "nice": False},
    }
    points = [point for course in lines for point in _points(course)]
    few = len(points) <= 20 * len(lines)
    return {
        "title": {"text": on_phones(title, " ".join(title))},
        "description": "Paired improvement on validation tasks over outer steps,"
        f" {' '.join(title)}, with 95 % t intervals over seeds.",
        "width": "container",
        "height": 190,
        "data": {"values": points},
        "encoding": {"x": x, "color": {"value": colour}},
        "layer": _layers(y, shots, size=40 if few else 12),
    }


def _layers(y: Spec, shots: Sequence[int], size: int) -> list[Spec]:
    """The line at zero, the intervals as bands, the means as lines and as points of this size."""
    told = ("shots", "step", "gain", "low", "high", "n")
    return [
        {
            "mark": {"type": "rule", "strokeDash": [3, 3]},
            "encoding": {"x": None, "y": {"datum": 0, **y}, "color": None},
        },
        {
            "mark": {"type": "area", "opacity": 0.18, "clip": True, "aria": False},
            "encoding": {
                "y": {**y, "field": "low"},
                "y2": {"field": "high"},
                "detail": {"field": "shots", "type": "nominal"},  # a band for each shot
            },
        },
        {
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {"y": {**y, "field": "gain"}, "strokeDash": _by_shot(shots, DASHES)},
        },
        {
            "mark": {"type": "point", "filled": True, "size": size, "opacity": 1},
            "encoding": {
                "y": {**y, "field": "gain"},
                "shape": _by_shot(shots, _SHAPES),
                "tooltip": [{"field": name} for name in told],
            },
        },
    ]


def _by_shot(shots: Sequence[int], looks: Sequence[Any]) -> Spec:
    """A look for each number of shots of the table, the same in all its charts."""
    names = [f"{shot}-shot" for shot in shots]
    chosen = [looks[k % len(looks)] for k in range(len(names))]
    return {
        "field": "shots",
        "type": "nominal",
        "scale": {"domain": names, "range": chosen},
        "legend": {"columns": 4, "symbolOpacity": 1},
    }


def _points(course: Course) -> list[Spec]:
    points = []
    for step in thinned(list(course.gains), MOST_STEPS):
        d = course.gains[step]
        gain, known = course.better * d.diff, math.isfinite(d.half)
        points.append(
            {
                "shots": f"{course.column.shot}-shot",
                "step": step,
                "gain": short(gain),
                "low": short(gain - d.half) if known else None,
                "high": short(gain + d.half) if known else None,
                "n": d.n,
            }
        )
    return points
