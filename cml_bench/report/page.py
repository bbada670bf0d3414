"""A study's page: one static file that opens from disk, made from records and tables.

The page loads nothing from elsewhere, and its content security policy forbids it. It holds its
styles, the script that sorts and filters (templates/page.js) and the library that draws the charts
(charts.py). Imports no torch.
"""

import base64
import functools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

import cml_bench
from cml_bench import texts
from cml_bench.evidence.table import Table
from cml_bench.figures.outcomes import LOOKS
from cml_bench.records import FINISHED, Store
from cml_bench.report import (
    batches,
    beside,
    charts,
    cite,
    claims,
    forest,
    forms,
    grids,
    key,
    learning,
    overview,
    progress,
    runs,
    signs,
    summary,
    sweeps,
)
from cml_bench.study.plan import Plan
from cml_bench.study.status import State, states
from cml_bench.system.files import write_text

_RECORDS = "records.csv"
_SHORT = 6  # a list of fewer notes is open at first


def write(plan: Plan, results: Path, out: Path, tables: list[Table]) -> Path:
    """Write ``report.html`` and ``records.csv`` to ``out``; the page links the files that are
    there.
    """
    path = out / "report.html"
    write_text(path, _html(plan, Store(results), states(plan, results), out, tables))
    return path


def _html(
    plan: Plan, store: Store, by_run: dict[str, State], out: Path, tables: list[Table]
) -> str:
    content = _content(plan, store, by_run, out, tables)
    shown = _grids(content)
    cells = (cell for grid in shown for row in grid.rows for cell in row)
    names = (name for grid in shown for name in grid.header)
    return (
        _environment()
        .get_template("report.html")
        .render(
            **content,
            key=key.entries(cells, names, out),
            config=charts.CONFIG,
            library=charts.script(),
            versions=charts.versions(),
            version=cml_bench.__version__,
        )
    )


def _content(
    plan: Plan, store: Store, by_run: dict[str, State], out: Path, tables: list[Table]
) -> dict[str, Any]:
    """What the template shows of a study, by name."""
    study, specs = plan.study, plan.specs
    usable = {i: store.usable(spec)[0] for i, spec in specs.items()}
    records = {i: record for i, record in usable.items() if record is not None}
    if records:
        write_text(out / _RECORDS, runs.csv(records))
    finished = sum(record.status == FINISHED for record in records.values())
    return {
        "title": study.title or study.study,
        "summary": texts.Prose(study.summary),
        "tiles": signs.groups(
            summary.contrasts(plan, tables), summary.tally(tables), (finished, len(specs))
        ),
        "abstract": summary.sentences(plan, tables, by_run),
        "facts": summary.facts(plan),
        "claims": claims.section(plan, store, out),
        "tables": [_section(plan, table, out) for table in tables],
        "sweeps": _sweeps(plan, store),
        "pictures": _pictures(plan, out),
        "progress": progress.sections(plan, tables),
        "curves": learning.sections(plan, records),
        "costs": runs.costs(plan, records),
        "failures": [
            runs.failure(state, store.folder(specs[i]))
            for i, state in by_run.items()
            if state.state in runs.FAILED
        ],
        "provenance": summary.provenance(plan, list(records.values())),
        "runs": runs.listed(records),
        "cite": {"paper": cite.PAPER, "harness": cite.harness(plan, [*records.values()])},
        "downloads": _downloads(plan, out),
    }


def _grids(content: Any) -> list[grids.Grid]:
    """Every grid in the page's content, however deep."""
    if isinstance(content, grids.Grid):
        return [content]
    if isinstance(content, dict):
        content = list(content.values())
    return (
        [found for part in content for found in _grids(part)] if isinstance(content, list) else []
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cml_bench", "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"told": texts.html, "number": leading_number, "embedded": _embedded}
    environment.filters |= {"hinted": key.hinted, "heading": key.heading, "outcome": key.outcome}
    environment.globals |= {"sign": signs.sign, "looks": LOOKS}
    return environment


# -- small parts


def _embedded(value: Any) -> Markup:
    """JSON for a script element, without any character that could end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


_NUMBER = re.compile(r"[+-]?(\d[\d,]*)?\.?\d+(e[+-]?\d+)?")


def leading_number(text: str) -> float | None:
    """The number that a cell begins with, by which its column is sorted: the mean of ``73.17 ± 1.35
    (1.41) ▲▲``, the limit of ``<0.001``. None if the cell begins with none.
    """
    match = _NUMBER.match(text.replace("−", "-").removeprefix("<"))
    return float(match[0].replace(",", "")) if match else None


def _existing(out: Path, names: list[str]) -> list[tuple[str, str]]:
    """Kind and relative link of each file that is there."""
    return [(name.rsplit(".", 1)[1], name) for name in names if (out / name).exists()]


def _table_links(table: str, out: Path) -> list[tuple[str, str]]:
    return _existing(out, [f"tables/{table}.{kind}" for kind in ("csv", "tex", "md")])


# -- sections


def _section(plan: Plan, table: Table, out: Path) -> dict[str, Any]:
    """A table, its differences as a chart and as lines, and its cells beside the paper's."""
    main = grids.grids(table)[0]
    if table.rules.by_inner_steps:
        main = replace(main, header=["shots", "method", *main.header[2:]])
    else:
        main = replace(main, header=["method", *main.header[1:]])
    differences, raises = grids.difference_grid(table), grids.raise_grid(table)
    counts = summary.tally([table])
    return {
        "key": table.key,
        "title": table.title,
        "main": main,
        "labels": 2 if table.rules.by_inner_steps else 1,
        "forest": forest.panels(table),
        "batches": batches.panels(table),
        "differences": differences if differences.rows else None,
        "raises": raises if raises.rows else None,
        "overview": overview.section(plan, table),
        "beside": beside.section(table),
        "explanation": forms.explanation(table),
        "folds": [
            {"title": title, "notes": notes, "open": len(notes) < _SHORT}
            for title, notes in (
                ("What holds, and what limits it", table.findings),
                (forms.CHECKS, table.checks),
            )
            if notes
        ],
        "links": _table_links(table.key, out),
        "counts": [
            (*signs.mark(name), summary.counted(count, name))
            for name, count in counts.items()
            if count
        ],
    }


def _sweeps(plan: Plan, store: Store) -> dict[str, Any]:
    """The settings of each sweep; empty for a study without any."""
    shown = [
        {"key": one.key, "grid": one.grid, "labels": one.labels, "notes": one.notes}
        for one in sweeps.sections(plan, store)
    ]
    if not shown:
        return {}
    return {
        "title": sweeps.TITLE,
        "sections": shown,
        "explained": sweeps.EXPLAINED,
        "notes": sweeps.notes(plan, store),
    }


def _pictures(plan: Plan, out: Path) -> list[dict[str, Any]]:
    pictures = []
    for name, figure in plan.figures.items():
        path = out / "figures" / f"{name}.png"
        if path.exists():
            links = _existing(out, [f"figures/{name}.{kind}" for kind in ("svg", "pdf")])
            source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            caption = texts.Prose(figure.caption)
            pictures.append(
                {
                    "title": figure.title,
                    "caption": caption,
                    "key": name,
                    "src": source,
                    "links": links,
                }
            )
    return pictures


def _downloads(plan: Plan, out: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """Title and links of every table and figure that can be downloaded."""
    files = [(table.title, _table_links(name, out)) for name, table in plan.tables.items()]
    kinds = ("png", "svg", "pdf")
    files += [
        (figure.title, _existing(out, [f"figures/{name}.{kind}" for kind in kinds]))
        for name, figure in plan.figures.items()
    ]
    files.append(("All records of runs, a line for each result", _existing(out, [_RECORDS])))
    return [(title, links) for title, links in files if links]
