"""A study's figures: arrays from its runs' records or stored models, and the drawings of them.

Imports no torch but where stored models are looked at.
"""

from pathlib import Path

import numpy as np

from cml_bench.errors import UserError, unknown
from cml_bench.figures import style
from cml_bench.records import FINISHED, Store, read_arrays, write_arrays
from cml_bench.study.figure_config import Arrays, FigureConfig, Wanted
from cml_bench.study.plan import Plan
from cml_bench.study.targets import expand_figures
from cml_bench.system.files import write_bytes


def figures(plan: Plan, results: Path, keys: list[str], out: Path) -> list[Path]:
    """Draw figures into ``out``; the arrays behind each are kept beside it. ``figure3`` means
    figure3a and so on.
    """
    made = []
    for key in expand_figures(plan, keys):
        if key not in plan.figures:
            raise unknown("figure", key, plan.figures)
        figure = plan.figures[key]
        styles = _styles(style.order(plan), [row.run for row in figure.runs])
        arrays = _arrays(plan, Store(results), key, out / "probes" / f"{key}.npz")
        picture = figure.drawn(arrays, styles)
        for kind in ("png", "svg", "pdf"):
            path = out / "figures" / f"{key}.{kind}"
            write_bytes(path, style.encode(picture, kind))
            made.append(path)
    return made


def _styles(order: list[str], runs: list[str]) -> list[int]:
    """Number of each row's style: the colour of its run, other dashes for a further row of the same
    run.
    """
    return [
        order.index(run) + len(style.COLOURS) * runs[:i].count(run) for i, run in enumerate(runs)
    ]


def _arrays(plan: Plan, store: Store, key: str, path: Path) -> Arrays:
    """What a figure shows: from its runs, or as kept at ``path`` where their models are gone
    (committed results).
    """
    figure, wanted = _finished(plan.figures[key], wanted_runs(plan, key), store, key)
    runs = [spec for rows in wanted.values() for row in rows for spec in row]
    lost = [
        store.folder(spec)
        for spec in runs
        if not (store.folder(spec) / "model.safetensors").exists()
    ]
    if figure.needs_models and lost and path.exists():
        return _kept(path, _shown(figure, wanted), key)
    if figure.needs_models and lost:
        raise UserError(
            f"{key} cannot be drawn: {lost[0]} holds a record without weights (committed results"
            f" have none), and there are no arrays {path} to draw from. Draw {key} where its runs"
            " were trained; `publish` copies its arrays."
        )
    arrays = _shown(figure, wanted)
    arrays |= figure.measured(wanted, store, Path(plan.study.data_dir), key)
    write_arrays(path, arrays)
    return arrays


def stored(plan: Plan, store: Store, key: str, path: Path) -> tuple[Arrays, Wanted]:
    """A figure's arrays without looking at any model, and for each shot the runs of each of its
    rows, without those that diverged or collapsed.

    They are made from records, or are those kept at ``path``. A UserError says why there are none.
    """
    figure, wanted = _finished(plan.figures[key], wanted_runs(plan, key), store, key)
    if not figure.needs_models:
        return figure.measured(wanted, store, Path(plan.study.data_dir), key), wanted
    if not path.exists():
        raise UserError(f"no arrays of {key} are stored: draw it with `figure`.")
    return _kept(path, _shown(figure, wanted), key), wanted


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
    remaining = {
        shot: [[spec for spec in row if spec.id in good] for row in rows]
        for shot, rows in wanted.items()
    }
    rows = []
    for i, row in enumerate(figure.runs):
        kept, every = (
            [spec for specs in some.values() for spec in specs[i]] for some in (remaining, wanted)
        )
        drawn = all(specs[i] for specs in remaining.values())
        if not drawn or (
            figure.only_seed is not None and figure.only_seed not in {spec.seed for spec in kept}
        ):
            raise UserError(
                f"{key}, row {row.label!r}: its runs diverged or collapsed; there is nothing to"
                " draw."
            )
        some_lost = f" ({len(kept)} of {len(every)} runs)" if len(kept) < len(every) else ""
        rows.append(row.model_copy(update={"label": row.label + some_lost}))
    return figure.model_copy(update={"runs": tuple(rows)}), remaining


def _shown(figure: FigureConfig, wanted: Wanted) -> Arrays:
    """What the arrays of a figure are of; stored with them, so that an edited figure is never drawn
    from old ones.
    """
    arrays = {
        "shots": np.array(list(wanted)),
        "readings": np.array([row.reading for row in figure.runs]),
        "labels": np.array([row.label for row in figure.runs]),
    }
    return arrays | figure.identity(wanted)


def _kept(path: Path, shown: Arrays, key: str) -> Arrays:
    """Stored arrays. A UserError if they are damaged, or not of what the figure shows now."""
    arrays = read_arrays(
        path, "Restore it from the repository, or draw the figure where its runs were trained."
    )
    # Arrays without ids were made before these were kept with them: there, equal labels must do.
    same = [name for name in shown if name not in ("labels", "runs", "readings")]
    same += ["runs", "readings"] if "runs" in arrays else ["labels"]
    if any(name not in arrays or not np.array_equal(arrays[name], shown[name]) for name in same):
        raise UserError(
            f"{path} is of other runs, readings or tasks than {key} shows now, and the models to"
            f" make it anew are not here. Draw {key} where its runs were trained, then publish it"
            " again."
        )
    return arrays | {"labels": shown["labels"]}


def wanted_runs(plan: Plan, key: str) -> Wanted:
    """Shot -> for each row of a figure the runs that it shows."""
    figure = plan.figures[key]
    wanted: Wanted = {}
    for shot in figure.shots or sorted(plan.study.experiments[figure.experiment].shots):
        for row in figure.runs:
            runs = [plan.specs[i] for i in plan.members[figure.experiment][row.run][shot]]
            if figure.only_seed is not None and all(s.seed != figure.only_seed for s in runs):
                raise UserError(
                    f"{key}: the run {row.run!r} at {shot}-shot has no seed {figure.only_seed}."
                )
            wanted.setdefault(shot, []).append(figure.of_seeds(runs))
    return wanted
