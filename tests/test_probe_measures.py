"""What figures 3 and 4 measure in one small model, and how measured arrays are drawn."""

import numpy as np
import pytest
import torch

from cml_bench import registry
from cml_bench.engine.diagnostics import diagnose
from cml_bench.engine.step import expand
from cml_bench.figures import probes
from cml_bench.figures.kinds.cosine import CosineFigure
from cml_bench.figures.kinds.gradients import GradientsFigure
from tests.helpers.cases import Case, images, random

NAMED = {"experiment": "e", "title": "T", "runs": [{"label": "a", "run": "a"}]}


@pytest.mark.parametrize("at", ["adapted", "initial"])
@pytest.mark.parametrize("loss", ["outer", "head"])
def test_gradient_norms_are_those_of_the_plain_loop(at, loss):
    """The reference takes one task at a time in float64."""
    from tests.helpers import reference

    case, task = Case(gamma=0.7), images(way=3, shot=2)
    figure = GradientsFigure(kind="gradients", examples="query", at=at, loss=loss, **NAMED)
    wide = {
        group: {name: p.detach().requires_grad_() for name, p in params.items()}
        for group, params in expand(case.groups, len(task)).items()
    }
    path = list(case.method.trajectory(wide, task.support, 1))
    before, after = (
        {name: p.detach() for name, p in params.items()} for params in (path[0], path[-1])
    )
    met = probes.Met(task, wide, before, after)
    heads = ("meta",) if loss == "head" else ("meta", "co")
    norms = figure.norms(case.method, met, heads)
    assert list(norms) == ["conv1", "conv2", "conv3", "conv4"]
    for t in range(len(task)):
        part = task.part(t, t + 1)
        gamma = 0.7 if loss == "outer" else 0.0
        theta, phi = case.groups["base"], case.groups["co"]
        if at == "initial":
            _, grads = reference.meta_gradient(
                case.ref, theta, phi, part, case.kind, gamma, case.depth, **case.inner()
            )
            wanted = {name: grads["base", f"{name}.weight"] for name in norms}
        else:
            params = {name: p[t : t + 1].detach().requires_grad_() for name, p in after.items()}
            out = case.method.outputs(expand(case.groups, 1), params, part.query.x, ("meta", "co"))
            total = sum(
                w * case.method.criterion(out[h], part.query.y).sum()
                for h, w in (("meta", 1), ("co", gamma))
            )
            grads = torch.autograd.grad(total, [params[f"{name}.weight"] for name in norms])
            wanted = dict(zip(norms, grads, strict=True))
        for name, value in norms.items():
            assert value[t].item() == pytest.approx(wanted[name].norm().item(), rel=1e-9)


def test_two_heads_of_equal_weights_have_gradients_of_cosine_one():
    """BOIL's head does not adapt, so theta' = theta.

    A co-learner of depth 0 has the head's structure, and here its weights.
    """
    case, task = Case("boil+cml", depth=0), images(way=3, shot=2, tasks=1)
    with torch.no_grad():
        for name, value in case.groups["co"].items():
            value.copy_(case.groups["base"][name])
    equal = diagnose(case.method, case.groups, task)
    assert equal["cosine"].keys() >= {"conv1", "conv2", "conv3", "conv4"}
    assert [equal["cosine"][f"conv{i}"] for i in range(1, 5)] == pytest.approx([1.0] * 4, abs=1e-12)
    with torch.no_grad():
        case.groups["co"]["head.weight"].add_(random(*case.groups["co"]["head.weight"].shape))
    other = diagnose(case.method, case.groups, task)
    assert max(other["cosine"].values()) < 1 - 1e-6


@pytest.mark.parametrize("net", ["conv4", "mlp"])
@pytest.mark.parametrize("path", ["fast", "plain"])
def test_the_last_activation_is_the_features(net, path):
    case = Case("maml", net=net, path=path)
    x = images(way=3).support.x if net == "conv4" else random(3, 4, 1)
    params = expand(case.groups, 3)["base"]
    activations = case.method.activations({}, params, x)
    assert len(activations) == (4 if net == "conv4" else 2)
    *_, last = activations.values()
    assert torch.equal(last, case.method.features({}, params, x))
    assert all(value.shape[:2] == x.shape[:2] for value in activations.values())


def test_resnet12_and_graphs_have_activations():
    from cml_bench.networks.resnet12 import ResNet12, ResNet12Options

    network = ResNet12(ResNet12Options(filters=2), (3, 32, 32), 5)
    params = expand(
        {"base": {n: torch.ones(p.shape, dtype=torch.float64) for n, p in network.params.items()}},
        1,
    )["base"]
    x = random(1, 4, 3, 32, 32)
    activations = network.activations(params, x)
    assert [value.shape[2] for value in activations.values()] == [2, 4, 8, 16]
    assert torch.equal(activations["block4"], network.features(params, x))


@pytest.mark.parametrize(
    ("network", "options", "shape", "last"),
    [
        ("conv4", {"head_blocks": 2}, (1, 16, 16), "conv4"),
        ("conv4", {"extra_blocks": 3}, (1, 16, 16), "conv7"),
        ("resnet12", {"filters": 2}, (3, 32, 32), "conv4c"),
        ("resnet12", {"filters": 2, "last_skip": False}, (3, 32, 32), "conv4c"),
        ("mlp", {}, (1,), "hidden2"),
        ("gcn", {}, (7,), "gcn2"),
    ],
)
def test_the_last_layer_of_psi_is_below_the_heads_and_no_shortcut(network, options, shape, last):
    net = registry.networks.get(network)
    layers = net(net.Options.read(options, network), shape, 5).layers
    assert layers[-1] == last
    assert not [name for name in layers if name.startswith(("head", "norm"))]


def test_a_line_is_drawn_at_the_steps_of_its_own_method():
    """One method is validated every 100 steps, one every 500: both lines stay whole."""
    steps = np.arange(0, 1001, 100)
    values = np.random.default_rng(0).random((2, 3, 11))
    values[1][:, steps % 500 != 0] = np.nan
    arrays = {
        "shots": np.array([5]),
        "labels": np.array(["a", "b"]),
        "layer": np.array("conv4"),
        "steps/5": steps,
        "cosine/5": values,
    }
    figure = CosineFigure(kind="cosine", smooth=2, **NAMED).drawn(arrays, [0, 1])
    first, second = figure.axes[0].get_lines()[:2]
    assert first.get_xdata().tolist() == steps.tolist()
    assert second.get_xdata().tolist() == [0, 500, 1000]
    wanted = values[1][:, [0, 5, 10]]
    assert second.get_ydata()[1] == pytest.approx(wanted[:, :2].mean())


def test_bars_of_one_seed_have_no_whisker():
    def drawn(seeds: int):
        values = np.random.default_rng(0).random((1, seeds, 2))
        arrays = {
            "shots": np.array([5]),
            "labels": np.array(["a"]),
            "layers": np.array(["x", "y"]),
            "norms/5": values,
        }
        (axis,) = GradientsFigure(kind="gradients", **NAMED).drawn(arrays, [0]).axes
        return [bars.errorbar for bars in axis.containers if hasattr(bars, "errorbar")]

    assert drawn(1) == [None]
    assert drawn(3) != [None]
