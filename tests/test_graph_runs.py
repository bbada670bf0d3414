"""G-Meta and AMM-GNN as runs: presets, early stopping, resuming, paths and stored models."""

from dataclasses import replace

import pytest
import torch

from cml_bench import registry
from cml_bench.data.episodes import Episodes
from cml_bench.engine import checkpoint
from cml_bench.engine.build import build_method
from cml_bench.engine.learner import load
from cml_bench.engine.run import run
from cml_bench.engine.train import Training
from cml_bench.errors import UserError
from cml_bench.networks.base import count
from cml_bench.networks.gcn import GCN
from cml_bench.spec import canonical
from cml_bench.study.protocols import protocol, recipe
from tests.helpers.cases import CPU
from tests.helpers.graphs import BOTH
from tests.helpers.specs import graph_spec


@pytest.fixture
def graph_settings(settings, tmp_path):
    source = registry.datasets.get("sbm")
    source(source.Options()).prepare(tmp_path / "data")
    return replace(settings, data_dir=tmp_path / "data")


@pytest.mark.parametrize(("name", "steps"), [("gmeta", 1000), ("amm_gnn", 500)])
def test_the_official_row_is_the_cml_papers_in_tlps_loop(name, steps):
    cls = registry.method(f"{name}+cml")
    own = recipe("official", cls.recipe)
    official = protocol("official", {}, "test", cls.recipe)
    assert own.steps == steps
    assert (official.meta_batch, official.outer_lr, official.weight_decay) == (1, 1e-3, 5e-4)
    assert (official.val_every, official.val_tasks) == (10, 20)
    assert (official.val_fresh, official.patience) == (True, 10)
    options = cls.Options.read(own.options, name)
    assert (options.inner_steps, options.inner_lr, options.dropout) == (20, 0.05, 0.5)
    clean = protocol("clean", {}, "test", cls.recipe)
    assert (clean.val_fresh, clean.val_tasks) == (False, 600)
    assert (clean.patience, clean.weight_decay) == (10, 5e-4)
    matched = protocol("matched", {}, "test", cls.recipe)
    assert canonical(matched).keys().isdisjoint({"patience", "weight_decay"}), "old ids stay"


@pytest.mark.parametrize(
    ("name", "steps", "outer", "inner"), [("gmeta", 1000, 5e-3, 0.05), ("amm_gnn", 500, 1e-2, 0.1)]
)
def test_the_preset_tlp_has_tlps_own_step_sizes(name, steps, outer, inner):
    """Everything else is as in the official row."""
    for method in (registry.method(name), registry.method(f"{name}+cml")):
        tlp, official = recipe("tlp", method.recipe, method.more_recipes), method.recipe
        assert tlp.steps == steps
        assert tlp.protocol == official.protocol | {"outer_lr": outer}
        assert method.Options.read(tlp.options, name).inner_lr == inner
    with pytest.raises(UserError, match="unknown protocol preset 'tlp'"):
        recipe("tlp", registry.method("maml").recipe, registry.method("maml").more_recipes)


def test_weight_decay_reaches_adam(graph_settings, tmp_path):
    training = Training(graph_spec(), graph_settings, tmp_path, print)
    assert [group["weight_decay"] for group in training.optimizer.param_groups] == [5e-4]


def test_training_stops_when_patience_is_over(graph_settings):
    record = run(
        graph_spec(steps=200, protocol_options={"val_every": 2, "patience": 3, "val_fresh": False}),
        graph_settings,
    )
    steps, scores = (
        record.content["curves"]["step"],
        record.content["curves"]["validation"]["score_meta"],
    )
    best = max(range(1, len(steps)), key=lambda i: (scores[i], -i))
    assert steps[-1] == steps[best] + 6 < 200
    assert record.content["selected"]["best_meta"] == steps[best]
    assert record.content["selected"]["last"] == steps[-1]


@pytest.mark.parametrize("name", ["gmeta+cml", "amm_gnn+cml"])
def test_a_resumed_run_equals_its_uninterrupted_twin(name, graph_settings, tmp_path):
    wanted = graph_spec(name, steps=24)
    folder = graph_settings.results / "runs" / wanted.folder
    folder.mkdir(parents=True)
    training = Training(wanted, graph_settings, folder, lambda text: None)

    def stop():
        raise KeyboardInterrupt

    advance = training.advance
    training.advance = lambda: stop() if training.step == 13 else advance()
    with pytest.raises(KeyboardInterrupt):
        training.run()
    training._save()
    assert checkpoint.load(folder)["step"] == 13
    resumed = run(wanted, graph_settings)
    twin = run(wanted, replace(graph_settings, results=tmp_path / "twin"))
    assert resumed.content["curves"] == twin.content["curves"]
    assert resumed.content["results"] == twin.content["results"]
    readings = {key.split("@")[0] for key in resumed.content["results"]}
    assert {"meta", "co", "co_paired", "co_unpaired", "co_eq9", "meta_last"} <= readings


def test_the_compiled_path_is_refused_and_never_chosen(graph_settings, tmp_path):
    with pytest.raises(UserError, match="gcn cannot be compiled"):
        Training(graph_spec(), replace(graph_settings, path="compiled"), tmp_path, print)
    assert (
        Training(
            graph_spec(steps=100_000), replace(graph_settings, path="auto"), tmp_path, print
        ).path
        == "fast"
    )


@pytest.mark.parametrize(("path", "calls"), [("auto", True), ("fast", True), ("plain", False)])
def test_gradients_written_out_are_those_of_real_runs(
    path, calls, graph_settings, tmp_path, monkeypatch
):
    """Written-out gradients are used by default too: a study asks for no path."""
    made, original = [], GCN.gradients
    monkeypatch.setattr(
        GCN,
        "gradients",
        lambda self, *args, **kwargs: made.append(1) or original(self, *args, **kwargs),
    )
    Training(graph_spec(), replace(graph_settings, path=path), tmp_path, print).advance()
    assert bool(made) == calls


def test_the_training_seed_reaches_the_method(graph_settings):
    source = registry.datasets.get("sbm")
    assert build_method(graph_spec(seed=5), source(source.Options())).seed == 5
    assert (
        count(build_method(graph_spec("amm_gnn"), source(source.Options())).params)
        == 64 * 16 + 16 + 272 + 34 + 22
    )


@pytest.mark.parametrize("name", BOTH)
def test_a_stored_run_adapts_to_nodes_and_predicts(name, graph_settings):
    """Nodes are given by number. AMM-GNN also gets the queries: it looks at them to adapt."""
    record = run(graph_spec(name, steps=4), graph_settings)
    learner = load(record.folder, data_dir=graph_settings.data_dir)
    data = registry.datasets.get("sbm")(
        registry.datasets.get("sbm").Options.read({"split": "r0"}, "sbm")
    )
    task = Episodes(data.open(graph_settings.data_dir, CPU, torch.float32), "test", 2, 2, 10).batch(
        3, 1
    )
    (x, y), (queries, labels) = task.support, task.query
    adapted = learner.adapt(x[0], y[0], x_query=queries[0])
    for head in learner.method.heads:
        assert (adapted.predict(queries[0], head) == labels[0]).sum() == record.arrays[f"{head}@3"][
            3
        ]
    with pytest.raises(UserError, match=r"inputs of shape \(n\), not \(4, 7\)"):
        learner.adapt(torch.zeros(4, 7), y[0])
    if name.startswith("amm_gnn"):
        with pytest.raises(UserError, match="give `x_query` to `adapt`"):
            learner.adapt(x[0], y[0])
    assert list(learner.method.activations(adapted.groups, adapted.params, queries)) == ["features"]
