"""The page's charts as Vega-Lite specifications: plain values that the reader's browser draws.

The page holds the data and, once, the script that draws (:func:`script`), so nothing is fetched.
Text and lines take the page's colour (``currentColor``), so a chart is legible on a dark page and
on paper. Series differ by dashes and shapes too, never by colour alone. Imports no torch.
"""

import functools
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from cml_bench.figures.style import COLOURS
from cml_bench.records import Record

Spec = dict[str, Any]

MOST_POINTS = 20_000
"""Points of all learning curves of a page: more would make it large and slow to draw."""

_DASHES = ([1, 0], [6, 2], [2, 2], [8, 2, 2, 2])
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


def learning(
    runs: Sequence[Curve], methods: Sequence[str], title: str, kind: str, most: int
) -> Spec:
    """One line a run, and a thick one for the mean over the runs of a method.

    ``methods`` are all that have a colour in this experiment. ``kind``: classification or
    regression; errors fall by orders of magnitude, so their axis is logarithmic. ``most``: points
    of a line.
    """
    score = "accuracy, %"
    scale: Spec = {"zero": False}
    least = -1.0
    if kind == "regression":
        score, scale = "squared error", {"type": "log", "nice": False}
        least = 0.0  # which has no logarithm
    grouped = [[c for c in runs if c.method == name] for name in methods]
    thick = [mean(group) for group in grouped if len(group) > 1]
    x = {
        "field": "step",
        "type": "quantitative",
        "title": "outer step",
        "axis": {"tickCount": 5, "grid": False},
    }
    y = {"field": "score", "type": "quantitative", "title": score, "scale": scale}
    return {
        "title": title,
        "description": f"Learning curves, {title}: {score} over outer steps, a line for each run.",
        "width": "container",
        "height": 230,
        "data": {"values": [_line(c, most, c in thick, least) for c in (*runs, *thick)]},
        "transform": [{"flatten": ["step", "score"]}],
        "encoding": {"x": x, "y": y, **_series(methods)},
        "layer": [
            _lines(mean=False, strong=not thick),
            *([_lines(mean=True, strong=True)] if thick else []),
            _hover(),
        ],
    }


def _series(methods: Sequence[str]) -> Spec:
    """A method's colour and dashes. As in the figures, every colour is used once before the dashes
    change. Here, two methods next to each other have different dashes, too.
    """
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(methods))]
    dashes = [_DASHES[(k + k // len(COLOURS)) % len(_DASHES)] for k in range(len(methods))]
    legend = {"symbolType": "stroke", "columns": {"expr": "max(1, floor(width / 150))"}}
    shared = {"field": "method", "type": "nominal"}
    return {
        "color": {**shared, "scale": {"domain": list(methods), "range": colours}, "legend": legend},
        "strokeDash": {
            **shared,
            "scale": {"domain": list(methods), "range": dashes},
            "legend": legend,
        },
    }


def _lines(mean: bool, strong: bool) -> Spec:
    over = {"param": "run", "empty": False}
    return {
        "transform": [{"filter": "datum.mean" if mean else "!datum.mean"}],
        "mark": {"type": "line", "interactive": False, "aria": strong},
        "encoding": {
            "detail": {"field": "seed"},
            "opacity": {"condition": {**over, "value": 1}, "value": 1 if strong else 0.55},
            "strokeWidth": {"condition": {**over, "value": 3}, "value": 2.5 if strong else 1},
        },
    }


def _hover() -> Spec:
    """Invisible points: under the pointer they show their values, and their line stands out."""
    select = {
        "type": "point",
        "fields": ["method", "seed"],
        "on": "pointerover",
        "clear": "pointerout",
    }
    told = ("method", "seed", "step", "score")
    return {
        "params": [{"name": "run", "select": select}],
        "mark": {"type": "point", "size": 90, "opacity": 0, "filled": True, "aria": False},
        "encoding": {
            "strokeDash": None,
            "tooltip": [
                {"field": name, **({"format": ","} if name == "step" else {})} for name in told
            ],
        },
    }


def _line(curve: Curve, most: int, mean: bool, least: float) -> Spec:
    """A curve as one entry of the data: lists of steps and scores, which Vega-Lite unrolls.

    Scores of at most ``least`` and infinite ones are left out, and all but ``most`` of the rest.
    """
    kept = [(s, v) for s, v in zip(curve.steps, curve.scores, strict=True) if least < v < math.inf]
    kept = thinned(kept, most)
    steps, scores = [s for s, _ in kept], [short(v) for _, v in kept]
    return {
        "method": curve.method,
        "seed": curve.seed,
        "mean": mean,
        "step": steps,
        "score": scores,
    }


def thinned(points: list[Any], most: int) -> list[Any]:
    """At most so many of the points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[i] for i in np.linspace(0, len(points) - 1, most).round().astype(int)]


def short(value: float) -> float:
    """Five significant digits: more cannot be seen, and would make the page larger."""
    return float(f"{value:.5g}")
