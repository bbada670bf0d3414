"""Ten training and three test episodes of TLP's G-Meta and AMM-GNN: equal here in float64."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from cml_bench import registry
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.evaluate import Asked, score_all
from cml_bench.engine.step import MetaStep, adam, expand
from cml_bench.networks.gcn import GCN, GCNOptions
from tests.helpers.graphs import METHODS, Piece

FOLDER = Path(__file__).parent / "fixtures"
NAMES = {"gc1": "gcn1", "gc2": "gcn2", "head": "head", "mlp_alpha": "alpha", "mlp_beta": "beta"}


@cache
def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def named(name: str, part: str) -> dict[str, torch.Tensor]:
    """The fixture's array of each parameter, by the parameter's name here."""
    values = {}
    for key, value in stored(name).items():
        if key.startswith(part):
            layer, kind = key.removeprefix(part).rsplit("_", 1)
            values[f"{NAMES[layer]}.{'weight' if kind == 'w' else 'bias'}"] = torch.from_numpy(
                value
            )
    return values


def load(name: str, part: str) -> dict[str, torch.Tensor]:
    """The fixture's parameters.

    The head's weight is (outputs, inputs); the maps to alpha and beta are flat.
    """
    shaped = {"head.weight": lambda v: v.T.contiguous()}
    shaped |= {f"{m}.weight": lambda v: v.reshape(-1) for m in ("alpha", "beta")}
    shaped |= {f"{m}.bias": lambda v: v.reshape(()) for m in ("alpha", "beta")}
    return {key: shaped.get(key, lambda v: v)(value) for key, value in named(name, part).items()}


def episodes(name: str, part: str) -> list[Task]:
    a = stored(name)
    drawn = []
    for support, query in zip(a[f"{part}support"], a[f"{part}query"], strict=True):
        examples = [
            Examples(
                torch.from_numpy(x)[None], torch.arange(2).repeat_interleave(len(x) // 2)[None]
            )
            for x in (support, query)
        ]
        drawn.append(Task(*examples))
    return drawn


def build(name: str, path: str, initial: dict):
    a, cls = stored(name), registry.method(name)
    data = Piece(a["edge_index"], a["features"].astype(np.float64), a["labels"])
    network = GCN(GCNOptions.read(cls.network_defaults, "gcn"), data.input_shape, 2, path)
    network.bind(data)
    options = {"inner_steps": 5, "inner_lr": 0.05, "dropout": 0.0}
    method = cls(cls.Options.read(options, name), network, "classification")
    base = {k: v.clone().requires_grad_() for k, v in initial.items()}
    assert {k: tuple(v.shape) for k, v in base.items()} == {
        k: p.shape for k, p in method.params.items()
    }
    return method, {"base": base}


def with_sets(method, name: str, part: str):
    """The method, with the fixture's sets of the nodes of each task."""
    a = stored(name)
    if f"{part}set1" in a:
        nodes = np.concatenate((a[f"{part}support"], a[f"{part}query"]), 1)
        known = {
            tuple(n): np.stack(s)
            for n, *s in zip(nodes, a[f"{part}set1"], a[f"{part}set2"], strict=True)
        }
        method.sets = lambda nodes: known[tuple(nodes)]
    return method


def close(got: torch.Tensor, want: torch.Tensor) -> bool:
    return bool((got.detach() - want).abs().max() <= 1e-10)


def followed(
    method, groups, task: Task, want: dict[str, np.ndarray], part: str
) -> dict[str, torch.Tensor]:
    """The adapted parameters of an episode, whose losses, logits and cosines are checked."""
    wide = method.meet(expand(groups, 1), task)
    for inner, params in enumerate(method.trajectory(wide, task.support, 5)):
        if inner < 5:
            loss = method.support_loss(wide, params, task.support, "meta")
            assert abs(loss.item() - want[f"{part}support_loss"][inner]) < 1e-10
    outputs = method.outputs(wide, params, task.query.x, ("meta",))["meta"][0]
    assert close(outputs, torch.from_numpy(want[f"{part}logits"]))
    loss, _ = method.outer_loss(expand(groups, 1), task)
    assert abs(loss.item() - want[f"{part}outer_loss"]) < 1e-10
    if f"{part}cos" in want:
        met = (wide["task"][name][0] for name in ("alpha", "beta"))
        cosines = torch.stack([torch.cosine_similarity(*pair, dim=0) for pair in met])
        assert close(cosines, torch.from_numpy(want[f"{part}cos"]))
    return params


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", METHODS)
def test_ten_episodes_of_tlps_code(name, path):
    method, groups = build(name, path, load(name, "init/"))
    method, a = with_sets(method, name, "ep/"), stored(name)
    step = MetaStep(method, groups, adam(groups, 1e-3, weight_decay=5e-4), 1)
    norms = named(name, "gradnorm/")
    for number, task in enumerate(episodes(name, "ep/")):
        params = followed(
            method, groups, task, {k: v[number] for k, v in a.items() if k.startswith("ep/")}, "ep/"
        )
        step.gradients(task)
        assert all(close(groups["base"][key].grad.norm(), of[number]) for key, of in norms.items())
        if number == 0:
            assert all(close(params[key][0], want) for key, want in load(name, "adapted1/").items())
            assert all(
                close(groups["base"][key].grad, want) for key, want in load(name, "grad1/").items()
            )
        scores = step(task)
        assert abs(scores.loss["meta"].item() - a["ep/query_ce"][number]) < 1e-10
        assert scores.score["meta"].item() == pytest.approx(a["ep/acc"][number], abs=1e-12)
    assert all(close(groups["base"][key], want) for key, want in load(name, "final/").items())


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", METHODS)
def test_three_test_episodes_with_ten_queries(name, path):
    method, groups = build(name, path, load(name, "final/"))
    method, a = with_sets(method, name, "test/"), stored(name)
    for number, task in enumerate(episodes(name, "test/")):
        followed(
            method,
            groups,
            task,
            {k: v[number] for k, v in a.items() if k.startswith("test/")},
            "test/",
        )
        result = score_all(method, [Asked([groups], ("meta",))], task, (5,))[0]["meta", 5]
        assert abs(result.loss.item() - a["test/query_ce"][number]) < 1e-10
        assert result.score.item() == pytest.approx(a["test/acc"][number], abs=1e-12)


def test_the_pieces_subgraphs_are_tlps():
    a = stored("gmeta")
    method, _ = build("gmeta", "fast", load("gmeta", "init/"))
    for part in ("ep/support", "ep/query", "test/support", "test/query"):
        for nodes, sizes in zip(a[part], a[f"{part}_nodes"], strict=True):
            assert [
                len(method.network.graph.subgraph(int(n)).nodes) for n in nodes
            ] == sizes.tolist()
