"""What a planned study can detect, and how many seeds the paper's own gains would need.

The spread of a paired difference over seeds is not known before a study runs. It is given, or taken
from the tables of a finished study. Imports no torch.
"""

import csv
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

from tabulate import tabulate

from cml_bench.errors import UserError
from cml_bench.evidence import stats
from cml_bench.evidence.build import build, families
from cml_bench.evidence.table import Column, Table, TableRow
from cml_bench.records import Store
from cml_bench.spec import NormalisedWith
from cml_bench.study.plan import Plan
from cml_bench.study.schema import MAX_SEEDS
from cml_bench.texts import csv as csv_text

_DASH = "–"
_NEEDED = {"table", "row", "reading", "shot", "inner_steps", "statistic", "diff_half", "pairs"}


class Place(NamedTuple):
    """A comparison, by which a finished study's spread is found again."""

    table: str
    row: str
    column: Column
    one_split: bool = False  # over the seeds of one class split, in a table over class splits


@dataclass
class Spreads:
    """Standard deviations of a paired difference over seeds, in the unit of the table.

    ``places`` has those of a finished study. ``meta`` and ``co`` are for accuracies of all other
    comparisons, by the learner that is read; nan where nothing is known.
    """

    source: str
    meta: float
    co: float
    places: dict[Place, float] = field(default_factory=dict)

    def of(self, table: Table, row: TableRow, column: Column, one_split: bool = False) -> float:
        """The spread of a comparison; nan where it is not known.

        A spread over class splits is never taken for one over the seeds of one split.
        """
        other = self.meta if row.reading == "meta" else self.co
        known = any(place.table == table.key for place in self.places)
        if table.rules.by_inner_steps or (one_split and known):
            other = math.nan  # errors of other shots and steps are of other sizes
        own = Place(table.key, csv_text(row.label), column, one_split)
        return self.places.get(own, other)


def given(points: float) -> Spreads:
    """One spread for all comparisons of accuracies, in percentage points."""
    return Spreads(f"a spread of {points:g} points, as given", points, points)


def of_study(folder: Path) -> Spreads:
    """The spreads in ``folder/tables/*.csv``, which ``table`` and ``report`` write.

    A comparison that the finished study has keeps its own spread. All others have the median one of
    its accuracies. A UserError if there are no such tables, or no spread in them.
    """
    paths = sorted(Path(folder).glob("tables/*.csv"))
    if not paths:
        raise UserError(
            f"--spread-from {folder}: there is no tables/*.csv in it. Name the folder of a finished"
            " study, such as results/reference/omniglot."
        )
    found = {place: (sd, meta) for path in paths for place, sd, meta in _rows(path)}
    if not found:
        raise UserError(
            f"--spread-from {folder}: its tables have no difference of two or more runs. Name"
            " another study, or give a number with --spread."
        )

    def median(of_meta: bool) -> float:
        known = [
            sd
            for place, (sd, meta) in found.items()
            if meta is of_meta and place.column.steps is None and not place.one_split
        ]
        return statistics.median(known) if known else math.nan

    return Spreads(
        f"the spreads of {folder}, and their median for what it does not compare",
        meta=median(True),
        co=median(False),
        places={place: sd for place, (sd, _) in found.items()},
    )


def _rows(path: Path) -> Iterator[tuple[Place, float, bool]]:
    """Each comparison of means in a table, its spread, and whether it is the meta-learner's."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := sorted(_NEEDED - {*(reader.fieldnames or ())}):
            raise UserError(
                f"{path} has no column {missing[0]!r}: make the tables anew with `python -m"
                " cml_bench table`."
            )
        for line in reader:
            try:
                n, half = int(float(line["pairs"] or 0)), float(line["diff_half"] or "nan")
                steps = int(float(line["inner_steps"])) if line["inner_steps"] else None
                column = Column(
                    int(line["shot"]),
                    steps,
                    line["statistic"],
                    line.get("columns") or "",
                    cast("NormalisedWith | None", line.get("normalised_with") or None),
                )
                place = Place(line["table"], line["row"], column, line.get("one_split") == "True")
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"{path}, line {reader.line_num}, is damaged ({error}): make the tables anew"
                    " with `python -m cml_bench table`."
                ) from None
            if n > 1 and half > 0 and column.statistic == "mean":
                sd = half * math.sqrt(n) / stats.t_quantile(n, 0.95)
                yield place, sd, line["reading"] == "meta"


class _Line(NamedTuple):
    """A planned comparison. ``effect`` is what it detects, in standard deviations."""

    table: str
    learner: str
    comparison: str
    where: str
    n: int
    family: int
    effect: float
    spread: float
    gain: float | None


def _lines(plan: Plan, spreads: Spreads) -> list[_Line]:
    lines = []
    for key in plan.tables:
        table = build(plan, Store("nowhere"), key)
        gains = {(b.label, b.column): (b.cell, b.paper_gain) for b in table.beside}
        for size, family in families(table) if table.compares else ():
            for row, column, cell in family:
                if column.statistic != "mean" or cell.base is None:
                    continue
                n = len(cell.names.keys() & cell.base.names.keys())
                beside, gain = gains.get((row.label, column), (None, None))
                one_split = cell is row.cells[column].fixed
                one = ", one split" * one_split
                lines.append(
                    _Line(
                        key,
                        ("meta-learner" if row.reading == "meta" else "co-learner") + one,
                        f"{row.label} − {row.against}{one}",
                        table.place(column),
                        n,
                        size,
                        stats.detectable(n, size) if n >= stats.MIN_SEEDS else math.nan,
                        spreads.of(table, row, column, one_split),
                        gain if beside is cell else None,
                    )
                )
    return lines


def told(plan: Plan, spreads: Spreads) -> str:
    """For people: what each table of a plan can detect, and what the paper's gains would need."""
    lines = _lines(plan, spreads)
    if not lines:
        return "No table of this study compares anything: nothing can be detected."
    parts = [
        f"What can be detected with {100 * stats.POWER:.0f} % power, at 0.05 divided by the number"
        f" of differences in the Holm family; from {spreads.source} (sd: standard deviation of the"
        " paired difference over seeds):",
        _table(
            ["table", "of the", "family", "n", "in sd", "in the table's unit"], _detected(lines)
        ),
    ]
    if needed := [_needed(line) for line in lines if line.gain is not None]:
        header = ["table", "comparison", "where", "n", "detectable", "paper's gain", "seeds for it"]
        parts += ["How many seeds the paper's own gains would need:", _table(header, needed)]
    return "\n\n".join(parts)


def _detected(lines: list[_Line]) -> list[list[str]]:
    """A line for each family of each table."""
    by_family: dict[tuple[str, str], list[_Line]] = {}
    for line in lines:
        by_family.setdefault((line.table, line.learner), []).append(line)
    return [
        [
            table,
            learner,
            str(family[0].family),
            _range([line.n for line in family], "d"),
            _range([line.effect for line in family], ".2f"),
            _range([line.effect * line.spread for line in family], ".3g"),
        ]
        for (table, learner), family in by_family.items()
    ]


def _range(values: list[float] | list[int], form: str) -> str:
    """``1.68``, or ``1.43 to 1.68``; a dash for nan alone."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return _DASH
    return " to ".join(dict.fromkeys(format(value, form) for value in (min(known), max(known))))


def _needed(line: _Line) -> list[str]:
    gain, found = line.gain or 0.0, line.effect * line.spread
    seeds = _DASH
    if gain and line.spread > 0:
        needed = stats.seeds_needed(gain / line.spread, MAX_SEEDS, line.family)
        seeds = f"more than {MAX_SEEDS}" if needed is None else str(needed)
    return [
        line.table,
        line.comparison,
        line.where,
        str(line.n),
        _DASH if math.isnan(found) else f"{found:.3g}",
        f"{gain:+.2f}".replace("-", "−"),
        seeds,
    ]


def _table(header: list[str], rows: list[list[str]]) -> str:
    return tabulate(rows, header, "simple", disable_numparse=True)
