"""Mistakes of a user: one paragraph names the mistake, before anything is trained or written.

The exit code is 2.
"""

import json
from pathlib import Path

import pytest
import yaml

from cml_bench import registry
from cml_bench.engine.build import Settings
from cml_bench.engine.run import run
from cml_bench.errors import UserError
from cml_bench.networks import _template, base
from cml_bench.spec import RunSpec, canonical
from cml_bench.study import checks
from cml_bench.study.config import FOLDERS, TARGETS, parse
from cml_bench.study.resolve import resolve
from tests.helpers.cases import said
from tests.helpers.specs import glyph_spec, sinusoid_spec
from tests.helpers.studies import changed, study

ROOT = Path(__file__).parent.parent
CURVES = {
    "kind": "curves",
    "experiment": "s",
    "title": "F",
    "runs": [{"label": "CML", "run": "maml+cml"}],
}


def refused(content: dict, message: str) -> None:
    """Check that planning ends with this error, in one paragraph."""
    with pytest.raises(UserError, match=message) as caught:
        resolve(parse(content, "my.yaml"), "my.yaml")
    assert "my.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


# -- networks and data that do not fit


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (
            "mlp",
            (1, 28, 28),
            (
                r"mlp takes vectors \(d,\), and the data set gives inputs of shape \(1, 28, 28\):"
                r" choose"
            ),
        ),
        (
            "conv4",
            (1,),
            (
                r"conv4 takes images \(C, H, W\), and the data set gives inputs of shape \(1,\):"
                r" choose"
            ),
        ),
        ("conv4", (3, 84, 15), "conv4 needs images of at least 16x16, not 84x15: raise"),
        ("template", (7,), r"template takes images .* shape \(7,\)"),
        ("template", (1, 1, 9), "template needs images of at least 2x2, not 1x9"),
    ],
)
def test_a_network_refuses_inputs_of_another_shape(network, shape, message):
    cls = _template.Template if network == "template" else registry.networks.get(network)
    with pytest.raises(UserError, match=message):
        cls(cls.Options(), shape, 5)


@pytest.mark.parametrize(
    ("network", "data", "way"),
    [("mlp", "glyphs", 5), ("mlp", "omniglot", 5), ("conv4", "sinusoid", 1)],
)
def test_plan_describe_and_train_refuse_a_network_that_does_not_fit(
    network, data, way, capsys, tmp_path
):
    message = f"{network} takes "
    task = f"--method maml --network {network} --data {data} --way {way} --shot 1"
    assert message in said(capsys, "describe", *task.split())
    content = changed("experiments.s.data", data) | {"tables": {}}
    content["experiments"]["s"] |= {"network": network, "way": way, "shots": [1]}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(content))
    assert message in said(capsys, "plan", "--config", str(tmp_path / "my.yaml"))
    spec = canonical(sinusoid_spec() if data == "sinusoid" else glyph_spec())
    cls = registry.datasets.get(data)
    own = {
        "network": {"name": network},
        "data": {"name": data},
        "data_id": cls(cls.Options()).data_id,
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec | own))
    assert message in said(
        capsys, "train", str(tmp_path / "spec.json"), "--results", str(tmp_path / "results")
    )
    assert not list(tmp_path.glob("results/runs/*/run.log"))


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (
            "mlp",
            {"hidden": [65_536, 65_536]},
            "network mlp would have 4,295,229,441 parameters; at most 100,000,000",
        ),
        ("conv4", {"filters": 4096}, "network conv4 would have .* parameters; .* Lower its widths"),
    ],
)
def test_a_network_that_no_memory_holds_is_refused(network, options, message):
    cls = registry.networks.get(network)
    net = cls(cls.Options.read(options, network), (1,) if network == "mlp" else (1, 28, 28), 1)
    with pytest.raises(UserError, match=message):
        base.initialise(net.params, f"network {network}", 0)


@pytest.mark.parametrize("network", ["mlp", "conv4", "template"])
def test_a_co_learner_has_a_largest_depth(network):
    cls = _template.Template if network == "template" else registry.networks.get(network)
    net = cls(cls.Options(), (1,) if network == "mlp" else (1, 28, 28), 5)
    with pytest.raises(UserError, match="at most 100 hidden layers, not 1000000"):
        net.colearner(10**6)


@pytest.mark.parametrize(
    ("flag", "what"), [("--way", "way"), ("--shot", "shot"), ("--query", "query")]
)
@pytest.mark.parametrize(
    ("network", "data", "way"), [("mlp", "sinusoid", "1"), ("conv4", "glyphs", "5")]
)
def test_episodes_of_nothing_are_refused(network, data, way, flag, what, capsys):
    task = f"--method maml --network {network} --data {data} --way {way} --shot 1 {flag} 0"
    shown = said(capsys, "describe", *task.split())
    assert f"{data}: {what} must be a number from 1 on, not 0" in shown


@pytest.mark.parametrize(
    ("network", "data"), [("conv4", "glyphs"), ("conv4", "omniglot"), ("gcn", "sbm")]
)
def test_classification_with_one_way_is_refused(network, data, capsys, tmp_path):
    message = f"{data}: way must be a number from 2 on, not 1: of one class every answer is right"
    given = ["--method", "maml", "--network", network, "--data", data, "--way", "1", "--shot", "1"]
    assert message in said(capsys, "describe", *given)
    content = changed("experiments.s.data", data) | {"tables": {}}
    content["experiments"]["s"] |= {"network": network, "way": 1, "shots": [1]}
    refused(content, message)
    cls = registry.datasets.get(data)
    own = {
        "network": {"name": network},
        "data": {"name": data},
        "data_id": cls(cls.Options()).data_id,
        "way": 1,
    }
    (tmp_path / "spec.json").write_text(json.dumps(canonical(glyph_spec()) | own))
    told = said(
        capsys, "train", str(tmp_path / "spec.json"), "--results", str(tmp_path / "results")
    )
    assert f"spec.json: {message}" in told
    assert not (tmp_path / "results").exists()


# -- names

BAD_NAMES = ["../x", "../../../evil", "a/b", "A", "a b", "", "a\n", "é", ".", "x-y"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_become_folders_hold_no_paths(name):
    spec = canonical(sinusoid_spec())
    for change in ({"method": name}, {"data": {"name": name}}, {"network": {"name": name}}):
        with pytest.raises(UserError, match="should match pattern"):
            RunSpec.read({**spec, **change}, "spec")
    tables = study()["tables"]["sinusoid"]
    refused(study(tables={name: tables}), "should match pattern")
    refused(study(figures={name: CURVES}), "should match pattern")
    refused(study(study=name), "study: .*should match pattern")
    refused(
        study(tables={}, experiments={name: study()["experiments"]["s"]}), "should match pattern"
    )
    refused(changed("experiments.s.methods", {name: {"method": "maml"}}), "should match pattern")


def test_only_methods_have_a_plus_in_their_name():
    table = study()["tables"]["sinusoid"]
    refused(study(tables={"a+b": table}), "should match pattern")
    content = changed(
        "experiments.s.methods", {"maml": {}, "maml+cml": {}, "slow+cml": {"method": "maml+cml"}}
    )
    assert len(resolve(parse(content, "my.yaml"), "my.yaml").members["s"]) == 3


@pytest.mark.parametrize("name", TARGETS)
def test_tables_and_figures_are_not_called_like_a_rule(name):
    table = study()["tables"]["sinusoid"]
    refused(study(tables={name: table}), f"cannot be called '{name}', the name is taken")
    refused(study(figures={name: CURVES}), f"cannot be called '{name}', the name is taken")


def test_a_table_and_a_figure_are_not_called_alike():
    refused(study(figures={"sinusoid": CURVES}), "cannot be called 'sinusoid', the name is taken")


def test_the_taken_names_are_all_the_rules_of_the_workflow():
    rules = [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
    lines = [line for path in rules for line in path.read_text().splitlines()]
    assert {line[5:-1] for line in lines if line.startswith("rule ") and line.endswith(":")} == set(
        TARGETS
    )


@pytest.mark.parametrize("name", FOLDERS)
def test_a_study_is_not_called_like_a_folder_of_the_results(name):
    refused(study(study=name), f"a study cannot be called '{name}', the folder is taken")


# -- what is seen only after training, unless it is looked for


def test_figures_ask_for_what_will_be_there():
    rows = {"label": "CML", "run": "maml+cml"}
    refused(
        study(figures={"f": {**CURVES, "runs": [{**rows, "reading": "mta"}]}}),
        "f, row 'CML': reading 'mta'",
    )
    refused(
        study(figures={"f": {**CURVES, "runs": [{**rows, "reading": "meta_last"}]}}),
        "Known: co, meta",
    )
    refused(
        study(figures={"f": {**CURVES, "runs": [{**rows, "run": "maml", "reading": "co"}]}}),
        "Known: meta",
    )
    refused(
        study(figures={"f": {**CURVES, "seed": 7}}), "no run has the figure's seed 7, only 0, 1"
    )
    refused(
        study(figures={"f": {**CURVES, "tasks": [-1]}}), "tasks.0: .*greater than or equal to 0"
    )
    images = changed("experiments.s.data", "glyphs") | {"tables": {}, "figures": {"f": CURVES}}
    images["experiments"]["s"] |= {
        "network": "conv4",
        "way": 5,
        "query": 5,
        "shots": [1],
        "evaluation": {"query": 5},
    }
    refused(images, "adapted curves are drawn for sets such as sinusoid, not for glyphs")


ENSEMBLE = {"protocol_options": {"ensemble_top_k": 2, "val_every": 5}}


@pytest.mark.parametrize(
    "spec",
    [
        sinusoid_spec(),
        sinusoid_spec("maml+cml"),
        sinusoid_spec(**ENSEMBLE),
        sinusoid_spec("maml+cml", **ENSEMBLE),
        sinusoid_spec("cl"),
        sinusoid_spec("cl", **ENSEMBLE),
        sinusoid_spec("boil+cml"),
    ],
    ids=lambda spec: f"{spec.method}-{spec.protocol.ensemble_top_k}",
)
def test_the_readings_known_when_planning_are_those_of_the_run(spec, tmp_path):
    record = run(spec, Settings(results=tmp_path, report=lambda text: None))
    assert sorted({key.split("@")[0] for key in record.arrays}) == sorted(checks.readings(spec))


def test_a_method_that_learns_nothing_has_one_reading():
    assert checks.readings(glyph_spec().model_copy(update={"method": "pixel_nn"})) == ["meta"]
