"""What the signs of a page mean: on hover, and as a key with links to the docs.

Imports no torch.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup, escape

import cml_bench
from cml_bench.evidence import stats
from cml_bench.report.grids import DASH

DOCS = Path(cml_bench.__file__).parent.parent / "docs"


class Entry(NamedTuple):
    """A sign with its meaning, and the part of the docs that has its rule.

    ``pattern`` finds the sign in a cell; ``heading`` says that it is a column's name instead.
    """

    sign: str
    pattern: str
    meaning: str
    docs: str
    heading: bool = False


_P = dict(enumerate(stats.SIGNIFICANCE, 1))
_CELL, _TEST, _PAPER, _CLAIMS = (
    "evidence.md#a-cell",
    "evidence.md#a-comparison",
    "evidence.md#beside-the-paper",
    "claims.md#how-to-read-it",
)
# The outcomes, which have a sign beside them (signs.py).
OUTCOMES = (
    Entry("✓ holds", "^holds$", "every cell is as claimed, significant at 5 %", _CLAIMS),
    Entry("✕ does not hold", "^does not hold$", "some cell is significantly the contrary", _CLAIMS),
    Entry("? cannot tell", "^cannot tell", "neither is shown: the data decide nothing", _CLAIMS),
    Entry("○ not run", "^not run$", "no run that could decide it is made here", _CLAIMS),
    Entry("✓ reproduced", "^reproduced", "within one point of the paper's number", _PAPER),
    Entry("≠ differs", "^differs", "more than one point from the paper's number", _PAPER),
    Entry("○ not judged", "^(?:not judged|setting not)", "no verdict: see why", _PAPER),
    Entry("● not tested", "not tested", "no verdict: too few seeds, or runs are missing", _TEST),
)
KEY = (
    Entry("CML", r"CML(?!†)", "trained with a co-learner, tested without", "protocols.md#methods"),
    Entry(
        "†",
        "†",
        "tested with the co-learner, which CML throws away",
        "protocols.md#what-cml-means",
    ),
    Entry("⋆", "⋆", "tested by the meta-learner's head alone", "protocols.md#what-cml-means"),
    Entry("±", "±", "half-width of the 95 % t interval over n seeds or class splits", _CELL),
    Entry("(0.41)", r"\(\d+\.\d+\)", "half-width from the test episodes", _CELL),
    Entry("▲", f"{stats.UP}+", "a gain: adjusted p < 0.05; two signs: 0.01; three: 0.001", _TEST),
    Entry("▼", f"{stats.DOWN}+", "a loss: adjusted p < 0.05; two signs: 0.01; three: 0.001", _TEST),
    Entry("◆", "undecided", "tested, and not significant at 5 % after Holm's correction", _TEST),
    Entry(
        "paper's outside",
        r"paper's (?:in|out)side",
        "the paper's gain lies outside of our 95 % interval; inside: within it",
        _PAPER,
    ),
    Entry("‡", "‡", "the mean of fewer runs than were started", "evidence.md#runs-that-fail"),
    Entry("(c)", r"\(c\)", "copied by the paper's authors from another paper", _PAPER),
    Entry(DASH, f"^{DASH}$", "no such number: no run, or nothing to compare", "evidence.md#a-cell"),
    Entry("n", "n", "number of finished runs: seeds or class splits", _CELL, True),
    Entry("p (Holm)", r"p \(Holm\)", "p after Holm's correction in its family", _TEST, True),
    Entry(
        "detectable",
        "detectable",
        "the true difference that would be found with 80 % power",
        _TEST,
        True,
    ),
    Entry("[90 %]", r"\[90 %\]", "90 % interval, by which a level is judged", _PAPER, True),
    Entry("cells", "cells", "the comparisons that decide a claim, by outcome", _CLAIMS, True),
    Entry("weakest", "weakest", "the cell that speaks least for the claim", _CLAIMS, True),
    Entry("size", "size", "how large the runs are beside the paper's", _CLAIMS, True),
    Entry("level", "level", "our number beside the paper's number", _PAPER, True),
    Entry(
        "half minus end",
        "half minus end",
        "the difference at half of the steps minus that at the end",
        "evidence.md#speed-or-end",
        True,
    ),
    Entry("[95 %]", r"\[95 %\]", "95 % t interval over seeds or class splits", _TEST, True),
    *OUTCOMES,
)
_SHOWN = [entry for entry in KEY if entry.sign != "CML"]  # it is in most labels
_OUTCOMES = {e.sign.partition(" ")[2].replace(" ", "-"): e.meaning for e in OUTCOMES} | {
    e.pattern: e.meaning for e in KEY if e.sign == "◆"
}
_IN_CELL = re.compile("|".join(f"({e.pattern})" for e in _SHOWN if not e.heading))
_MEANINGS = [entry.meaning for entry in _SHOWN if not entry.heading]


def hinted(text: str) -> Markup:
    """The text of a cell as HTML, each sign with its meaning on hover."""
    parts, end = [], 0
    for match in _IN_CELL.finditer(text):
        meaning = _MEANINGS[(match.lastindex or 1) - 1]
        parts += [escape(text[end : match.start()]), _abbr(match[0], meaning)]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def outcome(name: str) -> str:
    """What an outcome means, by its CSS class (:func:`signs.mark`); empty for any other text."""
    return _OUTCOMES.get(name, "")


def heading(text: str) -> Markup:
    """The name of a column as HTML, with its meaning on hover where the key has one."""
    for entry in KEY:
        if entry.heading and re.search(rf"(^|\W){entry.pattern}$", text):
            return _abbr(text, entry.meaning)
    return hinted(text)


def _abbr(text: str, meaning: str) -> Markup:
    if text[0] in (stats.UP, stats.DOWN):
        word = "gain" if text[0] == stats.UP else "loss"
        meaning = f"a {word}, adjusted p < {_P[min(len(text), len(_P))]:g}"
    return Markup('<abbr title="{}">{}</abbr>').format(meaning, text)


def entries(cells: Iterable[str], headings: Iterable[str], out: Path) -> list[dict[str, str]]:
    """The key's lines whose sign occurs among a page's cells or names of columns.

    Each has ``sign``, ``meaning``, and ``docs`` with a relative ``link`` from the folder ``out``.
    The link is empty where ``out`` lies outside the checkout that has the docs.
    """
    texts = {False: [*dict.fromkeys(cells)], True: [*dict.fromkeys(headings)]}
    found = []
    for entry in KEY:
        pattern = re.compile(rf"(^|\W){entry.pattern}$" if entry.heading else entry.pattern)
        if any(pattern.search(text) for text in texts[entry.heading]):
            line = {"sign": entry.sign, "meaning": entry.meaning, "docs": entry.docs}
            found.append({**line, "link": _link(entry.docs, out)})
    return found


def _link(place: str, out: Path) -> str:
    name, _, anchor = place.partition("#")
    root = DOCS.parent.resolve()
    if not (DOCS / name).exists() or not out.resolve().is_relative_to(root):
        return ""
    return f"{Path(os.path.relpath(DOCS / name, out)).as_posix()}#{anchor}"
