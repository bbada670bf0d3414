"""Checks before any training that all will be there which tables and figures ask for.

Imports no torch.
"""

import contextlib
from collections.abc import Iterator

from cml_bench.errors import UserError, unknown
from cml_bench.readings import CO, META, readings
from cml_bench.registry import tables
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import FigureConfig, Row
from cml_bench.study.floors import check_floors
from cml_bench.study.plan import Members
from cml_bench.study.schema import Experiment, Study, TableConfig
from cml_bench.study.sweeps import variants


@contextlib.contextmanager
def told(place: str) -> Iterator[str]:
    """Put ``place``, an experiment of a file, before the text of a UserError from inside."""
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


def check_rows(study: Study, members: Members, specs: dict[str, RunSpec], where: str) -> None:
    """A UserError if a table or figure asks for what its runs will not have.

    Without this check it would fail after all the training.
    """

    def by_shot(name: str, row: Row) -> Iterator[tuple[int, list[RunSpec]]]:
        for key in variants(row.run, members[name]):
            for shot, ids in members[name][key].items():
                yield shot, [specs[i] for i in ids]

    for key, table in study.tables.items():
        for name in table.experiments:
            _check_table(table, study.experiments[name], f"{where}, {key}")
            for row in table.rows:
                for _, runs in by_shot(name, row):
                    _check_reading(row, readings(runs[0]), f"{where}, {key}")
                    _check_inner_steps(table, name, row, runs[0], f"{where}, {key}")
                    _check_normalised(table, row, runs[0], f"{where}, {key}")
    check_floors(study, members, specs, where)
    for key, figure in study.figures.items():
        _check_figure(figure, study.experiments[figure.experiment], f"{where}, {key}")
        for row in figure.runs:
            for shot, runs in by_shot(figure.experiment, row):
                if not figure.shots or shot in figure.shots:
                    heads = [name for name in readings(runs[0]) if name in ("meta", "co")]
                    _check_reading(row, heads, f"{where}, {key}")
                    _check_line(figure, row, runs, f"{where}, {key}")


def _check_reading(row: Row, known: list[str], place: str) -> None:
    known_name(f"{place}, row {row.label!r}: reading", row.reading, known)


def _check_table(table: TableConfig, experiment: Experiment, place: str) -> None:
    from cml_bench import registry

    data = registry.datasets.get(experiment.data)
    wanted = registry.tables.get(table.kind).data_kind
    if wanted not in (None, data.kind):
        raise UserError(
            f"{place}: a table of kind {table.kind} is for {wanted}, and {data.name} is"
            f" {data.kind}."
        )


def _check_figure(figure: FigureConfig, experiment: Experiment, place: str) -> None:
    from cml_bench import registry

    data = registry.datasets.get(experiment.data)
    figure.check_data(data, place)
    if figure.data_kind not in (None, data.kind):
        raise UserError(
            f"{place}: a figure of kind {figure.kind} is for {figure.data_kind}, and {data.name} is"
            f" {data.kind}."
        )
    if strange := sorted(set(figure.shots) - set(experiment.shots)):
        known = ", ".join(map(str, experiment.shots))
        raise UserError(
            f"{place} shows {strange[0]} shots, and the experiment {figure.experiment!r} has:"
            f" {known}."
        )


def _check_line(figure: FigureConfig, row: Row, specs: list[RunSpec], place: str) -> None:
    """A figure can show a row's runs, which differ in their seeds or class splits."""
    first, line = specs[0], f"{place}, row {row.label!r}"
    if first.network is None:
        raise UserError(f"{line}: a figure of kind {figure.kind} is for runs with a model.")
    figure.check_run(first, readings(first), layers(first), line)
    seeds = [spec.seed for spec in specs]
    if figure.only_seed is not None and figure.only_seed not in seeds:
        known = ", ".join(map(str, seeds))
        raise UserError(f"{line}: no run has the figure's seed {figure.only_seed}, only {known}.")


def layers(spec: RunSpec) -> list[str]:
    """Names of the layers of psi in a run's network."""
    from cml_bench import registry

    assert spec.network is not None, "asked of runs with a model only"
    net, source = registry.networks.get(spec.network.name), registry.datasets.get(spec.data.name)
    data = source(source.Options.read(spec.data.options, spec.data.name))
    options = net.Options.read(spec.network.options, spec.network.name)
    return net(options, data.input_shape, data.outputs(spec.way)).layers


def _check_inner_steps(
    table: TableConfig, experiment: str, row: Row, spec: RunSpec, place: str
) -> None:
    """The runs are evaluated after the inner steps that the table shows.

    A table that names none shows the method's own number.
    """
    own = (spec.inner_steps,)
    wanted = table.inner_steps if tables.get(table.kind).by_inner_steps else own
    evaluated = spec.evaluation.inner_steps if spec.network is not None else own
    if missing := sorted(set(wanted) - set(evaluated)):
        known = ", ".join(map(str, evaluated))
        raise UserError(
            f"{place}, row {row.label!r} shows the results after {missing[0]} inner steps, and its"
            f" runs are evaluated after {known}: add {missing[0]} to evaluation.inner_steps of the"
            f" experiment {experiment!r}."
        )


def _check_normalised(table: TableConfig, row: Row, spec: RunSpec, place: str) -> None:
    """The runs are tested in each of the ways that the table's columns show."""
    if not tables.get(table.kind).by_normalisation:
        return
    ways = [how for how in spec.evaluation.normalised_with if how != "task"]
    if ways and (spec.network is None or row.reading not in (META, CO)):
        why = f"the reading {row.reading!r} is not" if spec.network else "has no network that is"
        raise UserError(
            f"{place}, row {row.label!r}: {spec.method} {why} tested with other queries in the"
            f" batch ({', '.join(ways)}), only the readings meta and co of a network are: leave the"
            " row out."
        )
