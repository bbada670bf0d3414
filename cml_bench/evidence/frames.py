"""Stored runs as pandas data frames, and the paired test of two selections of rows.

Imports no torch.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from cml_bench.errors import UserError
from cml_bench.evidence import stats
from cml_bench.evidence.stats import Paired
from cml_bench.readings import series
from cml_bench.records import FINISHED, Record, read
from cml_bench.spec import canonical
from cml_bench.study.protocols import flat

Rows = Iterator[dict[str, Any]]

# What must be the same in both selections of `compare`, beside all keys of these parts.
_TASKS = ("data", "way", "shot", "test_query", "test_tasks", "normalised_with", "unit")
_RECIPE = ("query", "steps", "precision", "network")
_PARTS = ("data.", "network.", "protocol.")
_OPTION, _OF_CML = "options.", "options.cml."


def runs(places: Iterable[Path]) -> pd.DataFrame:
    """One row a run, reading and number of inner steps. A diverged run has one row without mean.

    ``mean`` is in ``unit``: percent, or squared error. Options are columns named as in a
    configuration (``options.cml.gamma``, ``protocol.meta_batch``); empty where a run has none. A
    list, such as the widths of an MLP, is written as text.
    """
    return of(_records(places))


def of(records: Iterable[Record]) -> pd.DataFrame:
    """The frame that :func:`runs` gives of these records."""
    return pd.DataFrame([row for record in records for row in _results(record)])


def of_one_type(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame for files whose columns hold one type: a column with text and numbers is text."""
    mixed = [c for c in frame.columns if frame[c].dropna().map(type).nunique() > 1]
    return frame.assign(**{c: frame[c].map(str, na_action="ignore") for c in mixed})


def curves(places: Iterable[Path]) -> pd.DataFrame:
    """One row a run, measured outer step, part (train, validation) and head.

    ``score`` is in ``unit``: percent, or squared error.
    """
    return _frame(_curves, places)


def episodes(places: Iterable[Path]) -> pd.DataFrame:
    """One row a run, reading, number of inner steps and test episode, with its ``score``.

    Readings whose episodes are not stored have no rows.
    """
    return _frame(_episodes, places)


def compare(a: pd.DataFrame, b: pd.DataFrame, varies: Iterable[str] = ()) -> Paired:
    """The paired test of the tables, of ``a`` minus ``b``: rows of :func:`runs`, one a seed.

    As in tables, runs that collapsed or diverged do not count, but for untrained networks. Rows are
    paired by the class split where ``a`` has several, else by the seed; a seed without partner is
    left out. p is that of one test, without Holm's correction. A UserError if the rows are not of
    the same test tasks, or of another recipe, which is every option that both methods have:
    ``varies`` names the columns in which they are meant to differ.
    """
    for name, rows in (("a", a), ("b", b)):
        if rows.empty:
            raise UserError(f"{name} has no rows: select some of a frame that was loaded.")
    unit = "data.split" if "data.split" in a and a["data.split"].nunique() > 1 else "seed"
    for name, rows in (("a", a), ("b", b)):
        _one_each(name, rows, unit)
    _alike(a, b, unit, {*varies})
    a, b = (rows[(rows["status"] == FINISHED) | (rows["steps"] == 0)] for rows in (a, b))
    x, y = (rows.set_index(unit)["mean"].dropna() for rows in (a, b))
    shared = x.index.intersection(y.index)
    if shared.empty:
        raise UserError(f"a and b share no {unit} with a finished run: nothing can be paired.")
    return stats.paired(x[shared].to_numpy(), y[shared].to_numpy())


def _one_each(name: str, rows: pd.DataFrame, unit: str) -> None:
    """A UserError if a seed has several rows, with the columns in which they differ."""
    twice = rows[rows[unit].duplicated(keep=False)]
    if twice.empty:
        return
    first = twice[twice[unit] == twice[unit].iloc[0]]
    several = [c for c in first.columns if first[c].nunique(dropna=False) > 1]
    unlike = [c for c in several if c not in _OF_RUN] or [c for c in several if c == "folder"]
    raise UserError(
        f"{name} has {len(first)} rows of {unit} {first[unit].iloc[0]}, which differ in"
        f" {', '.join(unlike) or 'nothing'}: select one of them."
    )


def _alike(a: pd.DataFrame, b: pd.DataFrame, unit: str, varies: set[str]) -> None:
    """A UserError if the two selections differ in more than the method and its options."""
    a, b = _with_one_rate(a), _with_one_rate(b)
    columns = [*a.columns, *(c for c in b.columns if c not in a)]
    if missing := varies - {*columns}:
        raise UserError(f"varies: there is no column {min(missing)!r}.")
    for column in columns:
        if column == unit or not _counts(column):
            continue
        x, y = (_values(rows, column) for rows in (a, b))
        if column.startswith(_OPTION) and {"nan"} in (x, y):
            continue  # an option of one of the two methods alone
        if column in _TASKS:
            if x != y or len(x) > 1:
                raise UserError(
                    f"a and b are not of the same test tasks: {column} is {_told(x)} and"
                    f" {_told(y)}."
                )
        elif x != y and column not in varies:
            raise UserError(
                f"a and b differ in {column} ({_told(x)} and {_told(y)}), so a difference says"
                f" nothing of the methods alone: name it in `varies` if it is meant."
            )


def _counts(column: str) -> bool:
    """Whether rows are unlike that differ in this column."""
    return column in (*_TASKS, *_RECIPE) or (
        column.startswith((*_PARTS, _OPTION)) and not column.startswith(_OF_CML)
    )


def _with_one_rate(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with one column for the size of the first inner step, which some methods learn."""
    rate, learned = f"{_OPTION}inner_lr", f"{_OPTION}inner_lr_init"
    if learned not in rows:
        return rows
    whole = rows[learned].combine_first(rows[rate]) if rate in rows else rows[learned]
    return rows.drop(columns=learned).assign(**{rate: whole})


def _values(rows: pd.DataFrame, column: str) -> set[str]:
    return {str(value) for value in rows[column].unique()} if column in rows else {"nan"}


def _told(values: set[str]) -> str:
    return " or ".join(sorted(values))


def _frame(rows_of: Callable[[Record], Rows], places: Iterable[Path]) -> pd.DataFrame:
    return pd.DataFrame([row for record in _records(places) for row in rows_of(record)])


def _records(places: Iterable[Path]) -> Iterator[Record]:
    """The records in these folders: of one run, ``runs``, or one that holds ``runs``.

    A UserError if there is none, or one is damaged.
    """
    for place in places:
        folder = place / "runs" if (place / "runs").is_dir() else place
        inner = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [record for one in (folder, *inner) if (record := read(one))]
        if not found:
            raise UserError(
                f"{place} holds no finished run: name a results folder, its folder `runs`, or a"
                " run's folder."
            )
        yield from found


_OF_RUN = ("run", "folder", "created", "commit", "clean", "machine", "seconds", "mean")


def _results(record: Record) -> Rows:
    spec, source = record.spec, record.source
    settings = {key: v for key, v in canonical(spec).items() if isinstance(v, dict)}
    network = settings.pop("network", None) or {}
    data = settings.pop("data")
    options = flat({**settings, "network": network.get("options", {}), "data": data["options"]}, "")
    row = {
        **_names(record),
        "data_id": spec.data_id,
        "network": network.get("name"),
        "query": spec.query,
        "steps": spec.steps,
        "precision": spec.precision,
        "status": record.status,
        "test_tasks": record.evaluation.tasks,
        "test_query": record.evaluation.query,
        "seconds": record.seconds.train,
        "created": record.created,
        "commit": source.commit if source else "",
        "clean": source.clean if source else None,
        "machine": record.machine.title,
        "folder": str(record.folder),
        **{key: str(v) if isinstance(v, list) else v for key, v in options.items()},
    }
    if not record.results:
        yield {**row, **_series(None)}
    for key, rounded in record.results.items():
        stored = key in record.arrays  # committed runs have the episodes of what tables show
        mean = record.episodes(key).mean() if stored else rounded
        yield {**row, **_series(key), "mean": mean * record.scale}


def _names(record: Record) -> dict[str, Any]:
    """What every frame says of a run."""
    spec = record.spec
    return {
        "run": record.id,
        "method": spec.method,
        "data": spec.data.name,
        "way": spec.way,
        "shot": spec.shot,
        "seed": spec.seed,
        "unit": "%" if record.kind == "classification" else "squared error",
    }


def _series(key: str | None) -> dict[str, Any]:
    reading, steps, normalised_with = series(key) if key else (None, None, None)
    return {"reading": reading, "inner_steps": steps, "normalised_with": normalised_with}


def _curves(record: Record) -> Rows:
    parts = {"train": record.curves.train, "validation": record.curves.validation}
    for part, scores in parts.items():
        for head in ("meta", "co"):
            lines = zip(record.curves.step, scores.loss(head), scores.score(head), strict=False)
            for step, loss, score in lines:
                value = None if score is None else score * record.scale
                yield {
                    **_names(record),
                    "step": step,
                    "part": part,
                    "head": head,
                    "loss": loss,
                    "score": value,
                }


def _episodes(record: Record) -> Rows:
    for key in record.arrays if record.results else ():
        for i, score in enumerate(record.episodes(key)):
            yield {**_names(record), **_series(key), "episode": i, "score": score * record.scale}
