"""A study's tables, figures and page, from whatever runs are finished. Imports no torch."""

from pathlib import Path
from typing import Any

from cml_bench import page as pages
from cml_bench import pictures, render
from cml_bench.files import write_text
from cml_bench.records import Store
from cml_bench.tables import build
from cml_bench.targets import expand, restrict


def tables(plan: dict[str, Any], results: Path, keys: list[str], out: Path | None = None) -> list[Path]:
    """Write tables as Markdown, LaTeX and CSV to ``out``, by default the study's folder under ``results``."""
    out, paths = out or _home(plan, results), []
    for key in expand(plan, keys):
        built = build(restrict(plan, key), Store(results), key)
        for kind, form in (("md", render.markdown), ("tex", render.latex), ("csv", render.csv)):
            path = out / "tables" / f"{key}.{kind}"
            write_text(path, form(built))
            paths.append(path)
    return paths


def text(plan: dict[str, Any], results: Path, keys: list[str]) -> str:
    """Tables for a terminal."""
    built = (build(restrict(plan, key), Store(results), key) for key in expand(plan, keys))
    return "\n".join(f"{render.text(table)}\n" for table in built)


def page(plan: dict[str, Any], results: Path, out: Path | None = None) -> Path:
    """Write the study's page; it links those tables and figures that are there."""
    store, out = Store(results), out or _home(plan, results)
    path = pages.write(plan, results, out, [build(plan, store, key) for key in plan["tables"]])
    store.write_index()
    return path


def files(plan: dict[str, Any], results: Path) -> list[Path]:
    """What the study's folder holds for people."""
    out = _home(plan, results)
    return [*out.glob("report.html"), *sorted((out / "tables").glob("*.md")), *sorted((out / "figures").glob("*.png"))]


def _home(plan: dict[str, Any], results: Path) -> Path:
    """The study's folder: under ``results``, or ``results`` itself where that is what was published of the study."""
    results, name = Path(results), plan["study"]["study"]
    return results if results.name == name and (results / "tables").is_dir() else results / name


def figures(plan: dict[str, Any], results: Path, keys: list[str], out: Path | None = None) -> list[Path]:
    """Draw figures from finished runs, by default into the study's folder; see :mod:`cml_bench.pictures`."""
    return pictures.figures(plan, results, keys, out or _home(plan, results))
