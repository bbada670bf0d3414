"""A study's page: one static file that opens from disk, made from records and tables.

The page loads nothing from elsewhere, and its content security policy forbids it. It holds its
styles, the script that sorts and filters (templates/page.js) and the library that draws the charts
(charts.py). Imports no torch.
"""

import base64
import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

import cml_bench
from cml_bench import texts
from cml_bench.evidence.table import Table
from cml_bench.evidence.verdict import CANNOT_TELL, DIFFERS, REPRODUCED
from cml_bench.figures.outcomes import LOOKS
from cml_bench.records import FINISHED, Record, Store
from cml_bench.report import charts, claims, forest, forms, grids, progress, summary
from cml_bench.report.grids import DASH, Grid
from cml_bench.study.plan import Plan
from cml_bench.study.status import State, states
from cml_bench.system.files import write_text

_LOG_LINES = 20

# A sign beside each verdict: it is seen at a glance, and does not depend on colour.
SIGNS = {
    **{look.name: look.sign for look in LOOKS.values()},
    REPRODUCED: "✓",
    DIFFERS: "≠",
    CANNOT_TELL: "?",
    summary.NOT_JUDGED: "○",
}
_JUDGED = {"verdict", "level", "verdict on the gain"}  # columns of verdicts

PAPER = """@inproceedings{shin2024cml,
  title     = {Cooperative Meta-Learning with Gradient Augmentation},
  author    = {Shin, Jongyun and Han, Seungjin and Kim, Jangho},
  booktitle = {Proceedings of the Fortieth Conference on Uncertainty in Artificial Intelligence},
  series    = {Proceedings of Machine Learning Research},
  volume    = {244},
  pages     = {3198--3210},
  year      = {2024}
}"""  # names as on OpenReview, ymjADRNzvu


def write(plan: Plan, results: Path, out: Path, tables: list[Table]) -> Path:
    """Write ``report.html`` to ``out``; it links the tables and figures that are there."""
    path = out / "report.html"
    write_text(path, _html(plan, Store(results), states(plan, results), out, tables))
    return path


def _html(
    plan: Plan, store: Store, by_run: dict[str, State], out: Path, tables: list[Table]
) -> str:
    study, specs = plan.study, plan.specs
    usable = {i: store.usable(spec)[0] for i, spec in specs.items()}
    records = {i: record for i, record in usable.items() if record is not None}
    counts = summary.tally(tables)
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=study.title or study.study,
            summary=texts.Prose(study.summary),
            tiles=_tiles(
                counts, len([r for r in records.values() if r.status == FINISHED]), len(specs)
            ),
            abstract=summary.sentences(plan, tables, by_run),
            facts=summary.facts(plan),
            claims=claims.section(plan, store, out),
            tables=[_section(table, out) for table in tables],
            pictures=_pictures(plan, out),
            progress=progress.sections(tables),
            curves=_learning_curves(plan, records),
            costs=_costs(plan, records),
            failures=[
                _failure(state, store.folder(specs[i]))
                for i, state in by_run.items()
                if state.state in _FAILED
            ],
            provenance=summary.provenance(plan, list(records.values())),
            runs=_runs(records),
            cite={"paper": PAPER, "harness": _harness(plan)},
            downloads=_downloads(plan, out),
            config=charts.CONFIG,
            library=charts.script(),
            versions=charts.versions(),
            version=cml_bench.__version__,
        )
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
    environment.globals |= {"sign": _sign, "looks": LOOKS}
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


def _sign(column: str, text: str) -> tuple[str, str] | None:
    """Sign and CSS class of a verdict; None outside columns of verdicts and for a dash."""
    if column not in _JUDGED or text == DASH:
        return None
    other = summary.NOT_TESTED if column == "verdict" else summary.NOT_JUDGED
    name = next((name for name in SIGNS if re.match(rf"{name}\b", text)), other)
    return _mark(name)


def _mark(name: str) -> tuple[str, str]:
    """Sign and CSS class of an outcome."""
    return SIGNS[name], name.replace(" ", "-")


def _tiles(counts: dict[str, int], finished: int, wanted: int) -> list[tuple[str, str, str, str]]:
    """Number, name, sign and CSS class of what stands on top in large type.

    Differences and levels are left out where the study has none.
    """
    tiles = []
    for names in (summary.DIFFERENCES, summary.LEVELS):
        *judged, other = names
        shown = [
            *(judged if any(counts[name] for name in judged) else ()),
            *([other] if counts[other] else ()),
        ]
        for name in shown:
            count, _, outcome = summary.counted(counts[name], name).partition(" ")
            tiles.append((count, outcome, *_mark(name)))
    return [*tiles, (f"{finished} of {wanted}", "runs finished", "", "runs")]


def _existing(out: Path, names: list[str]) -> list[tuple[str, str]]:
    """Kind and relative link of each file that is there."""
    return [(name.rsplit(".", 1)[1], name) for name in names if (out / name).exists()]


def _table_links(key: str, out: Path) -> list[tuple[str, str]]:
    return _existing(out, [f"tables/{key}.{kind}" for kind in ("csv", "tex", "md")])


# -- sections


def _section(table: Table, out: Path) -> dict[str, Any]:
    """A table, its differences as a chart and as lines, and its cells beside the paper's."""
    main, *others = grids.grids(table)
    if table.rules.by_inner_steps:
        main = replace(main, header=["shots", "method", *main.header[2:]])
    else:
        main = replace(main, header=["method", *main.header[1:]])
    beside = None
    if table.beside:
        beside = replace(others[-1], header=["method", "where", *others[-1].header[2:]])
    differences = grids.difference_grid(table)
    counts = summary.tally([table])
    return {
        "key": table.key,
        "title": table.title,
        "main": main,
        "labels": 2 if table.rules.by_inner_steps else 1,
        "forest": forest.panels(table),
        "differences": differences if differences.rows else None,
        "beside": beside,
        "explanation": forms.explanation(table),
        "notes": table.notes,
        "links": _table_links(table.key, out),
        "counts": [
            (*_mark(name), summary.counted(count, name)) for name, count in counts.items() if count
        ],
    }


def _pictures(plan: Plan, out: Path) -> list[dict[str, Any]]:
    pictures = []
    for key, figure in plan.figures.items():
        path = out / "figures" / f"{key}.png"
        if path.exists():
            links = _existing(out, [f"figures/{key}.{kind}" for kind in ("svg", "pdf")])
            source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            caption = texts.Prose(figure.caption)
            pictures.append(
                {
                    "title": figure.title,
                    "caption": caption,
                    "key": key,
                    "src": source,
                    "links": links,
                }
            )
    return pictures


def _learning_curves(plan: Plan, records: dict[str, Record]) -> list[dict[str, Any]]:
    """Each experiment's charts: for each shot, scores in validation and in training."""
    by_experiment, labels = [], _labels(plan)
    most = max(8, charts.MOST_POINTS // max(1, 2 * len(records)))
    for name, methods in plan.members.items():
        drawn: dict[str, list[charts.Curve]] = {}
        for shot in sorted({shot for by_shot in methods.values() for shot in by_shot}):
            here = [
                (labels[name, k], records[i])
                for k in methods
                for i in methods[k].get(shot, ())
                if i in records
            ]
            if curves := charts.curves(here, "validation"):
                drawn[f"{shot}-shot, validation"] = curves
            if curves := charts.curves(here, "train"):
                drawn[f"{shot}-shot, training"] = curves
        there = {curve.method for curves in drawn.values() for curve in curves}
        coloured = [labels[name, key] for key in methods if labels[name, key] in there]
        kind = next((r.kind for i, r in records.items() if i in _members(methods)), "")
        specs = [
            charts.learning(curves, coloured, title, kind, most) for title, curves in drawn.items()
        ]
        if specs:
            by_experiment.append({"name": name, "specs": specs})
    return by_experiment


def _members(methods: Mapping[str, Mapping[int, Sequence[str]]]) -> set[str]:
    return {i for by_shot in methods.values() for ids in by_shot.values() for i in ids}


def _labels(plan: Plan) -> dict[tuple[str, str], str]:
    """Experiment and run -> its label in the tables. The run's key where no table has it, or where
    two runs have one label.
    """
    in_tables: dict[tuple[str, str], str] = {}
    for table in plan.tables.values():
        for group in table.columns:
            for row in sorted(table.rows, key=lambda row: row.reading != "meta"):
                in_tables.setdefault((group.experiment, row.run), row.label)
    labels = {}
    for name, methods in plan.members.items():
        every = [in_tables.get((name, key), key) for key in methods]
        for key, label in zip(methods, every, strict=True):
            labels[name, key] = label if every.count(label) == 1 else key
    return labels


def _costs(plan: Plan, records: dict[str, Record]) -> Grid:
    """A line for each method, experiment and shot: means over its runs."""
    header = [
        "method",
        "experiment",
        "shots",
        "runs",
        "training, s a run",
        "validation, %",
        "test, %",
        "training, MFLOP a task",
        "training, TFLOP a run",
        "parameters",
        "peak memory, MB",
    ]
    labels, rows = _labels(plan), []
    for name, methods in plan.members.items():
        for key, by_shot in methods.items():
            for shot, ids in sorted(by_shot.items()):
                here = [records[i] for i in ids if i in records]
                if here:
                    rows.append([labels[name, key], name, str(shot), *_cost(here)])
    return Grid("Cost of each method, mean over its runs; memory: the largest", header, rows, set())


def _cost(records: list[Record]) -> list[str]:
    seconds = [record.seconds.parts() for record in records]
    total = sum(sum(parts.values()) for parts in seconds)
    shares = [
        100 * sum(parts.get(name, 0.0) for parts in seconds) / total if total else math.nan
        for name in ("validation", "test")
    ]
    task = [record.flops.training for record in records]
    run = [r.flops.training * _steps_made(r) * r.spec.protocol.meta_batch for r in records]
    memory = [math.nan if r.memory is None else r.memory.peak for r in records]
    of = sorted({record.memory.of for record in records if record.memory})
    peak = _plain(float(np.max(memory)) / 1e6, 0)  # nan if one run does not say
    return [
        str(len(records)),
        _plain(float(np.mean([record.seconds.train for record in records])), 1),
        *(_plain(share, 1) for share in shares),
        _plain(float(np.mean(task)) / 1e6, 1),
        _plain(float(np.mean(run)) / 1e12, 2),
        f"{max(record.parameters.train for record in records):,}",
        peak if peak == DASH else f"{peak} ({', '.join(of)})",
    ]


def _steps_made(record: Record) -> int:
    """Outer steps that were made; those asked for where the record has no curves."""
    made = record.curves.trained
    return record.spec.steps if made is None else made


def _plain(value: float, digits: int) -> str:
    return DASH if math.isnan(value) else f"{value:,.{digits}f}"


_FAILED = ("diverged", "collapsed", "failed", "interrupted")


def _failure(state: State, folder: Path) -> dict[str, Any]:
    """What is known of a run that did not finish: its state, and the last lines of its logs."""
    logs = []
    for name in ("error.log", "run.log"):
        if (folder / name).exists():
            lines = (
                (folder / name).read_text(errors="replace", encoding="utf-8").rstrip().splitlines()
            )
            logs.append((name, texts.controls_escaped("\n".join(lines[-_LOG_LINES:])), len(lines)))
    return {
        "title": state.title,
        "state": state.state,
        "more": state.more,
        "folder": folder.name,
        "logs": logs,
    }


def _runs(records: dict[str, Record]) -> Grid:
    header = ["run", "method", "data", "shots", "seed", "outer steps", "status", "training, s"]
    rows = []
    for record in records.values():
        s = record.spec
        rows.append(
            [
                record.folder.name,
                s.method,
                s.data_id,
                str(s.shot),
                str(s.seed),
                f"{s.steps:,}",
                record.status,
                f"{record.seconds.train:,.1f}",
            ]
        )
    return Grid("All runs", header, rows, set())


def _harness(plan: Plan) -> str:
    study, version = texts.latex(plan.study.study), cml_bench.__version__
    title = "a benchmark-reproduction harness for Cooperative Meta-Learning"
    return f"""@software{{cml_bench,
  title   = {{{texts.latex("cml_bench")}: {title}}},
  version = {{{version}}},
  note    = {{Study {study}, plan {summary.plan_id(plan)}}}
}}"""


def _downloads(plan: Plan, out: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """Title and links of every table and figure that can be downloaded."""
    files = [(table.title, _table_links(key, out)) for key, table in plan.tables.items()]
    kinds = ("png", "svg", "pdf")
    files += [
        (figure.title, _existing(out, [f"figures/{key}.{kind}" for kind in kinds]))
        for key, figure in plan.figures.items()
    ]
    return [(title, links) for title, links in files if links]
