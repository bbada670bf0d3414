"""Cost against tasks, inner steps, image size, seeds and runs: the points and their picture."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import measure
from benchmarks.workloads import WAY, Workload


@dataclass(frozen=True)
class Curve:
    """Points of a workload. ``axis``: the field of the problem that takes ``values``."""

    name: str
    axis: str
    values: tuple[int, ...]
    problem: dict[str, Any]
    implementations: tuple[str, ...] = (WAY, "engine, fast")


_CONV = {"size": 28, "channels": 1, "tasks": 4}
_SINE = {"tasks": 4, "way": 1, "shot": 10, "query": 10, "inner_lr": 0.01}
CURVES = [
    Curve("Conv4-64 28x28 1-shot", "tasks", (1, 2, 4, 8, 16), _CONV),
    Curve("Conv4-64 28x28 1-shot", "inner_steps", (1, 2, 3, 5, 8), _CONV),
    Curve(
        "Conv4-64 1-shot, 4 tasks",
        "size",
        (16, 28, 42, 64, 84),
        _CONV,
        (WAY, "engine, fast", "engine, fast, task by task", "engine, fast, four at once"),
    ),
    Curve("sinusoid", "tasks", (1, 4, 25, 100, 400), _SINE),
    Curve("sinusoid, 4 tasks", "inner_steps", (1, 2, 3, 5, 8), _SINE),
    Curve("sinusoid, 4 tasks, compiled", "seeds", (1, 4, 16, 64), _SINE, ("engine, many seeds",)),
    Curve(
        "sinusoid, 25 tasks, compiled",
        "seeds",
        (1, 5, 16, 64),
        _SINE | {"tasks": 25},
        ("engine, many seeds",),
    ),
]


def measure_curves(
    quick: bool, repeats: int, rng: random.Random, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows with ``axis`` and ``value``. A missing implementation has one row in each curve."""
    points = []
    for curve in CURVES[:1] if quick else CURVES:
        for value in curve.values[:2] if quick else curve.values:
            title = f"cost against {curve.axis.replace('_', ' ')}: {curve.name}"
            workload = Workload(
                title, curve.problem | {curve.axis: value}, curve.implementations, block_seconds=0.5
            )
            *_, rows = measure([workload.quick() if quick else workload], repeats, rng, say)
            points += [{**row, "axis": curve.axis, "value": value} for row in rows]
            if all("missing" in row for row in rows):
                break
    return points


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw processor seconds, one panel for each curve; both axes are logarithmic.

    Without a curve nothing is drawn.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        if "axis" in row and row["workload"] != "start-up" and row["seconds"] is not None:
            lines = panels.setdefault(row["workload"], {})
            lines.setdefault(row["implementation"], []).append((row["value"], row["processor"]))
    if not panels:
        return
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        height, columns, figsize=(4.2 * columns, 3.2 * height), squeeze=False
    )
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for name, points in lines.items():
            ax.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
        ax.set(title=title, ylabel="processor seconds", xscale="log", yscale="log")
        ticks = sorted({value for points in lines.values() for value, _ in points})
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.title.set_fontsize("small")
        ax.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
