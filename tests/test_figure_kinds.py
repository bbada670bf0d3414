"""A kind of figure is one file: a toy kind is planned, measured and drawn without another edit."""

import importlib.util

import pytest

from cml_bench import registry
from cml_bench.engine.jobs import run_all
from cml_bench.errors import UserError
from cml_bench.figures import make
from cml_bench.records import read_arrays
from cml_bench.study.config import parse
from cml_bench.study.plan import Plan
from cml_bench.study.resolve import resolve
from tests.helpers.documents import worked_examples
from tests.helpers.processes import loaded


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy kind, registered from its one file until the test ends."""
    path = tmp_path / "ends.py"
    path.write_text(worked_examples()["cml_bench/figures/kinds/ends.py"])
    known = {name: registry.figures.get(name) for name in registry.figures.names()}
    monkeypatch.setattr(registry.figures, "_entries", known)
    spec = importlib.util.spec_from_file_location("ends", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def study(**figure) -> dict:
    """Two runs of a sinusoid, without outer steps under the experiment none, and figure9."""
    own = {"kind": "ends", "experiment": "s", "title": "Ends", "shots": [5]}
    sinusoid = {
        "data": "sinusoid",
        "network": "mlp",
        "way": 1,
        "shots": [5, 10],
        "steps": 4,
        "protocol_options": {"val_every": 2, "val_tasks": 4},
        "evaluation": {"tasks": 4, "query": 10},
        "methods": {"maml": {}, "maml+cml": {}},
    }
    rows = [{"label": "A", "run": "maml"}, {"label": "B", "run": "maml+cml"}]
    return {
        "study": "s",
        "seeds": 2,
        "experiments": {"s": sinusoid, "none": {**sinusoid, "steps": 0}},
        "figures": {"figure9": {**own, "runs": rows, **figure}},
    }


def test_a_toy_kind_of_one_file_is_planned_measured_and_drawn(toy, settings, tmp_path):
    plan = resolve(parse(study(width=0.5), "test"), "test")
    assert plan.figures["figure9"].caption == "Training loss at the last point, mean over seeds."
    again = Plan.model_validate(plan.json_values())
    assert again == plan
    assert again.figures["figure9"].width == 0.5
    run_all([run.spec for run in plan.runs if run.spec.steps and run.spec.shot == 5], settings)
    pictures = make.figures(again, settings.results, [], tmp_path / "out")
    assert [path.name for path in pictures] == ["figure9.png", "figure9.svg", "figure9.pdf"]
    assert all(path.stat().st_size > 1000 for path in pictures)
    arrays = read_arrays(tmp_path / "out" / "probes" / "figure9.npz", "")
    assert arrays["last/5"].shape == (2,)
    assert arrays["last/5"].min() > 0
    assert '"width": 0.5' in arrays["options"].item()


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ({"width": 0}, "figures.figure9.ends.width: Input should be greater than 0"),
        ({"widht": 1}, "unknown key 'figures.figure9.ends.widht'"),
        ({"smooth": 1, "kind": "ends"}, "unknown key 'figures.figure9.ends.smooth'"),
        ({"kind": "end"}, "does not match any of the expected tags"),
        ({"experiment": "none"}, "figure9, row 'A': its runs have no outer steps."),
    ],
)
def test_what_is_wrong_with_a_toy_is_said_as_with_any_kind(toy, figure, message):
    with pytest.raises(UserError) as error:
        resolve(parse(study(**figure), "test"), "test")
    assert message in str(error.value)


@pytest.mark.parametrize(("kinds", "least"), [("figures", 6), ("tables", 4)])
def test_planning_loads_every_kind_and_nothing_heavy(kinds, least):
    code = f"from cml_bench.registry import {kinds}; assert len({kinds}.names()) >= {least}"
    assert not loaded(code) & {"torch", "matplotlib", "scipy", "sklearn", "pandas"}
