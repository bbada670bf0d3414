"""Reading configuration files, and the errors for what does not fit together. Imports no torch."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cml_bench import plugins
from cml_bench.errors import UserError
from cml_bench.registry import PATHS, tables
from cml_bench.study import places, strict_yaml
from cml_bench.study.assignments import assigned, listed
from cml_bench.study.figure_config import FigureConfig
from cml_bench.study.floors import with_floors
from cml_bench.study.schema import Experiment, MethodEntry, Study, TableConfig, one_or_several
from cml_bench.study.sweeps import with_sweeps
from cml_bench.system.paths import expanded, expanded_in
from cml_bench.system.shells import check_path
from cml_bench.system.workflow import here_or_shipped

TARGETS = ("all", "fetch", "train", "trained", "table", "figure", "report")  # rules of the workflow
# Of the results folder, where each study has a folder too.
FOLDERS = ("runs", "plans", "done", "logs", "reference", "aside", "imported")
_JOINED = ("experiments", "tables", "figures")


def complete(content: Any, where: str) -> Any:
    """A configuration with what it includes, and with what is set beside it."""
    return assigned(included(content, where), where)


def included(content: Any, where: str) -> Any:
    """A configuration with the experiments, tables, figures and plug-ins of the files that it lists
    under ``include``.

    Paths are from the working folder; a file under ``configs`` that is not there is the project's
    own. Everything else (study, seeds, sources) is the including
    file's own. A UserError names a file that is not there, and a name that two files give.
    """
    if not isinstance(content, dict) or "include" not in content:
        return content
    whole = {key: value for key, value in content.items() if key != "include"}
    listed = content["include"]
    for path in (
        [listed] if isinstance(listed, str) else listed if isinstance(listed, list) else [None]
    ):
        if not isinstance(path, str):
            raise UserError(
                f"{where}: include lists configuration files, such as [configs/tables/table1.yaml]."
            )
        part = _yaml(Path(here_or_shipped(expanded(path, f"{where}: include"))))
        for key in _JOINED:
            mine, more = (
                side.get(key) or {} if isinstance(side, dict) else {} for side in (whole, part)
            )
            if not isinstance(mine, dict) or not isinstance(more, dict):
                raise UserError(f"{where}, include {path}: {key} must be a mapping of names.")
            if twice := sorted(set(mine) & set(more)):
                raise UserError(
                    f"{where}, include {path}: {key} has {twice[0]!r} already; rename one of the"
                    " two."
                )
            if mine or more:
                whole[key] = {**mine, **more}
        _add_plugins(whole, part)
    return whole


def _add_plugins(whole: dict[str, Any], part: Any) -> None:
    """Those of an included file too, without which its experiments mean nothing."""
    if not isinstance(part, dict) or "plugins" not in part:
        return
    own, more = (one_or_several(side.get("plugins", [])) for side in (whole, part))
    if not isinstance(own, list) or not isinstance(more, list):
        whole["plugins"] = own if isinstance(more, list) else more  # refused, as one of the whole
        return
    whole["plugins"] = [*own, *(path for path in more if path not in own)]


def parse(content: Any, where: str) -> Study:
    """Check a configuration, expand its paths and note its plug-ins.

    A UserError names the file and every offending key.
    """
    study = _expanded(checked(content, where), where)
    plugins.use(study.plugins, f"{where}: plugins")
    return study


def _expanded(study: Study, where: str) -> Study:
    """The study with every path as :mod:`cml_bench.system.paths` says."""

    def there(path: str, key: str) -> str:
        return expanded(path, f"{where}: {key}")

    sources = {
        data: {
            name: (
                copy.model_copy(update={"path": there(copy.path, f"sources.{data}.{name}.path")})
                if copy.path
                else copy
            )
            for name, copy in files.items()
        }
        for data, files in study.sources.items()
    }
    folders = {key: there(getattr(study, key), key) for key in ("results", "data_dir", "published")}
    for key, path in folders.items():
        check_path(path, f"{where}: {key}")
    experiments = {
        name: experiment.model_copy(
            update={
                "data_options": expanded_in(
                    experiment.data_options,
                    PATHS,
                    f"{where}: experiments.{name}.data_options.",
                )
            }
        )
        for name, experiment in study.experiments.items()
    }
    folders["published"] = here_or_shipped(folders["published"])
    own = tuple(here_or_shipped(there(path, "plugins")) for path in study.plugins)
    new = {**folders, "sources": sources, "plugins": own, "experiments": experiments}
    return study.model_copy(update=new)


def checked(content: Any, where: str) -> Study:
    """As :func:`parse`, for the content of a plan: its paths are expanded already."""
    if not isinstance(content, dict):
        raise UserError(
            f"{where}: a configuration is a mapping of keys to values, not"
            f" {type(content).__name__}."
        )
    read = Study.read(content, where, places.instead_of())
    study = with_sweeps(with_floors(read, where), where)
    _check_references(study, where)
    named = {
        k: e if e.protocol else e.model_copy(update={"protocol": study.protocol})
        for k, e in study.experiments.items()
    }
    return study.model_copy(update={"experiments": named})


def read(path: Path | str) -> Study:
    """Read and check a YAML file."""
    return parse(merged([path]), str(path))


def merged(paths: Sequence[Path | str], assignments: Sequence[str] = ()) -> Any:
    """Several files as Snakemake joins them (what a later one says of a key counts), with what they
    include, and with what ``assignments`` set. A file that is not here may be the project's own.
    """
    first, *more = (_yaml(Path(here_or_shipped(str(path)))) for path in paths)
    whole = functools.reduce(_joined, more, first)
    if assignments and isinstance(whole, dict):
        whole = {**whole, "set": [*listed(whole.get("set")), *assignments]}
    return complete(whole, ", ".join(map(str, paths)))


def _joined(a: Any, b: Any) -> Any:
    if not isinstance(a, dict) or not isinstance(b, dict):
        return b
    return {**a, **{key: _joined(a[key], value) if key in a else value for key, value in b.items()}}


def _yaml(path: Path) -> Any:
    return strict_yaml.read(path, missing=f"there is no configuration file {path}.")


def serialised(content: dict[str, Any], where: str) -> str:
    """A configuration as canonical JSON; a UserError for what YAML knows and JSON does not."""
    try:
        return json.dumps(content, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        culprit = _not_json(content)
        raise UserError(
            f"{where}: {culprit} is no number, word, list or mapping: dates need quotes, and .nan,"
            " .inf and other keys than words mean nothing here."
        ) from None


def _not_json(value: Any, place: str = "") -> str:
    """The first part of a configuration that JSON cannot hold, as ``experiments.s.steps (nan)``;
    empty: none.
    """
    if isinstance(value, dict):
        odd = next((key for key in value if not isinstance(key, str)), None)
        inside = [(f"{place}.{key}".removeprefix("."), item) for key, item in value.items()]
        return f"the key {odd!r} in {place or 'the whole'}" if odd is not None else _first(inside)
    if isinstance(value, list | tuple):
        return _first([(f"{place}.{number}", item) for number, item in enumerate(value)])
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return f"{place} ({str(value)[:20] if isinstance(value, float) else type(value).__name__})"
    return ""


def _first(parts: list[tuple[str, Any]]) -> str:
    culprits = (_not_json(value, place) for place, value in parts)
    return next(filter(None, culprits), "")


def _shown(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds[:5])) + ", …" * (len(seeds) > 5) if seeds else "none"


def _check_seeds(seeds: tuple[int, ...], where: str) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(
            f"{where}: seeds must be distinct numbers from 0 on, at least one; got {_shown(seeds)}."
        )


def _check_references(study: Study, where: str) -> None:
    if study.study in FOLDERS:
        raise UserError(
            f"{where}: a study cannot be called {study.study!r}, the folder is taken. Choose"
            " another name."
        )
    _check_seeds(study.seeds, where)
    for name, experiment in study.experiments.items():
        parts: list[tuple[str, Experiment | MethodEntry]] = [(name, experiment)]
        parts += [(f"{name}, {key}", entry) for key, entry in experiment.methods.items()]
        for key, part in parts:
            if part.seeds is not None:
                _check_seeds(part.seeds, f"{where}, experiment {key}")
            _check_splits(part, experiment, study, f"{where}, experiment {key}")
    for key in [*study.tables, *study.figures]:
        if key in TARGETS or (key in study.tables and key in study.figures):
            raise UserError(
                f"{where}: a table or figure cannot be called {key!r}, the name is taken. Choose"
                " another."
            )
    shown: list[tuple[str, TableConfig | FigureConfig]] = [
        *study.tables.items(),
        *study.figures.items(),
    ]
    for key, item in shown:
        for name in item.experiments:
            if name not in study.experiments:
                known = ", ".join(study.experiments)
                raise UserError(
                    f"{where}: {key} names the experiment {name!r}; there are: {known}."
                )
            _check_runs(item, name, study.experiments[name], f"{where}: {key}")
        if isinstance(item, TableConfig):
            _check_columns(item, study, f"{where}: {key}")


def _check_splits(
    item: Experiment | MethodEntry, experiment: Experiment, study: Study, place: str
) -> None:
    """Where class splits are the unit of replication there is one seed, and each split counts
    once.
    """
    if not experiment.splits:
        if item.splits:
            raise UserError(
                f"{place}: splits are some of the experiment's, which names none: add `splits`"
                " there."
            )
        return
    if len(set(item.splits)) < len(item.splits) or not set(item.splits) <= set(experiment.splits):
        raise UserError(f"{place}: splits must be distinct ones of {', '.join(experiment.splits)}.")
    if len(item.seeds or experiment.seeds or study.seeds) > 1:
        raise UserError(f"{place}: with several splits there is one seed; set seeds: [0].")


def _check_runs(
    item: TableConfig | FigureConfig, name: str, experiment: Experiment, place: str
) -> None:
    for row in item.rows if isinstance(item, TableConfig) else item.runs:
        for run in (row.run, row.against):
            if run is not None and run not in experiment.methods:
                raise UserError(
                    f"{place}, row {row.label!r} names the run {run!r}; the experiment {name!r}"
                    f" has: {', '.join(experiment.methods)}."
                )
            if run and isinstance(item, TableConfig) and not experiment.methods[run].tested:
                raise UserError(
                    f"{place}, row {row.label!r} shows test results, and {run!r} of the experiment"
                    f" {name!r} is not tested: leave the row out, or `tested: false`."
                )


def _check_columns(table: TableConfig, study: Study, place: str) -> None:
    shown = [row.label for row in table.rows if row.shown]
    if alike := next((label for label in shown if shown.count(label) > 1), None):
        raise UserError(f"{place} has two rows called {alike!r}: give each a label of its own.")
    titles = [group.title for group in table.columns]
    if len(set(titles)) < len(titles):
        raise UserError(f"{place} has several groups of columns: give each a title of its own.")
    kind = tables.get(table.kind)
    if kind.by_inner_steps and len(titles) > 1:
        raise UserError(
            f"{place} is of kind {kind.name}, which has columns of one experiment; make a table for"
            " each."
        )
    for group in table.columns:
        many, one = (
            bool(name and study.experiments[name].splits)
            for name in (group.experiment, group.fixed)
        )
        if kind.over_splits and (one or not many):
            raise UserError(
                f"{place} is of kind {kind.name}: give {group.experiment!r} `splits`, and its"
                " `fixed` none."
            )
        if not kind.over_splits and (many or group.fixed):
            raise UserError(f"{place} shows class splits: its kind must be `splits`.")
        shots = study.experiments[group.experiment].shots
        if strange := sorted(set(group.shots) - set(shots)):
            known = ", ".join(map(str, shots))
            raise UserError(
                f"{place} shows {strange[0]} shots, and the experiment {group.experiment!r} has:"
                f" {known}."
            )
