"""A study's tables, figures and page, from whatever runs are finished. Imports no torch."""

from pathlib import Path
from typing import Any

import numpy as np

from cml_bench import figures as drawing
from cml_bench import page as pages
from cml_bench import render
from cml_bench.errors import UserError, unknown
from cml_bench.files import write_bytes, write_text
from cml_bench.records import Store, read_arrays, write_arrays
from cml_bench.spec import RunSpec
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
    return [out / "report.html", *sorted((out / "tables").glob("*.md")), *sorted((out / "figures").glob("*.png"))]


def _home(plan: dict[str, Any], results: Path) -> Path:
    """The study's folder: under ``results``, or ``results`` itself where that is what was published of the study."""
    results, name = Path(results), plan["study"]["study"]
    return results if results.name == name and (results / "tables").is_dir() else results / name


def figures(plan: dict[str, Any], results: Path, keys: list[str], out: Path | None = None) -> list[Path]:
    """Draw figures from stored runs, by default into the study's folder; the arrays behind each are kept beside it."""
    out, made = out or _home(plan, results), []
    for key in keys or list(plan["figures"]):
        if key not in plan["figures"]:
            raise unknown("figure", key, plan["figures"])
        arrays = _probed(plan, Store(results), key, out / "probes" / f"{key}.npz")
        figure = drawing.curves(arrays, plan["figures"][key]["title"])
        for kind in ("png", "svg", "pdf"):
            path = out / "figures" / f"{key}.{kind}"
            write_bytes(path, drawing.encode(figure, kind))
            made.append(path)
    return made


def _probed(plan: dict[str, Any], store: Store, key: str, path: Path) -> dict[str, np.ndarray]:
    """What a figure shows: from its runs' models, or as kept at ``path`` where there are none (committed results)."""
    figure, wanted = plan["figures"][key], _figure_runs(plan, key)
    runs = [spec for specs in wanted.values() for spec in specs]
    lost = [store.folder(spec) for spec in runs if not (store.folder(spec) / "model.safetensors").exists()]
    if lost and path.exists():
        return _kept(path, _shown(figure, wanted), key)
    for spec in runs:
        if store.read(spec) is None:
            raise UserError(f"{key} needs a run that is not finished: {spec.title}.")
    if lost:
        raise UserError(
            f"{key} cannot be drawn: {lost[0]} holds a record without weights (committed results have none), and there "
            f"are no arrays {path} to draw from. Draw {key} where its runs were trained; `publish` copies its arrays."
        )
    from cml_bench import probes  # stored models need torch; drawing does not

    arrays = _shown(figure, wanted) | probes.curves(wanted, figure, store)
    write_arrays(path, arrays)
    return arrays


def _shown(figure: dict[str, Any], wanted: dict[int, list[RunSpec]]) -> dict[str, np.ndarray]:
    """What the arrays of a figure are of; stored with them, so that an edited figure is never drawn from old ones."""
    return {
        "shots": np.array(list(wanted)),
        "tasks": np.array(figure["tasks"]),
        "runs": np.array([[spec.id for spec in specs] for specs in wanted.values()]),
        "readings": np.array([row["reading"] for row in figure["runs"]]),
        "labels": np.array([row["label"] for row in figure["runs"]]),
    }


def _kept(path: Path, shown: dict[str, np.ndarray], key: str) -> dict[str, np.ndarray]:
    """Stored arrays. A UserError if they are damaged, or not of what the figure shows now."""
    arrays = read_arrays(path, "Restore it from the repository, or draw the figure where its runs were trained.")
    # Arrays without ids were made before these were kept with them: there, equal labels must do.
    same = ("shots", "tasks", *(("runs", "readings") if "runs" in arrays else ("labels",)))
    if any(not np.array_equal(arrays.get(name), shown[name]) for name in same):
        raise UserError(
            f"{path} is of other runs, readings or tasks than {key} shows now, and the models to make it anew are not "
            f"here. Draw {key} where its runs were trained, then publish it again."
        )
    return arrays | {"labels": shown["labels"]}


def _figure_runs(plan: dict[str, Any], key: str) -> dict[int, list[RunSpec]]:
    """Shot -> the run that each row of a figure shows."""
    figure = plan["figures"][key]
    specs = {run["id"]: RunSpec.model_validate(run["spec"]) for run in plan["runs"]}
    found: dict[int, list[RunSpec]] = {}
    for shot in sorted(plan["study"]["experiments"][figure["experiment"]]["shots"]):
        for row in figure["runs"]:
            ids = plan["members"][figure["experiment"]][row["run"]][str(shot)]
            chosen = [specs[i] for i in ids if specs[i].seed == figure["seed"]]
            if not chosen:
                raise UserError(f"{key}: the run {row['run']!r} at {shot}-shot has no seed {figure['seed']}.")
            found.setdefault(shot, []).append(chosen[0])
    return found
