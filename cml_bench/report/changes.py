"""What is said of gains that change: the block ``gain-changes`` of docs/results.md.

The words follow from the outcome of each test (``evidence/changes.py``), so they cannot say more
than it shows. Imports no torch.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from tabulate import tabulate

from cml_bench.evidence import changes, stats
from cml_bench.evidence.change import FALLS, GROWS, NOT_SHOWN, RISES, SHRINKS
from cml_bench.evidence.changes import Tested
from cml_bench.registry import tables
from cml_bench.report.grids import DASH, number, signed
from cml_bench.report.progress import p_text
from cml_bench.study import config
from cml_bench.study.plan import Plan, cached
from cml_bench.texts import markdown

BLOCK = "gain-changes"
_SHOWN = {SHRINKS: "shrinks", GROWS: "grows", FALLS: "falls", RISES: "rises"}


def planned(path: str) -> Plan:
    """The plan of a configuration file."""
    return cached(config.merged([path]), path)


def block(
    reference: Path, plan_of: Callable[[str], Plan] = planned, path: Path = changes.FILE
) -> str:
    """The block in Markdown: a sentence for each row, and a table with each test."""
    found = changes.tested(changes.read(path), plan_of, reference, str(path))
    rows = dict.fromkeys((line.row, line.against) for line in found)
    said = [
        f"* {sentence([line for line in found if (line.row, line.against) == row])}" for row in rows
    ]
    return "\n\n".join(["\n".join(said), _table(found), _explained(found)])


def sentence(lines: Sequence[Tested]) -> str:
    """What the tests show of one row's gain.

    It shrinks only where the change itself is significant at 5 % after Holm's correction; anything
    else is not shown, with its numbers.
    """
    first, n = lines[0], len(lines)
    gain = f"gain of {markdown(first.row)} over {markdown(first.against)}"
    parts = []
    for outcome in dict.fromkeys(line.change.outcome for line in lines):
        here = [line for line in lines if line.change.outcome == outcome]
        numbers = "; ".join(_numbers(line) for line in here)
        count = f"{len(here)} of {n} comparison{'s' * (n > 1)}"
        if outcome in _SHOWN:
            what = gain if outcome in (SHRINKS, GROWS) else gain.replace("gain", "difference", 1)
            parts.append(f"**The {what} {_SHOWN[outcome]}** in {count} ({numbers}).")
        elif outcome == NOT_SHOWN:
            parts.append(
                f"**Not shown: that the {gain} shrinks or grows**, in {count} ({numbers})."
            )
        else:
            parts.append(f"Whether the {gain} changes is not tested in {count} ({numbers}).")
    return " ".join(parts)


def _numbers(line: Tested) -> str:
    """``1-shot, after 400 steps minus after 1,000 steps: +2.27 ± 2.45, p = 0.063, Holm 0.19``."""
    c = line.change
    text = f"{line.shot}-shot, {markdown(line.first)} minus {markdown(line.second)}: "
    if not c.paired.n:
        return f"{text}no shared seeds"
    text += _plus_minus(c.paired.diff, c.paired.half, line.kind)
    if c.paired.n < stats.MIN_SEEDS:
        return f"{text}, n = {c.paired.n}"
    holm = stats.p_equals(c.holm_p).removeprefix("p ").removeprefix("= ")
    return f"{text}, {stats.p_equals(c.paired.p)}, after Holm {holm}"


def _plus_minus(value: float, half: float, kind: str) -> str:
    text = signed(value, kind)
    return text if math.isnan(half) else f"{text} ± {number(half, kind)}"


def _table(found: Sequence[Tested]) -> str:
    header = ["", "where", "first", "second", "first − second", "n"]
    header += ["p", "p (Holm)", "detectable", "the gain"]
    rows = [
        [
            f"{line.row} − {line.against}",
            f"{line.shot}-shot, {line.first} / {line.second}",
            _plus_minus(line.change.first.mean, line.change.first.half, line.kind),
            _plus_minus(line.change.second.mean, line.change.second.half, line.kind),
            _plus_minus(line.change.paired.diff, line.change.paired.half, line.kind),
            str(line.change.paired.n),
            p_text(line.change.paired.p),
            p_text(line.change.holm_p),
            _detectable(line),
            line.change.outcome,
        ]
        for line in found
    ]
    cells = [[*map(markdown, row)] for row in (header, *rows)]
    return tabulate(cells, "firstrow", "pipe", disable_numparse=True)


def _detectable(line: Tested) -> str:
    value = line.change.detectable
    return DASH if math.isnan(value) else number(value, line.kind)


def _explained(found: Sequence[Tested]) -> str:
    """How the numbers are made, and in what the two places differ."""
    unit = tables.get(found[0].kind).unit
    unlike = dict.fromkeys(
        f"{line.first} / {line.second}: {', '.join(line.unlike)}" for line in found if line.unlike
    )
    text = (
        f"Each gain is one of test results ({unit.split(';')[0]}), over the n seeds that both"
        " places have, with its 95 % t interval. The change is paired by seeds. Holm's families are"
        " the lines without the co-learner at test and those with it."
        f" Detectable: the true change that is found with {100 * stats.POWER:.0f} % power."
    )
    return f"{text} What differs: {markdown('; '.join(unlike))}." if unlike else text


def fill(
    page: Path, reference: Path, write: Callable[[Path, str, Callable[[Path], str]], None]
) -> None:
    """Write the block into the page with the function ``write``, if the page has its markers."""
    if page.exists() and f"<!-- {BLOCK}:begin" in page.read_text(encoding="utf-8"):
        write(page, BLOCK, lambda _: block(reference))
