"""The signs beside outcomes, and the counts on top of a page. Imports no torch."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cml_bench.evidence.claims import DOES_NOT_HOLD, HOLDS
from cml_bench.evidence.deciding import NOT_RUN
from cml_bench.evidence.verdict import CANNOT_TELL, DIFFERS, REPRODUCED
from cml_bench.figures.outcomes import LOOKS
from cml_bench.report import summary
from cml_bench.report.grids import DASH

# A sign beside each outcome: it is seen at a glance, and does not depend on colour.
SIGNS = {
    **{look.name: look.sign for look in LOOKS.values()},
    REPRODUCED: "✓",
    DIFFERS: "≠",
    CANNOT_TELL: "?",
    summary.NOT_JUDGED: "○",
    HOLDS: "✓",
    DOES_NOT_HOLD: "✕",
    NOT_RUN: "○",
}
_JUDGED = {"verdict", "level", "verdict on the gain", "outcome"}  # columns of outcomes

Tile = tuple[str, str, str, str]
"""Number, name, sign and CSS class of what stands on top in large type."""


def sign(column: str, text: str) -> tuple[str, str] | None:
    """Sign and CSS class of an outcome; None outside columns of outcomes and for a dash."""
    if column not in _JUDGED or text == DASH:
        return None
    other = summary.NOT_TESTED if column == "verdict" else summary.NOT_JUDGED
    name = next((name for name in SIGNS if re.match(rf"{name}\b", text)), other)
    return mark(name)


def mark(name: str) -> tuple[str, str]:
    """Sign and CSS class of an outcome."""
    return SIGNS[name], name.replace(" ", "-")


def counted(counts: Mapping[str, int], names: Sequence[str], always: int) -> list[Tile]:
    """A tile for each of these outcomes; of those after the first ``always`` only what occurs."""
    tiles = []
    for place, name in enumerate(names):
        if counts.get(name, 0) or place < always:
            number, _, outcome = summary.counted(counts.get(name, 0), name).partition(" ")
            tiles.append((number, outcome, *mark(name)))
    return tiles


def groups(
    contrasts: Mapping[str, Mapping[str, int]],
    counts: Mapping[str, int],
    runs: tuple[int, int],
) -> list[dict[str, Any]]:
    """The tiles on top: what came of CML, of CML† and of other contrasts, the levels beside the
    paper's, and ``runs``, how many are finished of how many. What a study has not is left out.
    """
    found = [
        {"title": name, "note": summary.CONTRASTS[name], "tiles": _judged(of, summary.DIFFERENCES)}
        for name, of in contrasts.items()
    ]
    levels = _judged(counts, summary.LEVELS)
    found.append({"title": "Levels", "note": "beside the paper's", "tiles": levels})
    done = ("{} of {}".format(*runs), "finished", "", "runs")
    found.append({"title": "Runs", "note": "of this study", "tiles": [done]})
    return [group for group in found if group["tiles"]]


def _judged(counts: Mapping[str, int], names: Sequence[str]) -> list[Tile]:
    """Those that are judged stand together: a loss that is none is told where there is a gain."""
    *judged, _ = names
    always = len(judged) if any(counts[name] for name in judged) else 0
    return counted(counts, names, always)


def claims(outcomes: Iterable[str], order: Sequence[str]) -> list[Tile]:
    """A tile for each outcome that some claim has."""
    every = [*outcomes]
    return counted({name: every.count(name) for name in order}, order, 0)
