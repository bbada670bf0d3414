"""A study's figures: arrays from its runs' records or stored models, and the drawings of them.

Imports no torch but where stored models are looked at.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cml_bench.errors import UserError, unknown
from cml_bench.figures import draw
from cml_bench.figures import style as drawing
from cml_bench.records import FINISHED, Record, Store, read_arrays, write_arrays
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import CosineFigure, CurvesFigure, FigureConfig, OneSeed, Row
from cml_bench.study.plan import Plan
from cml_bench.study.targets import expand_figures
from cml_bench.system.files import write_bytes

Arrays = dict[str, np.ndarray]
Wanted = dict[int, list[list[RunSpec]]]  # shot -> the runs of each row, one a seed
_DRAWN: dict[str, Callable[[Arrays, Any, list[int]], Any]] = {
    "curves": drawing.curves,
    "accuracy": draw.accuracy,
    "cosine": draw.cosine,
    "gradients": draw.gradients,
    "cka": draw.similarity,
    "tsne": draw.embedding,
}
_PROBES = {
    "curves": "curves",
    "gradients": "gradients",
    "cka": "similarity",
    "tsne": "embedding",
}  # need models
# What changes a drawing and not the arrays behind it.
_LOOKS = {"title", "caption", "smooth", "experiment", "runs", "shots", "kind"}


def figures(plan: Plan, results: Path, keys: list[str], out: Path) -> list[Path]:
    """Draw figures into ``out``; the arrays behind each are kept beside it. ``figure3`` means
    figure3a and so on.
    """
    made = []
    for key in expand_figures(plan, keys):
        if key not in plan.figures:
            raise unknown("figure", key, plan.figures)
        figure = plan.figures[key]
        # A method has one colour in all figures of its experiment.
        styles = _styles(list(plan.members[figure.experiment]), [row.run for row in figure.runs])
        arrays = _arrays(plan, Store(results), key, out / "probes" / f"{key}.npz")
        picture = _DRAWN[figure.kind](arrays, figure, styles)
        for kind in ("png", "svg", "pdf"):
            path = out / "figures" / f"{key}.{kind}"
            write_bytes(path, drawing.encode(picture, kind))
            made.append(path)
    return made


def _styles(order: list[str], runs: list[str]) -> list[int]:
    """Number of each row's style: the colour of its run, other dashes for a further row of the same
    run.
    """
    return [
        order.index(run) + len(drawing.COLOURS) * runs[:i].count(run) for i, run in enumerate(runs)
    ]


def _arrays(plan: Plan, store: Store, key: str, path: Path) -> Arrays:
    """What a figure shows: from its runs, or as kept at ``path`` where their models are gone
    (committed results).
    """
    figure, wanted = _finished(plan.figures[key], wanted_runs(plan, key), store, key)
    runs = [spec for rows in wanted.values() for row in rows for spec in row]
    probed = figure.kind in _PROBES
    lost = [
        store.folder(spec)
        for spec in runs
        if not (store.folder(spec) / "model.safetensors").exists()
    ]
    if probed and lost and path.exists():
        return _kept(path, _shown(figure, wanted), key)
    if probed and lost:
        raise UserError(
            f"{key} cannot be drawn: {lost[0]} holds a record without weights (committed results"
            f" have none), and there are no arrays {path} to draw from. Draw {key} where its runs"
            " were trained; `publish` copies its arrays."
        )
    arrays = _shown(figure, wanted)
    if probed:
        from cml_bench.figures import probes

        data_dir = Path(plan.study.data_dir)
        arrays |= getattr(probes, _PROBES[figure.kind])(wanted, figure, store, data_dir)
    else:
        arrays |= {"accuracy": _accuracies, "cosine": _cosines}[figure.kind](
            wanted, figure, store, key
        )
    write_arrays(path, arrays)
    return arrays


def _finished(
    figure: FigureConfig, wanted: Wanted, store: Store, key: str
) -> tuple[FigureConfig, Wanted]:
    """Without runs that diverged or collapsed; the label of a row that misses some says how many it
    has.
    """
    good = set()
    for spec in (spec for rows in wanted.values() for row in rows for spec in row):
        record = store.read(spec)
        if record is None:
            raise UserError(f"{key} needs a run that is not finished: {spec.title}.")
        good |= {spec.id} if record.status == FINISHED else set()
    found = {
        shot: [[spec for spec in row if spec.id in good] for row in rows]
        for shot, rows in wanted.items()
    }
    rows = []
    for i, row in enumerate(figure.runs):
        kept, every = (
            [spec for specs in some.values() for spec in specs[i]] for some in (found, wanted)
        )
        drawn = all(specs[i] for specs in found.values())
        if not drawn or (
            isinstance(figure, OneSeed) and figure.seed not in {spec.seed for spec in kept}
        ):
            raise UserError(
                f"{key}, row {row.label!r}: its runs diverged or collapsed; there is nothing to"
                " draw."
            )
        some_lost = f" ({len(kept)} of {len(every)} runs)" if len(kept) < len(every) else ""
        rows.append(row.model_copy(update={"label": row.label + some_lost}))
    return figure.model_copy(update={"runs": tuple(rows)}), found


def _shown(figure: FigureConfig, wanted: Wanted) -> Arrays:
    """What the arrays of a figure are of; stored with them, so that an edited figure is never drawn
    from old ones.
    """
    arrays = {
        "shots": np.array(list(wanted)),
        "readings": np.array([row.reading for row in figure.runs]),
        "labels": np.array([row.label for row in figure.runs]),
    }
    if isinstance(figure, CurvesFigure):
        first = [[runs[0].id for runs in rows] for rows in wanted.values()]
        return arrays | {"tasks": np.array(figure.tasks), "runs": np.array(first)}
    ids = [[" ".join(spec.id for spec in runs) for runs in rows] for rows in wanted.values()]
    options = figure.model_dump(mode="json", exclude=_LOOKS)
    return arrays | {
        "runs": np.array(ids),
        "options": np.array(json.dumps(options, sort_keys=True)),
    }


def _kept(path: Path, shown: Arrays, key: str) -> Arrays:
    """Stored arrays. A UserError if they are damaged, or not of what the figure shows now."""
    arrays = read_arrays(
        path, "Restore it from the repository, or draw the figure where its runs were trained."
    )
    # Arrays without ids were made before these were kept with them: there, equal labels must do.
    same = [name for name in shown if name not in ("labels", "runs", "readings")]
    same += ["runs", "readings"] if "runs" in arrays else ["labels"]
    if any(not np.array_equal(arrays.get(name), shown[name]) for name in same):
        raise UserError(
            f"{path} is of other runs, readings or tasks than {key} shows now, and the models to"
            f" make it anew are not here. Draw {key} where its runs were trained, then publish it"
            " again."
        )
    return arrays | {"labels": shown["labels"]}


def wanted_runs(plan: Plan, key: str) -> Wanted:
    """Shot -> for each row of a figure the runs that it shows: every seed's, or for curves the
    named seed's.
    """
    figure = plan.figures[key]
    found: Wanted = {}
    for shot in figure.shots or sorted(plan.study.experiments[figure.experiment].shots):
        for row in figure.runs:
            runs = [plan.specs[i] for i in plan.members[figure.experiment][row.run][shot]]
            chosen = [
                spec
                for spec in runs
                if not isinstance(figure, CurvesFigure) or spec.seed == figure.seed
            ]
            if isinstance(figure, OneSeed) and all(spec.seed != figure.seed for spec in chosen):
                raise UserError(
                    f"{key}: the run {row.run!r} at {shot}-shot has no seed {figure.seed}."
                )
            found.setdefault(shot, []).append(chosen)
    return found


# -- from records
# -------------------------------------------------------------------------------------


def _accuracies(wanted: Wanted, figure: FigureConfig, store: Store, key: str) -> Arrays:
    """For each shot K: ``steps/K`` (steps,), ``training/K`` and ``validation/K`` (rows, seeds,
    steps) in [0, 1].
    """

    def one(record: Record, row: Row) -> dict[str, dict[int, float]]:
        curves, head = record.content["curves"], row.head
        found = {}
        for name, part in (("training", "train"), ("validation", "validation")):
            values = curves.get(part, {}).get(f"score_{head}", [])
            found[name] = {
                step: v for step, v in zip(curves["step"], values, strict=False) if v is not None
            }
        return found

    return _series(wanted, figure, store, ("training", "validation"), one)


def _cosines(wanted: Wanted, figure: CosineFigure, store: Store, key: str) -> Arrays:
    """``layer``, and for each shot K: ``steps/K`` (steps,), ``cosine/K`` (rows, seeds, steps)."""
    layer = figure.layer  # which the plan has made sure of

    def one(record: Record, row: Row) -> dict[str, dict[int, float]]:
        points = record.content["curves"].get("diagnostics", [])
        if not points or "cosine" not in points[0]:
            raise UserError(
                f"{key}, row {row.label!r}: {record.folder} has no cosine of two heads in its"
                " record: its method has one head, or it was trained with --diagnostics off."
            )
        return {"cosine": {p["step"]: p["cosine"][layer] for p in points if layer in p["cosine"]}}

    return _series(wanted, figure, store, ("cosine",), one) | {"layer": np.array(layer)}


def _series(
    wanted: Wanted, figure: FigureConfig, store: Store, names: tuple[str, ...], one
) -> Arrays:
    """``one(record, row)`` gives name -> step -> value: all rows and seeds over the steps of any,
    nan where missing.
    """
    out: Arrays = {}
    for shot, rows in wanted.items():
        found = [
            [one(store.read(spec), row) for spec in runs]
            for row, runs in zip(figure.runs, rows, strict=True)
        ]
        steps = sorted(
            {step for row in found for run in row for name in names for step in run[name]}
        )
        out[f"steps/{shot}"] = np.array(steps)
        for name in names:
            values = np.full((len(rows), max(map(len, rows)), len(steps)), np.nan)
            for i, row in enumerate(found):
                for j, run in enumerate(row):
                    values[i, j] = [run[name].get(step, np.nan) for step in steps]
            out[f"{name}/{shot}"] = values
    return out
