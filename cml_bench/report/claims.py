"""The paper's claims as a table: of a file's studies, or of one study. Imports no torch.

Every word but the claims themselves is made from what evidence/claims.py finds.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cml_bench import titles
from cml_bench.evidence import claims as evidence
from cml_bench.evidence.claims import Claims, Finding
from cml_bench.evidence.deciding import NOT_RUN, OUTCOMES, Cell, Source
from cml_bench.evidence.verdict import CANNOT_TELL
from cml_bench.figures import make
from cml_bench.records import Record, Store
from cml_bench.report import signs
from cml_bench.report.grids import DASH, Grid, columns, numbers
from cml_bench.study import config, plan, selection
from cml_bench.study.plan import Plan
from cml_bench.texts import Prose, markdown, paragraph

HEADING = "The paper's claims, one by one"
CLAIMS = evidence.FILE
PUBLISHED = Path("results/reference")

_WHERE, _CELLS, _OUTCOME = 1, 3, 5  # columns of the grid
_SAID = {  # of one claim and of several, in the order of the README
    evidence.HOLDS: ("holds here", "hold here"),
    evidence.DOES_NOT_HOLD: ("does not hold", "do not hold"),
    CANNOT_TELL: ("cannot be told", "cannot be told"),
    NOT_RUN: ("is not run", "are not run"),
}
_WIDTHS = [34, 14, 30, 20, 34, 14, 24]  # of the columns, in a terminal
EXPLANATION = Prose(
    "Each line is a claim of the paper, unless it begins with 'Beyond the paper', with the cells"
    " that decide it here. The weakest cell speaks least for the claim, in units of its half-width."
    " It comes with its 95 % t interval and its p after Holm's correction. The other cells are in"
    " the study's tables and figures. A claim holds if every cell is as claimed, and significant at"
    " 5 %. A cost is counted, and is as claimed if it is no larger than the baseline's. A claim"
    " does not hold if some cell is significantly the contrary. Anything else cannot be told: a"
    " difference that is not significant speaks neither for a claim nor against it. A claim is not"
    " run if no cell has a run. Smaller studies decide only while nothing is run at the paper's"
    " size."
)


def source(of: Plan, store: Store, home: Path) -> Source:
    """A study as claims read it. ``home`` is its folder, with ``probes``."""
    of = selection.narrowed(of, store)
    return Source(
        of, store, lambda key: make.stored(of, store, key, home / "probes" / f"{key}.npz")
    )


def published(claims: Claims, path: Path) -> dict[str, Source]:
    """Every study that the claims name, by its name: its committed results under
    results/reference, or those in its own results folder where none are committed.
    """
    plans = {
        name: plan.cached(config.merged([Path(file.config)]), file.config)
        for name, file in claims.studies.items()
    }
    sources = {}
    for name, of in plans.items():
        home, results = PUBLISHED / name, Path(of.study.results)
        if (home / "runs").is_dir():
            sources[name] = source(of, Store(home), home)
        else:
            sources[name] = source(of, Store(results), results / name)
    evidence.check(claims, {name: of.plan for name, of in sources.items()}, path)
    return sources


def grid(claims: Claims, sources: Mapping[str, Source], heading: str) -> Grid:
    """A line for each claim."""
    header = ["claim", "in the paper", "run here", "cells", "weakest", "outcome", "size"]
    rows = []
    for claim in claims.claims.values():
        found = evidence.find(claim, sources)
        rows.append(
            [
                claim.claim,
                claim.where,
                _run_here(found, named=len(claims.studies) > 1) or DASH,
                _counts(found),
                _weakest(found),
                found.verdict,
                titles.within(found.size) or DASH,
            ]
        )
    return Grid(heading, header, rows, set())


def of_study(of: Plan, store: Store, home: Path, path: Path) -> Grid | None:
    """The claims that a study decides, by itself alone; None if there are none, or no file."""
    if not path.exists():
        return None
    claims = evidence.read(path).of(of)
    if not claims.claims:
        return None
    name, read = of.study.study, source(of, store, home)
    evidence.check(claims, {name: read.plan}, path)
    return grid(claims, {name: read}, "The paper's claims, by this study alone")


def section(of: Plan, store: Store, home: Path) -> dict[str, Any] | None:
    """What a study's page shows of its claims; None if it has none."""
    found = of_study(of, store, home, CLAIMS)
    if found is None:
        return None
    order = ["claim", "outcome", "weakest", "cells", "run here", "size", "in the paper"]
    shown = columns(found, order)
    outcomes = [row[order.index("outcome")] for row in shown.rows]
    return {
        "grid": shown,
        "explanation": EXPLANATION,
        "tiles": signs.claims(outcomes, evidence.VERDICTS),
    }


def text(shown: Grid) -> str:
    """For a terminal."""
    rows = tabulate(shown.rows, shown.header, "grid", disable_numparse=True, maxcolwidths=_WIDTHS)
    return f"{shown.heading}\n\n{rows}\n\n{EXPLANATION}"


def block(shown: Grid) -> str:
    """The block of docs/claims.md."""
    header, *rows = ([*map(markdown, row)] for row in (shown.header, *shown.rows))
    table = tabulate(rows, header, "pipe", disable_numparse=True)
    return f"{table}\n\n{paragraph(EXPLANATION)}"


def brief(shown: Grid) -> str:
    """The block of the README: each claim with its outcome, those that hold first."""
    paper = [row[_OUTCOME] for row in shown.rows if row[_WHERE] != evidence.BEYOND]
    beyond = [row[_OUTCOME] for row in shown.rows if row[_WHERE] == evidence.BEYOND]
    said = f"**Of the paper's {len(paper)} claims, {_told(paper, _SAID)}.**"
    if beyond:
        there = [name for name in _SAID if name in beyond]
        said += f" Of {len(beyond)} claims beyond the paper, {_told(beyond, there)}."
    if paper:
        first = next(row for row in shown.rows if row[_WHERE] != evidence.BEYOND)
        said += f" The paper's first: {markdown(first[0])} Here: **{first[_OUTCOME]}**"
        said += f" ({first[_CELLS]})."
    rows = [
        [markdown(row[0]), f"**{name}**", row[_CELLS], _size_in_brief(row[-1])]
        for name in _SAID
        for row in shown.rows
        if row[_OUTCOME] == name != NOT_RUN
    ]
    header = ["claim", "here", "cells", "size"]
    parts = [said, tabulate(rows, header, "pipe", disable_numparse=True)]
    lost = [row[_WHERE] for row in shown.rows if row[_OUTCOME] == NOT_RUN]
    lost = [where for where in lost if where != evidence.BEYOND]
    if lost:
        parts.append(f"Not run: the claims of {markdown('; '.join(lost))}.")
    return "\n\n".join(parts)


def _told(verdicts: Sequence[str], names: Iterable[str]) -> str:
    """``1 holds here, 2 cannot be told``."""
    counts = {name: verdicts.count(name) for name in names}
    return ", ".join(f"{count} {_SAID[name][count != 1]}" for name, count in counts.items())


def _size_in_brief(size: str) -> str:
    return "smaller" if size.startswith(evidence.BELOW) else "the paper's"


# -- what stands in the columns


def _run_here(found: Finding, named: bool) -> str:
    """``Omniglot, 400 steps, n = 8, commit 1a2b3c4`` for each study with runs; ``named``: with its
    name in front.
    """
    told = []
    for name, cells in found.cells.items():
        records = {r.id: r for cell in cells for r in cell.records}
        if records:
            sizes = {cell.paired.n for cell in cells if cell.paired}
            study = f"{name}: " if named else ""
            what = _what(records.values())
            told.append(f"{study}{what}{_n(sizes)}{_commits(records.values())}")
    return "; ".join(told)


def _what(records: Iterable[Record]) -> str:
    specs = [record.spec for record in records]
    data = ", ".join(dict.fromkeys(titles.of(spec.data.name) for spec in specs))
    steps = " and ".join(f"{steps:,}" for steps in sorted({spec.steps for spec in specs}))
    return f"{data}, {steps} steps"


def _n(sizes: set[int]) -> str:
    return f", n = {numbers(sizes)}" if sizes else ""


def _commits(records: Iterable[Record]) -> str:
    """The commits that made the records, ``edited`` where the tree was not clean, and how many
    records name none.
    """
    records = [*records]
    told = {
        f"{made.commit[:7]}{'' if made.clean else ' edited'}"
        for record in records
        if (made := record.source) and made.commit
    }
    unnamed = sum(not (record.source and record.source.commit) for record in records)
    some = f" in {unnamed} of {len(records)} runs" * bool(told)
    return f", commit {', '.join(sorted(told) + [f'unknown{some}'] * bool(unnamed))}"


def _counts(found: Finding) -> str:
    """``12: 3 as claimed, 9 undecided``."""
    counts = Counter(cell.outcome for cell in found.every)
    told = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name])
    return f"{len(found.every)}: {told}"


def _weakest(found: Finding) -> str:
    """The weakest cell; where nothing is run, why."""
    if found.weakest is None:
        reasons = dict.fromkeys(cell.reason for cell in found.every if cell.reason)
        return "; ".join(reasons) or "runs missing"
    name, cell = found.weakest
    study = f"{name}: " if len(found.cells) > 1 else ""
    return f"{study}{cell.name}: {_number(cell)}{f' ({cell.reason})' if cell.reason else ''}"


def _number(cell: Cell) -> str:
    """``−0.45 [−1.13, +0.23] points, p = 0.799, detectable 1.32``."""
    if cell.paired is None:
        return cell.said or DASH
    mean, low, high = (
        DASH if math.isnan(value) else f"{value:+.{cell.decimals}f}".replace("-", "−")
        for value in (cell.paired.diff, cell.paired.low, cell.paired.high)
    )
    text = f"{mean} [{low}, {high}] {cell.unit}".rstrip()
    if math.isnan(cell.p):
        return text
    text += ", p < 0.001" if cell.p < 0.001 else f", p = {cell.p:.3g}"
    if cell.null:
        text += f" (against {cell.null:+g})".replace("-", "−")
    if math.isnan(cell.detectable):
        return text
    return f"{text}, detectable {cell.detectable:.{cell.decimals}f}"
