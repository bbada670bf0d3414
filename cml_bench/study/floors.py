"""Rows of untrained networks: what a table's numbers are without meta-training. Imports no torch.

A table's key ``untrained`` lists methods of its experiments. Each gets a row, whose runs are those
of the method with 0 outer steps: the same network with the initial values of each seed (or class
split), adapted on the same test tasks. Nobody writes these runs or rows by hand.
"""

from typing import TYPE_CHECKING

from cml_bench.errors import UserError
from cml_bench.registry import CML
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import Row
from cml_bench.study.schema import Experiment, Study, TableConfig

if TYPE_CHECKING:
    from cml_bench.study.plan import Members

LABEL = "untrained, adapted"


def key_of(method: str) -> str:
    """The key of a method's untrained network among the methods of an experiment."""
    return f"{method}_untrained"


def with_floors(study: Study, where: str) -> Study:
    """The study with the runs and rows that its tables ask for by ``untrained``.

    A study that has them already, as that of a plan, is left as it is. A UserError names the table
    and the method for which there can be no such row.
    """
    experiments, shown = dict(study.experiments), dict(study.tables)
    for key, table in study.tables.items():
        place = f"{where}: {key}, untrained"
        for method in table.untrained:
            for name in (name for name in table.experiments if name in experiments):
                experiments[name] = _with_entry(experiments[name], name, method, place)
        shown[key] = table.model_copy(update={"rows": (*table.rows, *_rows(table))})
    return study.model_copy(update={"experiments": experiments, "tables": shown})


def floor_of(table: TableConfig, row: Row) -> str | None:
    """The method of ``untrained`` that a row is read against: its own run, else its baseline, else
    the baseline's, and so on. None if there is none.
    """
    baselines = {other.run: other.against for other in reversed(table.rows)}
    chain, run = [row.run], row.against
    while run is not None and run not in chain:
        chain.append(run)
        run = baselines.get(run)
    return next((method for method in chain if method in table.untrained), None)


def check_floors(study: Study, members: "Members", specs: dict[str, RunSpec], where: str) -> None:
    """A UserError for the untrained network of a method that has no network."""
    for key, table in study.tables.items():
        for name in table.experiments:
            for method in table.untrained:
                ids = next(iter(members[name][key_of(method)].values()))
                if specs[ids[0]].network is None:
                    raise UserError(
                        f"{where}, {key}: untrained names {method!r}, which learns nothing, so it"
                        " has no untrained network: leave it out."
                    )


def _with_entry(experiment: Experiment, name: str, method: str, place: str) -> Experiment:
    """The experiment with the method's untrained network among its methods."""
    methods, key = experiment.methods, key_of(method)
    if method not in methods:
        known = ", ".join(methods)
        raise UserError(f"{place} names {method!r}; the experiment {name!r} has: {known}.")
    kind = methods[method].method or method
    if kind.endswith(CML):
        raise UserError(
            f"{place} names {method!r}, which is {kind}: name its baseline, whose untrained network"
            " is the same."
        )
    entry = methods[method].model_copy(update={"method": kind, "steps": 0})
    if methods.get(key, entry) != entry:
        raise UserError(
            f"{place}: the experiment {name!r} has a method called {key!r} already; rename that"
            " one."
        )
    return experiment.model_copy(update={"methods": {**methods, key: entry}})


def _rows(table: TableConfig) -> list[Row]:
    """The rows that a table lacks; of several, each label says whose way of adapting is meant."""
    there, methods = {row.run for row in table.rows}, dict.fromkeys(table.untrained)
    labels = {row.run: row.label for row in reversed(table.rows) if row.reading == "meta"}
    return [
        Row(
            label=LABEL if len(methods) == 1 else f"{LABEL} as {labels.get(method, method)}",
            run=key_of(method),
        )
        for method in methods
        if key_of(method) not in there
    ]
