"""Any configuration is either a valid plan or one clear error: never a traceback."""

import copy
import datetime
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cml_bench import estimate, plan, preflight
from cml_bench.__main__ import main
from cml_bench.config import parse
from cml_bench.errors import UserError

BASE = {
    "study": "fuzz", "seeds": [0],
    "experiments": {
        "s": {
            "data": "sinusoid", "network": "mlp", "way": 1, "shots": [5], "query": "shot", "steps": 3,
            "protocol_options": {"val_every": 2, "val_tasks": 4}, "evaluation": {"tasks": 4, "query": 3},
            "methods": {"maml": {"options": {"inner_lr": 0.01}}, "maml+cml": {"options": {"cml": {"gamma": 0.2}}}},
        },
        "g": {
            "data": "glyphs", "data_options": {"size": 16}, "network": "conv4", "network_options": {"filters": 2},
            "way": 5, "shots": [1], "query": 2, "steps": 1, "methods": {"maml": {}, "pixel_nn": {}},
        },
    },
    "tables": {
        "t": {"kind": "regression", "experiment": "s", "title": "T", "rows": [{"label": "MAML", "run": "maml"}]}
    },
    "figures": {"f": {"kind": "curves", "experiment": "s", "title": "F", "runs": [{"label": "MAML", "run": "maml"}]}},
}  # fmt: skip

VALUES = st.one_of(
    st.none(), st.booleans(), st.just(datetime.date(2024, 7, 15)),
    st.integers(-3, 10**6), st.floats(), st.text(max_size=6),
    st.sampled_from(["maml", "maml+cml", "conv4", "mlp", "omniglot", "shot", "official", "1e-3", "", "../x", "glyphs"]),
    st.lists(st.integers(-2, 30), max_size=3),
    st.dictionaries(st.sampled_from(["maml", "gamma", "tasks", "options", "x"]), st.integers(-1, 3), max_size=2),
)  # fmt: skip


def places(value, path=()):
    """Every path into a configuration."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
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


@settings(max_examples=250, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_changed_configuration_is_a_plan_or_a_clear_error(data):
    action = data.draw(st.sampled_from(["set", "delete", "misspell"]))
    config = BASE
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(sorted(places(config), key=repr)))
        config = changed(config, path, data.draw(VALUES), action)
    said, resolved = outcome(config)
    if resolved is None:
        assert "my.yaml" in said or "Known: " in said or re.match(r"\w+: ", said), said
        assert "\n" not in said, "one paragraph"
        return
    assert resolved["runs"]
    json.dumps(resolved, allow_nan=False)


def outcome(config):
    """The error's text, or the plan."""
    try:
        study = parse(config, "my.yaml")
        plan.serialised(config, "my.yaml")
        resolved = estimate.add(plan.resolve(study, "my.yaml"))
        assert preflight.summary(resolved)
        return "", resolved
    except UserError as error:
        return str(error), None


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "study: x", "\t", "study: {}", "a: b: c", "\x00"])
def test_a_file_that_is_no_configuration_is_named(text, tmp_path, capsys):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    assert main(["plan", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert "my.yaml" in said
    assert said.startswith("error: ")


def test_the_unchanged_configuration_is_a_plan():
    assert len(plan.resolve(parse(yaml.safe_load(yaml.safe_dump(BASE)), str(Path("my.yaml"))), "x")["runs"]) == 4
