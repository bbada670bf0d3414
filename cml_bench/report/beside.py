"""A table's section "Beside the paper" on the page. Imports no torch."""

from dataclasses import replace
from typing import Any

from cml_bench.evidence.table import Table
from cml_bench.report import forest, grids

_GAINS = ["gain [95 %]", "paper's gain", "verdict on the gain"]
_LEVELS = ["ours", "paper", "ours − paper [90 %]", "level"]
_PAPERS = ["paper", "paper's gain"]  # what there is of a row without runs


def section(table: Table) -> dict[str, Any] | None:
    """Our gains beside the paper's as a chart and as a table, gains before levels, and apart the
    rows that have not run; None for a table that the paper has not.
    """
    if not table.beside:
        return None
    found = grids.beside_grid(table)
    found = replace(found, header=["method", "where", *found.header[2:]])
    there = [bool(line.cell.records) for line in table.beside]
    made = replace(found, rows=[row for row, run in zip(found.rows, there, strict=True) if run])
    rest = [row for row, run in zip(found.rows, there, strict=True) if not run]
    waiting = replace(found, heading="Rows that have not run", rows=rest)
    return {
        "heading": found.heading,
        "chart": forest.beside_paper(table),
        "made": grids.columns(made, ["method", "where", *_GAINS, *_LEVELS]),
        "waiting": grids.columns(waiting, ["method", "where", *_PAPERS]),
    }
