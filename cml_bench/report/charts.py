"""The page's charts as Vega-Lite specifications: plain values that the reader's browser draws.

The page holds the data and, once, the script that draws (:func:`script`), so nothing is fetched.
Text and lines take the page's colour (``currentColor``), so a chart is legible on a dark page and
on paper. Series differ by dashes and shapes too, never by colour alone. Imports no torch.
"""

import functools
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from cml_bench.evidence import stats
from cml_bench.figures.style import COLOURS
from cml_bench.records import Record

Spec = dict[str, Any]

MOST_POINTS = 20_000
"""Points of all learning curves of a page: more would make it large and slow to draw."""

DASHES = ([1, 0], [6, 2], [2, 2], [8, 2, 2, 2], [4, 5], [1, 4])
"""Of lines that have one colour, or where a colour comes again."""

_FAINT = 0.06  # opacity of a line that is not chosen in the legend
_TEXT = {
    "labelColor": "currentColor",
    "titleColor": "currentColor",
    "labelFontSize": 11,
    "titleFontSize": 11,
}
CONFIG: Spec = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **_TEXT,
        "titleFontWeight": "normal",
        "domainColor": "currentColor",
        "tickColor": "currentColor",
        "gridColor": "currentColor",
        "gridOpacity": 0.13,
        "domainOpacity": 0.5,
        "tickOpacity": 0.5,
    },
    "legend": {**_TEXT, "title": None, "orient": "bottom", "symbolSize": 120, "labelLimit": 220},
    "title": {"color": "currentColor", "anchor": "start", "fontSize": 13, "fontWeight": 600},
    "rule": {"color": "currentColor"},
    "text": {"color": "currentColor"},
}


PRINTED: Spec = {**CONFIG, "background": "white", "font": "DejaVu Sans"}
"""The same look on paper: black on white, in the font of the other pictures."""


def png(spec: Spec) -> bytes:
    """A picture of a chart; equal charts give equal bytes."""
    import vl_convert
    from PIL import Image

    from cml_bench.data._glyphs import fonts_folder

    vl_convert.register_font_directory(str(fonts_folder()))
    drawn = vl_convert.vegalite_to_png(spec, config=PRINTED, scale=1.5)
    small = io.BytesIO()  # a third of the bytes, of the same pixels
    Image.open(io.BytesIO(drawn)).convert("RGB").save(small, "PNG", optimize=True)
    return small.getvalue()


@functools.cache
def script() -> str:
    """Vega, Vega-Lite and vega-embed as one script, which sets ``vegaEmbed``."""
    import vl_convert

    # Cached, since it takes long.
    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # only the stub asks for one


def versions() -> str:
    """What :func:`script` is made of."""
    import vl_convert as v

    lite = max(v.get_vegalite_versions(), key=lambda text: [int(part) for part in text.split(".")])
    return f"Vega {v.get_vega_version()}, Vega-Lite {lite}, vega-embed {v.get_vega_embed_version()}"


Stage = Literal["validation", "train"]  # train: on training batches


class Curve(NamedTuple):
    """One run's score over outer steps; nan where it was not measured. ``seed`` names the run among
    those of its method.
    """

    method: str
    seed: str
    steps: list[int]
    scores: list[float]


def curves(named: Iterable[tuple[str, Record]], stage: Stage) -> list[Curve]:
    """The curves of runs with their methods' names: accuracies in percent, errors as they are."""
    drawn = []
    for name, record in named:
        stored = record.curves
        scores = (stored.train if stage == "train" else stored.validation).score("meta")
        if len(scores) == len(stored.step) > 0:
            values = [math.nan if value is None else record.scale * value for value in scores]
            split = record.spec.split
            seed = str(record.spec.seed) if split is None else f"{record.spec.seed}, split {split}"
            drawn.append(Curve(name, seed, stored.step, values))
    return drawn


def mean(group: Sequence[Curve]) -> Curve:
    """The mean over runs of one method, at the steps where all of them have a score."""
    at = [dict(zip(c.steps, c.scores, strict=True)) for c in group]
    steps = [
        s for s in group[0].steps if all(math.isfinite(scores.get(s, math.nan)) for scores in at)
    ]
    means = [float(np.mean([scores[s] for scores in at])) for s in steps]
    return Curve(group[0].method, f"mean of {len(group)}", steps, means)


def spread(group: Sequence[Curve], steps: Sequence[int]) -> list[float]:
    """The half-width of the 95 % t interval over the runs of one method at each of these steps,
    where all of them have a score.
    """
    at = [dict(zip(curve.steps, curve.scores, strict=True)) for curve in group]
    return [stats.t_interval([scores[step] for scores in at]).half for step in steps]


def learning(
    runs: Sequence[Curve], styles: Mapping[str, int], title: str, kind: str, most: int
) -> Spec:
    """The mean over the runs of each method with its 95 % t interval. Single runs are shown while
    the signal ``runs`` is true, and one method where its entry in the legend is clicked.

    ``styles`` are the methods with a colour in this experiment, and the number of each one's style.
    ``kind``: classification or regression; errors fall by orders of magnitude, so their axis is
    logarithmic. ``most``: points of a line.
    """
    score, least = "accuracy, %", -1.0
    scale: Spec = {"zero": False}
    if kind == "regression":
        score, scale = "squared error", {"type": "log", "nice": False}
        least = 0.0  # which has no logarithm
    groups = [group for name in styles if len(group := [c for c in runs if c.method == name]) > 1]
    lines = [_line(curve, most, least) for curve in runs]
    lowest = min((v for line in lines for v in line["score"]), default=least)
    lines += [_mean_line(group, most, least, lowest) for group in groups]
    # Given, since hidden runs have no extent, and so that the axes stay when they are shown.
    x = {
        "field": "step",
        "type": "quantitative",
        "title": "outer step",
        "axis": {"tickCount": 5, "grid": False},
        "scale": {"domain": _ends(lines, "step"), "nice": False},
    }
    scale["domain"] = _ends(lines, "score", "low", "high")
    y = {"field": "score", "type": "quantitative", "title": score, "scale": scale}
    return {
        "title": title,
        "description": f"Learning curves, {title}: {score} over outer steps, mean and 95 % t"
        " interval of each method.",
        "width": "container",
        "height": 230,
        # Pixels of an entry of the legend: page.js makes as many columns as there is room for.
        "usermeta": {"entry": 7 * max(map(len, styles), default=0) + 44},
        "params": [{"name": "runs", "value": not groups}],
        "data": {"values": lines},
        "encoding": {"x": x, "y": y, **_series(styles)},
        "layer": [
            *([_band()] if groups else []),
            _lines(mean=False, strong=not groups),
            *([_lines(mean=True, strong=True)] if groups else []),
            _hover(),
        ],
    }


def _ends(lines: Iterable[Spec], *names: str) -> list[float]:
    """The least and the largest value of these lists of the lines; 0 and 1 without any."""
    values = [value for line in lines for name in names for value in line.get(name, ())]
    values = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    return [min(values), max(values)]


def on_phones(narrow: object, wide: object) -> Spec:
    """A value where a chart's place on the page is narrow, and the one elsewhere."""
    return {"expr": f"containerSize()[0] < 480 ? {json.dumps(narrow)} : {json.dumps(wide)}"}


def _series(styles: Mapping[str, int]) -> Spec:
    """A method's colour and dashes. As in the figures, every colour is used once before the dashes
    change. Here, two methods next to each other have different dashes, too.
    """
    every = styles.values()
    colours = [COLOURS[k % len(COLOURS)] for k in every]
    dashes = [DASHES[(k + k // len(COLOURS)) % len(DASHES)] for k in every]
    legend = {"symbolType": "stroke", "symbolOpacity": 1, "symbolStrokeWidth": 2.5}
    shared = {"field": "method", "type": "nominal"}
    return {
        "color": {**shared, "scale": {"domain": list(styles), "range": colours}, "legend": legend},
        "strokeDash": {
            **shared,
            "scale": {"domain": list(styles), "range": dashes},
            "legend": legend,
        },
    }


def _lines(mean: bool, strong: bool) -> Spec:
    over = {"param": "run", "empty": False}
    return {
        "transform": _shown("datum.mean" if mean else "!datum.mean && runs"),
        "mark": {"type": "line", "interactive": False, "aria": strong},
        "encoding": {
            "detail": {"field": "seed"},
            "opacity": {
                "condition": {"param": "method", "value": 1 if strong else 0.55},
                "value": _FAINT,
            },
            "strokeWidth": {"condition": {**over, "value": 3}, "value": 2.5 if strong else 1},
        },
    }


def _band() -> Spec:
    return {
        "transform": _shown("datum.mean", "low", "high"),
        "mark": {"type": "area", "interactive": False, "aria": False, "strokeWidth": 0},
        "encoding": {
            "y": {"field": "low", "type": "quantitative"},
            "y2": {"field": "high"},
            "strokeDash": None,
            "opacity": {"condition": {"param": "method", "value": 0.18}, "value": 0},
        },
    }


def _shown(test: str, *more: str) -> list[Spec]:
    """The points of those lines that pass a test."""
    return [{"filter": test}, {"flatten": ["step", "score", *more]}]


def _hover() -> Spec:
    """Invisible points: under the pointer they show their values, and their line stands out."""
    select = {
        "type": "point",
        "fields": ["method", "seed"],
        "on": "pointerover",
        "clear": "pointerout",
    }
    chosen = {"type": "point", "fields": ["method"]}
    told = ("method", "seed", "step", "score")
    return {
        "params": [
            {"name": "run", "select": select},
            {"name": "method", "select": chosen, "bind": "legend"},
        ],
        "transform": _shown("datum.mean || runs"),
        "mark": {"type": "point", "size": 90, "opacity": 0, "filled": True, "aria": False},
        "encoding": {
            "strokeDash": None,
            "tooltip": [
                {"field": name, **({"format": ","} if name == "step" else {})} for name in told
            ],
        },
    }


def _line(curve: Curve, most: int, least: float) -> Spec:
    """A curve as one entry of the data: lists of steps and scores, which Vega-Lite unrolls.

    Scores of at most ``least`` and infinite ones are left out, and all but ``most`` of the rest.
    """
    kept = [(s, v) for s, v in zip(curve.steps, curve.scores, strict=True) if least < v < math.inf]
    kept = thinned(kept, most)
    steps, scores = [s for s, _ in kept], [short(v) for _, v in kept]
    return {
        "method": curve.method,
        "seed": curve.seed,
        "mean": False,
        "step": steps,
        "score": scores,
    }


def _mean_line(group: Sequence[Curve], most: int, least: float, lowest: float) -> Spec:
    """As :func:`_line`, with the ends of the interval. On a logarithmic axis (``least`` 0) a lower
    end is cut at the ``lowest`` score of the chart, since it may be no positive number.
    """
    line = _line(mean(group), most, least)
    halves = spread(group, line["step"])
    ends = [(v - half, v + half) for v, half in zip(line["score"], halves, strict=True)]
    low = [short(max(end, lowest) if least == 0 else end) for end, _ in ends]
    return {**line, "mean": True, "low": low, "high": [short(end) for _, end in ends]}


def thinned(points: list[Any], most: int) -> list[Any]:
    """At most so many of the points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[i] for i in np.linspace(0, len(points) - 1, most).round().astype(int)]


def short(value: float) -> float:
    """Five significant digits: more cannot be seen, and would make the page larger."""
    return float(f"{value:.5g}")
