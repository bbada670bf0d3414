"""Any configuration is either a valid plan or one clear error: never a traceback."""

import copy
import datetime
import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cml_bench import registry
from cml_bench.__main__ import main
from cml_bench.costs import estimate
from cml_bench.errors import UserError
from cml_bench.spec import Evaluation, Protocol
from cml_bench.study import cost, plan
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve

BASE = {
    "study": "fuzz",
    "seeds": [0],
    "experiments": {
        "s": {
            "data": "sinusoid",
            "network": "mlp",
            "way": 1,
            "shots": [5],
            "query": "shot",
            "steps": 3,
            "protocol_options": {"val_every": 2, "val_tasks": 4},
            "evaluation": {"tasks": 4, "query": 3},
            "methods": {
                "maml": {"options": {"inner_lr": 0.01}},
                "maml+cml": {"options": {"cml": {"gamma": 0.2}}},
            },
        },
        "g": {
            "data": "glyphs",
            "data_options": {"size": 16},
            "network": "conv4",
            "network_options": {"filters": 2},
            "way": 5,
            "shots": [1],
            "query": 2,
            "steps": 1,
            "methods": {"maml": {}, "pixel_nn": {}},
        },
    },
    "tables": {
        "t": {
            "kind": "regression",
            "experiment": "s",
            "title": "T",
            "rows": [{"label": "MAML", "run": "maml"}],
        }
    },
    "figures": {
        "f": {
            "kind": "curves",
            "experiment": "s",
            "title": "F",
            "runs": [{"label": "MAML", "run": "maml"}],
        }
    },
}

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([datetime.date(2024, 7, 15), b"x", {1: 2}, 10**9, -(10**9), 10**400]),
    st.integers(-3, 10**6),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        [
            "maml",
            "maml+cml",
            "conv4",
            "mlp",
            "omniglot",
            "shot",
            "official",
            "1e-3",
            "",
            "../x",
            "a\nb",
        ]
    ),
    st.lists(st.integers(-2, 30), max_size=3),
    st.dictionaries(
        st.sampled_from(["maml", "gamma", "tasks", "options", "x"]), st.integers(-1, 3), max_size=2
    ),
)


def places(value, path=()):
    """Every path into a configuration, to its keys and items."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from places(item, (*path, key))


def changed(config, path, value, action):
    config = copy.deepcopy(config)
    if not path:
        return value
    parent = config
    for key in path[:-1]:
        parent = parent[key]
    if action == "delete":
        del parent[path[-1]]
    elif action == "misspell" and isinstance(parent, dict):
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
    else:
        parent[path[-1]] = value
    return config


@settings(
    max_examples=250, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.data())
def test_a_changed_configuration_is_a_plan_or_a_clear_error(data):
    config = BASE
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(sorted(places(config), key=repr)))
        config = changed(
            config,
            path,
            data.draw(VALUES),
            data.draw(st.sampled_from(["set", "delete", "misspell"])),
        )
    check(config)


def check(config) -> str:
    """Make all checks that come before a start; the error's text, or "" for a plan."""
    try:
        study = parse(config, "my.yaml")
        plan.serialised(config, "my.yaml")  # as plan.cached does before it starts a process
        resolved = estimate.add(resolve(study, "my.yaml"))
    except UserError as error:
        said = str(error)
        assert "my.yaml" in said or said.startswith(f"study {config['study']}, "), said
        assert "\n" not in said, "one paragraph"
        assert len(said) < 4000
        return said
    assert resolved.runs
    for gpus in (0, 1):
        assert cost.summary(resolved, gpus)
    json.dumps(resolved.json_values(), allow_nan=False)
    return ""


def numbers():
    """Every option that is a number: (experiment, changes of its only method, option)."""
    for name in registry.method_names():
        for field in registry.method(name).Options.model_fields:
            yield ("s" if registry.method(name).learns else "g"), name, "options", field
    for field in ("gamma", "depth"):
        yield "g", "maml+cml", "options", f"cml.{field}"
    for experiment, network in (("s", "mlp"), ("g", "conv4")):
        for field in registry.networks.get(network).Options.model_fields:
            yield experiment, "maml+cml", "network_options", field
    for field in Protocol.model_fields:
        yield "s", "maml+cml", "protocol_options", field


@pytest.mark.parametrize("number", [10**400, 10**9, -(10**9), 1e300], ids=lambda x: str(x)[:7])
def test_no_number_is_too_large(number):
    """A number that is too large for an option is refused, and soon."""
    for experiment, method, kind, field in numbers():
        config = {**copy.deepcopy(BASE), "tables": {}, "figures": {}}
        value = {"cml": {field[4:]: number}} if field.startswith("cml.") else {field: number}
        config["experiments"] = {
            experiment: {**config["experiments"][experiment], "methods": {method: {kind: value}}}
        }
        check(config)
    for field in (
        "way",
        "shots",
        "query",
        "steps",
        "seeds",
        "runs_per_job",
        *Evaluation.model_fields,
    ):
        config = copy.deepcopy(BASE)
        place = config["experiments"]["s"]
        place = place["evaluation"] if field in Evaluation.model_fields else place
        place[field] = [number] if field in ("shots", "inner_steps") else number
        check(config)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "- 1",
        "study: x",
        "\t",
        "study: {}",
        "a: b: c",
        "\x00",
        "x: 2024-02-31",
        "x: " + "1" * 5000,
        "[" * 3000,
    ],
    ids=lambda text: repr(text[:14]),
)
def test_a_file_that_is_no_configuration_is_named(text, tmp_path, capsys):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    assert main(["plan", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert "my.yaml" in said
    assert said.count("\n") == 1
    assert said.startswith("error: ")


def test_the_unchanged_configuration_is_a_plan():
    assert check(yaml.safe_load(yaml.safe_dump(BASE))) == ""
    assert len(resolve(parse(BASE, "my.yaml"), "my.yaml").runs) == 4


def test_two_changes_are_both_there():
    one = changed(BASE, ("experiments", "s", "steps"), 7, "set")
    both = changed(one, ("experiments", "g", "way"), 3, "set")
    assert (both["experiments"]["s"]["steps"], both["experiments"]["g"]["way"]) == (7, 3)
    assert BASE["experiments"]["s"]["steps"] == 3
