"""Configurations that are refused when a study is planned: the error names the culprit."""

import datetime

import pytest

from cml_bench.errors import UserError
from cml_bench.study import plan
from cml_bench.study.config import parse, read
from cml_bench.study.resolve import resolve
from tests.helpers.studies import changed


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"data_options\.x \(nan\)"),
        (float("-inf"), r"data_options\.x \(-inf\)"),
        (datetime.date(2024, 7, 15), r"data_options\.x \(date\)"),
        ([1, b"y"], r"data_options\.x\.1 \(bytes\)"),
        ({1: 2, "a": 3}, r"the key 1 in experiments\.s\.data_options\.x"),
    ],
)
def test_what_json_does_not_know_is_named_with_its_key(value, message, tmp_path):
    content = changed("experiments.s.data_options", {"x": value}) | {"results": str(tmp_path)}
    with pytest.raises(
        UserError, match=rf"my\.yaml: .*{message}.* is no number, word, list or mapping"
    ) as caught:
        plan.cached(content, "my.yaml")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "nothing was written"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sedes", 3, r"unknown key 'sedes'; known keys: study"),
        ("experiments.s.shoots", [1], r"unknown key 'experiments\.s\.shoots'"),
        (
            "experiments.s.data",
            "sinusoit",
            r"unknown data set 'sinusoit'\. Did you mean 'sinusoid'\?",
        ),
        ("experiments.s.network", "conv5", r"unknown network 'conv5'\. Did you mean 'conv4'\?"),
        ("experiments.s.methods", {"mmal": {}}, r"unknown method 'mmal'\. Did you mean 'maml'\?"),
        ("experiments.s.methods", {"pixel_nn+cml": {}}, "does not accept a co-learner"),
        (
            "experiments.s.methods.maml.options",
            {"inner_rate": 1},
            r"method maml: unknown key 'inner_rate'; known",
        ),
        (
            "experiments.s.methods.maml.options",
            {"inner_lr": -1},
            r"inner_lr: .*greater than or equal to 0",
        ),
        ("experiments.s.way", 5, "way must be 1"),
        (
            "experiments.s.protocol",
            "offical",
            r"unknown protocol preset 'offical'\. Did you mean 'official'",
        ),
        ("experiments.s.protocol_options", {"val_evry": 1}, r"unknown key 'val_evry'"),
        ("tables.sinusoid.rows.1.against", "nobody", r"row 'CML' names the run 'nobody'"),
        ("tables.sinusoid.experiment", "x", r"names the experiment 'x'; there are: s"),
        ("seeds", [1, 1], "distinct"),
        ("seeds", 0, "at least one"),
        ("study", "Bad Name", "study: "),
        ("seeds", 200_000, "seeds: .*at most 1,000 seeds"),
        ("seeds", list(range(1001)), "seeds: .*at most 1000 items"),
        ("seeds", -1, "at least one; got none"),
        (
            "experiments.s.steps",
            10**10,
            r"steps: .*less than or equal to 1000000000 \(got 10000000000\)",
        ),
        ("experiments.s.shots", [10**6], "shots.0: .*less than or equal to 100000"),
        ("device", "foo", "device: .*should match pattern"),
        (
            "acknowledged",
            ["sinusoit"],
            r"acknowledged: data set 'sinusoit'\. Did you mean 'sinusoid'",
        ),
        ("sources", {"omniglod": {}}, r"sources: data set 'omniglod'\. Did you mean 'omniglot'"),
        (
            "sources",
            {"omniglot": {"images.zip": {"path": "x", "sha256": "0" * 64}}},
            "file of omniglot 'images.zip'",
        ),
        (
            "tables.sinusoid.rows.1.reading",
            "co_pared",
            r"row 'CML': reading 'co_pared'\. Did you mean 'co_paired'",
        ),
        (
            "tables.sinusoid.rows.0.reading",
            "co",
            r"row 'MAML': reading 'co'\..* Known: meta, meta_last",
        ),
        ("experiments.s.network", "conv4", "conv4 takes images"),
        (
            "experiments.s.network_options",
            {"hidden": [400_000]},
            "hidden.0: .*less than or equal to 65536",
        ),
        ("experiments.s.network_options", {"hidden": [1] * 101}, "hidden: .*at most 100 items"),
        (
            "experiments.s.network_options",
            {"extra_blocks": 101},
            "extra_blocks: .*less than or equal to 100",
        ),
        (
            "experiments.s.methods.maml.options",
            {"inner_steps": 10**6},
            "maml: inner_steps can be at most 200, not",
        ),
        (
            "experiments.s.methods.maml+cml.options",
            {"cml": {"depth": 10**6}},
            "at most 100 hidden layers, not 1000000",
        ),
        (
            "tables.sinusoid.kind",
            "accuracy",
            "kind accuracy is for classification, and sinusoid is regression",
        ),
        (
            "tables.sinusoid.inner_steps",
            [1, 3],
            "'MAML' shows .* after 3 inner steps, .* evaluated after 1: add 3",
        ),
        (
            "experiments.s.methods.maml.options",
            {"inner_lr": float("nan")},
            "inner_lr: .*finite number",
        ),
    ],
)
def test_bad_configurations_are_refused_by_name(path, value, message):
    content = changed(path, value)
    if path == "experiments.s.methods":
        content["tables"] = {}
    with pytest.raises(UserError, match=message):
        resolve(parse(content, "test"), "test")


def test_impossible_episodes_are_refused_when_planning():
    content = changed("experiments.s.data", "glyphs")
    content["experiments"]["s"] |= {"network": "conv4", "way": 5, "shots": [12], "query": 5}
    with pytest.raises(
        UserError, match="12 support and 5 query images of one class are impossible"
    ):
        resolve(parse(content, "test"), "test")


def test_a_task_too_small_for_a_method_is_refused_when_planning():
    content = changed("experiments.s.data", "sbm")
    content["experiments"]["s"] |= {
        "network": "gcn",
        "way": 2,
        "shots": [1],
        "query": 5,
        "methods": {"amm_gnn": {}},
        "evaluation": {"tasks": 10, "query": 3},
    }
    content["tables"] = {}
    with pytest.raises(UserError, match=r"amm_gnn: a task of 8 nodes has no set of 10: raise shot"):
        resolve(parse(content, "test"), "test")


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(UserError, match=r"no configuration file .*nowhere\.yaml"):
        read(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"bad\.yaml is not readable as YAML"):
        read(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(UserError, match=r"list\.yaml: a configuration is a mapping"):
        read(tmp_path / "list.yaml")
