"""What a plan checks before any training: all that tables and figures ask for will be there.
Imports no torch.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from cml_bench.errors import UserError, unknown
from cml_bench.readings import own_steps, readings
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import (
    AccuracyFigure,
    CKAFigure,
    CosineFigure,
    CurvesFigure,
    FigureConfig,
    Row,
    TSNEFigure,
)
from cml_bench.study.schema import Experiment, Study, TableConfig


@contextlib.contextmanager
def told(place: str) -> Iterator[str]:
    """A UserError from inside says which experiment of which file it is about."""
    try:
        yield place
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(place) else f"{place}: {text}") from None


def check_names(study: Study, where: str) -> None:
    """Data sets and files under ``acknowledged`` and ``sources`` exist."""
    from cml_bench import registry

    for name in study.acknowledged:
        known_name(f"{where}, acknowledged: data set", name, registry.datasets.names())
    for name, files in study.sources.items():
        known_name(f"{where}, sources: data set", name, registry.datasets.names())
        with told(f"{where}, sources"):
            registry.datasets.get(name).edition(files)


def known_name(kind: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise unknown(kind, name, names)


def check_rows(
    study: Study, members: dict[str, Any], specs: dict[str, RunSpec], where: str
) -> None:
    """Everything that tables and figures ask for will be there: else they would fail after all the
    training.
    """
    for key, item in [*study.tables.items(), *study.figures.items()]:
        figure = isinstance(item, FigureConfig)
        for name in item.experiments:
            _check_kind(item, study.experiments[name], f"{where}, {key}")
            for row in item.runs if figure else item.rows:
                for shot, ids in members[name][row.run].items():
                    if not figure or not item.shots or int(shot) in item.shots:
                        _check_row(item, name, row, [specs[i] for i in ids], f"{where}, {key}")


def _check_row(
    item: TableConfig | FigureConfig, name: str, row: Row, found: list[RunSpec], place: str
) -> None:
    figure = isinstance(item, FigureConfig)
    known = [reading for reading in readings(found[0]) if not figure or reading in ("meta", "co")]
    known_name(f"{place}, row {row.label!r}: reading", row.reading, known)
    if figure:
        _check_line(item, row, found, place)
    else:
        _check_inner_steps(item, name, row, found[0], place)


def _check_kind(item: TableConfig | FigureConfig, experiment: Experiment, place: str) -> None:
    from cml_bench import registry

    data = registry.datasets.get(experiment.data)
    if isinstance(item, CurvesFigure) and not data.draws_curves:
        raise UserError(
            f"{place}: adapted curves are drawn for sets such as sinusoid, not for {data.name}."
        )
    if isinstance(item, AccuracyFigure | TSNEFigure) and data.kind != "classification":
        raise UserError(
            f"{place}: a figure of kind {item.kind} is for classification, and {data.name} is"
            f" {data.kind}."
        )
    if isinstance(item, FigureConfig) and (
        strange := sorted(set(item.shots) - set(experiment.shots))
    ):
        known = ", ".join(map(str, experiment.shots))
        raise UserError(
            f"{place} shows {strange[0]} shots, and the experiment {item.experiment!r} has:"
            f" {known}."
        )
    kinds = {"regression": "regression", "accuracy": "classification", "splits": "classification"}
    wanted = kinds.get(item.kind, data.kind)
    if wanted != data.kind:
        raise UserError(
            f"{place}: a table of kind {item.kind} is for {wanted}, and {data.name} is {data.kind}."
        )


def _check_line(figure: FigureConfig, row: Row, found: list[RunSpec], place: str) -> None:
    if found[0].network is None or (
        isinstance(figure, CosineFigure) and "co" not in readings(found[0])
    ):
        what = "two heads" if found[0].network else "a model"
        raise UserError(
            f"{place}, row {row.label!r}: a figure of kind {figure.kind} is for runs with {what}."
        )
    _check_examples(figure, found[0], f"{place}, row {row.label!r}")
    if isinstance(figure, CosineFigure) and figure.layer:
        known_name(f"{place}, row {row.label!r}: layer", figure.layer, layers(found[0]))
    seeds = [spec.seed for spec in found]
    if isinstance(figure, CurvesFigure | TSNEFigure) and figure.seed not in seeds:
        known = ", ".join(map(str, seeds))
        raise UserError(
            f"{place}, row {row.label!r}: no run has the figure's seed {figure.seed}, only {known}."
        )


def _check_examples(figure: FigureConfig, spec: RunSpec, place: str) -> None:
    """A task has enough of them for what is computed."""
    queries = spec.way * spec.evaluation.query
    shown = spec.way * spec.shot if getattr(figure, "examples", "query") == "support" else queries
    if isinstance(figure, TSNEFigure) and figure.perplexity >= min(shown, queries):
        raise UserError(
            f"{place}: t-SNE of {min(shown, queries)} examples needs a perplexity below their"
            f" number, not {figure.perplexity:g}: lower it, or leave {spec.shot} out of the"
            " figure's shots."
        )
    if isinstance(figure, CKAFigure) and figure.estimator == "unbiased" and shown < 4:
        raise UserError(
            f"{place}: the unbiased estimator needs at least 4 examples, not {shown}: set"
            " estimator: biased."
        )


def layers(spec: RunSpec) -> list[str]:
    """Names of the layers of psi, of a run's network."""
    from cml_bench import registry

    net, source = registry.networks.get(spec.network.name), registry.datasets.get(spec.data.name)
    data = source(source.Options.read(spec.data.options, spec.data.name))
    options = net.Options.read(spec.network.options, spec.network.name)
    return net(options, data.input_shape, data.outputs(spec.way)).layers


def _check_inner_steps(
    table: TableConfig, experiment: str, row: Row, spec: RunSpec, place: str
) -> None:
    """The steps of the table's columns are evaluated: those it names, else those of the method's
    training.
    """
    own = (own_steps(spec),)
    wanted = table.inner_steps if table.kind == "regression" else own
    evaluated = spec.evaluation.inner_steps if spec.network is not None else own
    if missing := sorted(set(wanted) - set(evaluated)):
        known = ", ".join(map(str, evaluated))
        raise UserError(
            f"{place}, row {row.label!r} shows the results after {missing[0]} inner steps, and its"
            f" runs are evaluated after {known}: add {missing[0]} to evaluation.inner_steps of the"
            f" experiment {experiment!r}."
        )
