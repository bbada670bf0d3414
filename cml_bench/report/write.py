"""A study's tables, figures and page, from the runs that are finished so far. Imports no torch."""

from collections.abc import Iterator
from pathlib import Path

from cml_bench.errors import UserError
from cml_bench.evidence.build import build
from cml_bench.evidence.table import Table
from cml_bench.figures import make
from cml_bench.records import Store
from cml_bench.report import claims, forms, sweeps
from cml_bench.report import page as pages
from cml_bench.study.plan import Plan
from cml_bench.study.targets import expand, restrict
from cml_bench.system.files import write_text


def tables(plan: Plan, results: Path, keys: list[str], out: Path | None = None) -> list[Path]:
    """Write tables as Markdown, LaTeX and CSV into ``out``, by default the study's folder."""
    out, paths = out or _home(plan, results), []
    for key in expand(plan, keys):
        built = build(restrict(plan, key), Store(results), key)
        for kind, form in (("md", forms.markdown), ("tex", forms.latex), ("csv", forms.csv)):
            path = out / "tables" / f"{key}.{kind}"
            write_text(path, form(built))
            paths.append(path)
    return paths


def text(plan: Plan, results: Path, keys: list[str]) -> str:
    """Tables for a terminal; without keys, all of them, and the study's sweeps."""
    shown = [forms.text(table) for table in _built(plan, results, keys)]
    if not keys and (swept := sweeps.text(plan, Store(results))):
        shown.append(swept)
    return "\n".join(f"{one}\n" for one in shown)


def _built(plan: Plan, results: Path, keys: list[str]) -> Iterator[Table]:
    return (build(restrict(plan, key), Store(results), key) for key in expand(plan, keys))


def part(plan: Plan, results: Path, keys: list[str], name: str, form: str) -> str:
    """One part of these tables, as :func:`cml_bench.report.forms.part`.

    A UserError if none of them has a line of it.
    """
    shown = [forms.part(table, name, form) for table in _built(plan, results, keys)]
    if not any(shown):
        raise UserError(
            f"{', '.join(keys) or plan.study.study} has no {name}: no row is set `against` another"
            " whose runs are finished."
        )
    return "\n".join(filter(None, shown))


def page(plan: Plan, results: Path, out: Path | None = None) -> Path:
    """Write the study's page; it links those tables and figures that are there."""
    store, out = Store(results), out or _home(plan, results)
    path = pages.write(plan, results, out, [build(plan, store, key) for key in plan.tables])
    store.write_index()
    return path


def files(plan: Plan, results: Path) -> list[Path]:
    """The files of the study's folder that a person looks at."""
    out = _home(plan, results)
    return [
        *out.glob("report.html"),
        *sorted((out / "tables").glob("*.md")),
        *sorted((out / "figures").glob("*.png")),
    ]


def _home(plan: Plan, results: Path) -> Path:
    """The study's folder: under ``results``, or ``results`` itself if that is the folder of the
    study's committed results.
    """
    results, name = Path(results), plan.study.study
    return results if results.name == name and (results / "tables").is_dir() else results / name


def figures(plan: Plan, results: Path, keys: list[str], out: Path | None = None) -> list[Path]:
    """Draw figures from finished runs, by default into the study's folder."""
    return make.figures(plan, results, keys, out or _home(plan, results))


def claims_text(plan: Plan, results: Path, path: Path) -> str:
    """What a study alone says of a file of claims, for a terminal; empty where it says nothing."""
    shown = claims.of_study(plan, Store(results), _home(plan, results), path)
    return claims.text(shown) if shown else ""
