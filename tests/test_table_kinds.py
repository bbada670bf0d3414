"""A kind of table is one file: a toy kind is planned, built and written without another edit."""

import pytest

from cml_bench import registry
from cml_bench.errors import UserError
from cml_bench.evidence.build import build
from cml_bench.records import Store
from cml_bench.report import forms
from cml_bench.report.grids import Grid
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from cml_bench.study.table_kind import TableKind


@pytest.fixture
def toy(monkeypatch):
    """The kind ``counts``, registered until the test ends."""
    known = {name: registry.tables.get(name) for name in registry.tables.names()}
    monkeypatch.setattr(registry.tables, "_entries", known)

    @registry.tables.register("counts")
    class Counts(TableKind):
        data_kind = "regression"

        @staticmethod
        def grid(table):
            rows = [[row.label, str(len(table.columns))] for row in table.results]
            return Grid(table.title, ["", "columns"], rows, set())


def study(**table) -> dict:
    return {
        "study": "s",
        "seeds": 1,
        "experiments": {
            "s": {
                "data": "sinusoid",
                "network": "mlp",
                "way": 1,
                "shots": [5, 10],
                "steps": 4,
                "evaluation": {"tasks": 4, "query": 10},
                "methods": {"maml": {}},
            }
        },
        "tables": {
            "t": {
                "kind": "counts",
                "experiment": "s",
                "title": "Counts",
                "rows": [{"label": "A", "run": "maml"}],
                **table,
            }
        },
    }


def test_a_toy_kind_of_one_class_is_planned_built_and_written(toy, tmp_path):
    plan = resolve(parse(study(), "test"), "test")
    table = build(plan, Store(tmp_path), "t")
    assert [line.split() for line in forms.text(table).splitlines()[:4]][-1] == ["A", "2"]


@pytest.mark.parametrize("kind", ["count", "splitz"])
def test_an_unknown_kind_is_told_the_known_ones(kind):
    with pytest.raises(UserError) as error:
        parse(study(kind=kind), "test")
    known = (
        "tables.t.kind: Input should be 'accuracy', 'cost', 'normalised', 'regression' or 'splits'"
    )
    assert known in str(error.value)


def test_a_kind_is_refused_for_data_of_another(toy):
    with pytest.raises(UserError, match="a table of kind accuracy is for classification"):
        resolve(parse(study(kind="accuracy"), "test"), "test")
