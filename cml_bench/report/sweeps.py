"""What was tried in a study's sweeps and what was selected, for its page and the terminal.

Imports no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cml_bench import texts, titles
from cml_bench.records import Store
from cml_bench.report.forms import lines, markdown_lines
from cml_bench.report.grids import DASH, Grid, number
from cml_bench.study import selection
from cml_bench.study.plan import Plan
from cml_bench.study.selection import Selected, Tried

MARK = "✓"
TITLE = "Sweeps: all settings, and which was selected"
EXPLAINED = (
    "A cell is the mean over the seeds of the selection, of the score on validation tasks of the"
    " model that would be tested, and SD the standard deviation over these seeds. The rule: "
    f"{selection.RULE} ({MARK}). No test task is used. The best of several settings looks better in"
    " validation than it is: the tables have it with other seeds, on test tasks."
)


@dataclass
class Section:
    """A sweep: its settings as a grid, and what must be known of it."""

    key: str
    grid: Grid
    labels: int
    notes: list[str]


def sections(plan: Plan, store: Store) -> list[Section]:
    """A section for each sweep of a plan, with what its records say so far."""
    found = selection.selections(plan, store)
    return [_section(one, str(place)) for place, one in enumerate(found, 1)]


def notes(plan: Plan, store: Store) -> list[str]:
    """What holds of all sweeps together: whether methods were tried alike."""
    found = selection.selections(plan, store)
    said = []
    for name, shot in dict.fromkeys((one.sweep.experiment, one.sweep.shot) for one in found):
        of = [one for one in found if (one.sweep.experiment, one.sweep.shot) == (name, shot)]
        budgets = {(len(one.tried), len(one.sweep.settings[0].tried)) for one in of}
        methods = " and ".join(one.sweep.method for one in of)
        if len(of) > 1:
            how = "equal budgets" if len(budgets) == 1 else "unequal budgets, so no test of the two"
            said.append(titles.within(f"{name}, {shot}-shot: {methods} have {how}."))
    return said


def text(plan: Plan, store: Store) -> str:
    """For a terminal; empty for a study without sweeps."""
    found = sections(plan, store)
    if not found:
        return ""
    parts = [f"{TITLE}\n"]
    for one in found:
        parts += [*lines(one.grid), *one.notes, ""]
    return "\n".join([*parts, EXPLAINED, *notes(plan, store)])


def markdown(plan: Plan, store: Store) -> str:
    """With headings, for docs/results.md; empty for a study without sweeps."""
    found = sections(plan, store)
    if not found:
        return ""
    parts = [f"### {texts.markdown(TITLE)}", ""]
    for one in found:
        parts += markdown_lines(one.grid, f"{texts.markdown(one.grid.heading)}:")
        parts += [*(f"* {texts.paragraph(note)}" for note in one.notes), ""]
    parts += [texts.paragraph(EXPLAINED), ""]
    return "\n".join(
        [*parts, *(f"* {texts.paragraph(note)}" for note in notes(plan, store))]
    ).strip()


def _section(one: Selected, key: str) -> Section:
    options = [*one.sweep.settings[0].values]
    grid, labels = (_square(one), 1) if len(options) == 2 and _is_grid(one) else (_list(one), 1)
    return Section(key, grid, labels, _notes(one))


def _heading(one: Selected) -> str:
    unit = "squared error" if one.kind == "regression" else "accuracy, %"
    place = f"{one.sweep.experiment}, {one.sweep.shot}-shot"
    return titles.within(f"{one.sweep.method} on {place}: {unit} in validation")


def _is_grid(one: Selected) -> bool:
    """Whether there is a setting for each pair of values."""
    first, second = ({str(v) for v in values} for values in _columns(one))
    return len(first) * len(second) == len(one.tried)


def _columns(one: Selected) -> list[list[Any]]:
    """The values of each option, setting by setting."""
    return [[tried.values[name] for tried in one.tried] for name in one.sweep.settings[0].values]


def _square(one: Selected) -> Grid:
    """A line for each value of the first option, a column for each of the second."""
    (name, other), (down, across) = one.sweep.settings[0].values, _columns(one)
    rows, columns = [*dict.fromkeys(down)], [*dict.fromkeys(across)]
    by_values = dict(zip(zip(down, across, strict=True), range(len(one.tried)), strict=True))
    grid = [[str(a), *(_cell(one, by_values[a, b]) for b in columns)] for a in rows]
    bold = set()
    if one.chosen is not None:
        chosen = one.tried[one.chosen].values
        bold = {(rows.index(chosen[name]), 1 + columns.index(chosen[other]))}
    return Grid(_heading(one), [name, *(f"{other} {b}" for b in columns)], grid, bold)


def _list(one: Selected) -> Grid:
    """A line for each setting."""
    options = [*one.sweep.settings[0].values]
    rows = [
        [*(str(tried.values[name]) for name in options), _cell(one, place)]
        for place, tried in enumerate(one.tried)
    ]
    bold = set() if one.chosen is None else {(one.chosen, len(options))}
    return Grid(_heading(one), [*options, "mean, SD"], rows, bold)


def _cell(one: Selected, place: int) -> str:
    tried = one.tried[place]
    kind = "regression" if one.kind == "regression" else "accuracy"
    if math.isnan(tried.mean):
        return f"{DASH} diverged" if tried.diverged else DASH
    text = number(tried.mean, kind)
    text += "" if math.isnan(tried.sd) else f", SD {number(tried.sd, kind)}"
    return f"{text} {MARK}" if place == one.chosen else text


def _notes(one: Selected) -> list[str]:
    runs = len(one.tried) * len(one.sweep.settings[0].tried)
    seconds = sum(tried.seconds for tried in one.tried)
    budget = titles.within(selection.budget(one.sweep))
    said = f"{budget[0].upper()}{budget[1:]}"
    if done := runs - sum(len(tried.missing) for tried in one.tried):
        unit = "GPU-seconds" if "cuda" in one.device else "core-seconds"
        said += f" ({seconds:,.0f} {unit}, {seconds / done:,.1f} a run)"
    notes = [f"{said}; {selection.outcome(one)}."]
    if lost := [tried for tried in one.tried if tried.diverged]:
        notes.append(f"Cannot be selected, since a run diverged: {_named(lost)}.")
    if one.equal > 1:
        notes.append(
            f"{one.equal} settings have the best score: of these the sweep names the selected one"
            " first."
        )
    for name, end in one.edges().items():
        notes.append(
            f"The selected {name} is the {end} of those tried: a better setting may lie beyond."
        )
    return notes


def _named(settings: Sequence[Tried]) -> str:
    return "; ".join(selection.text(tried.values) for tried in settings)
