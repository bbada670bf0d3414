"""What makes CML CML, in float64; also sizes, diagnostics, evaluation and golden traces."""

import json

import pytest
import torch

from cml_bench import registry
from cml_bench.data.episodes import Episodes, Examples, Task
from cml_bench.engine.diagnostics import diagnose, head_gradients
from cml_bench.engine.evaluate import Asked, evaluate_all, score_all
from cml_bench.engine.step import expand, leaves
from cml_bench.networks.base import count
from cml_bench.networks.conv4 import Conv4, Conv4Options
from cml_bench.networks.mlp import MLP, MLPOptions
from tests.helpers import reference
from tests.helpers.cases import CPU, Case, images, relative, waves
from tests.make_traces import FOLDER, trace

# -- the co-learner


@pytest.mark.parametrize(("net", "path"), [("conv4", "plain"), ("conv4", "fast"), ("mlp", "fast")])
def test_gamma_zero_leaves_the_baselines_trajectory_bit_for_bit(net, path):
    """In float32, as runs are trained."""
    runs = []
    for name in ("maml", "maml+cml"):
        case = Case(name, net, path, gamma=0.0)
        case.groups = leaves(case.method.init(5), CPU, torch.float32)
        start = {n: p.detach().clone() for n, p in case.groups.get("co", {}).items()}
        step = case.step()
        for number in range(10):
            task = images(name=f"s{number}") if net == "conv4" else waves(name=f"s{number}")
            step(
                Task(*(Examples(e.x.float(), e.y if net == "conv4" else e.y.float()) for e in task))
            )
        assert all(torch.equal(case.groups["co"][n], v) for n, v in start.items()), (
            "no gradient, no move"
        )
        runs.append(case.groups["base"])
    assert all(torch.equal(runs[0][n], runs[1][n]) for n in runs[0])


def test_the_meta_gradient_is_affine_in_gamma():
    grads = [Case(gamma=g).engine_gradient(images())[1] for g in (0.0, 0.5, 1.0)]
    middle = {key: (grads[0][key] + grads[2][key]) / 2 for key in grads[0]}
    assert relative(grads[1], {k: v for k, v in middle.items() if float(v.abs().max()) > 0}) < 1e-10


@pytest.mark.parametrize("first_order", [True, False])
def test_the_co_loss_reaches_theta_in_second_order_only(first_order):
    case, task = Case(first_order=first_order), images()
    grads = head_gradients(case.method, case.groups, task)["co"]
    size = max(float(grads[n].abs().max()) for n in case.network.head_names)
    assert size == 0 if first_order else size > 1e-4


def test_the_co_learner_neither_adapts_nor_meets_the_support_set():
    case, task = Case(), images()
    wide = expand(case.groups, 3)
    *_, adapted = case.method.trajectory(wide, task.support, 1)
    assert set(adapted) == set(case.network.params)
    with torch.no_grad():
        for value in case.groups["co"].values():
            value += 1.0
    *_, again = case.method.trajectory(expand(case.groups, 3), task.support, 1)
    assert all(torch.equal(adapted[n], again[n]) for n in adapted), (
        "phi has no part in the inner loop"
    )


def test_deleting_phi_leaves_the_predictions():
    case, task = Case(), images()
    whole = score_all(case.method, [Asked([case.groups], ("meta",))], task, (1,))[0]
    alone = score_all(case.method, [Asked([{"base": case.groups["base"]}], ("meta",))], task, (1,))[
        0
    ]
    assert torch.equal(whole["meta", 1].loss, alone["meta", 1].loss)


def test_phis_gradient_does_not_depend_on_theta_given_the_adapted_body():
    case, task = Case(inner_lr=0.0), images()
    _, before = case.engine_gradient(task)
    with torch.no_grad():
        case.groups["base"]["head.weight"] += 1.0
    _, after = case.engine_gradient(task)
    assert all(torch.equal(before[k], after[k]) for k in before if k[0] == "co")
    assert not torch.equal(before["base", "conv4.weight"], after["base", "conv4.weight"])


def test_equation_nine_adapts_psi_alone_by_the_co_learners_loss():
    case, task = Case(), images()
    wide = expand(case.groups, 3)
    *_, adapted = case.method.trajectory(wide, task.support, 1, loss="co")
    theta = case.groups["base"]
    loss = case.method.criterion(
        case.method.outputs(wide, wide["base"], task.support.x, ("co",))["co"], task.support.y
    )
    grad = torch.autograd.grad(loss.sum(), wide["base"]["conv1.weight"])[0]
    assert torch.allclose(adapted["conv1.weight"], theta["conv1.weight"] - 0.4 * grad, atol=1e-12)
    for name in case.network.head_names:
        assert torch.equal(adapted[name][0], theta[name])


# -- sizes, diagnostics, evaluation


@pytest.mark.parametrize(
    ("shape", "base", "co"),
    [
        ((3, 84, 84), 121_093, 82_117),
        ((3, 32, 32), 114_373, 75_397),
        ((1, 28, 28), 112_261, 74_437),
    ],
)
def test_parameter_counts_are_the_papers(shape, base, co):
    network = Conv4(Conv4Options(), shape, 5)
    assert count(network.params) == base
    assert count(network.colearner(2).params) == co
    if shape[1] == 84:
        assert base + co == 203_210
        assert base + co - sum(network.params[n].size for n in network.head_names) == 195_205
        depths = [count(network.colearner(k).params) for k in range(5)]
        assert depths == [8_005, 45_061, 82_117, 119_173, 156_229]


def test_parameter_counts_of_the_sinusoid_network():
    network = MLP(MLPOptions(), (1,), 1)
    assert count(network.params) == 1_761
    assert count(network.colearner(network.colearner_depth).params) == 1_681


def test_initial_values_have_torchs_distribution():
    network = Conv4(Conv4Options(), (3, 84, 84), 5)
    network.name = "conv4"
    cls = registry.method("maml")
    params = cls(cls.Options(), network, "classification").init(0)["base"]
    for name, fan_in in (("conv1.weight", 27), ("conv3.weight", 576), ("head.weight", 1600)):
        bound = fan_in**-0.5
        assert params[name].abs().max() <= bound
        assert abs(params[name].std() / (bound / 3**0.5) - 1) < 0.05
        assert abs(params[name].mean()) < 4 * bound / params[name].numel() ** 0.5
    assert torch.equal(params["norm2.weight"], torch.ones(64))


def test_diagnostics_are_the_heads_own_gradients():
    case, task = Case(gamma=0.3), images(tasks=1)
    diagnostics = diagnose(case.method, case.groups, task)
    grads = {}
    for head, gamma in (("meta", 0.0), ("both", 1.0)):
        _, g = reference.meta_gradient(
            case.ref,
            case.groups["base"],
            case.groups["co"],
            task,
            case.kind,
            gamma,
            case.depth,
            **case.inner(),
        )
        grads[head] = g
    for layer in ("conv1", "conv4", "head"):
        meta = grads["meta"]["base", f"{layer}.weight"]
        co = grads["both"]["base", f"{layer}.weight"] - meta
        assert diagnostics["norm_meta"][layer] == pytest.approx(float(meta.norm()), rel=1e-9)
        assert diagnostics["norm_co"][layer] == pytest.approx(float(co.norm()), rel=1e-9)
        cosine = float((meta * co).sum() / meta.norm() / co.norm())
        assert diagnostics["cosine"][layer] == pytest.approx(cosine, rel=1e-8)
    assert all(p.grad is None for params in case.groups.values() for p in params.values())


def test_equal_heads_have_cosine_one():
    case = Case(depth=0)
    with torch.no_grad():
        for name in ("head.weight", "head.bias"):
            case.groups["co"][name].copy_(case.groups["base"][name])
    # with alpha = 0 the meta head does not adapt, as the co-learner does not
    case.options = case.method.options = case.options.model_copy(update={"inner_lr": 0.0})
    diagnostics = diagnose(case.method, case.groups, images(tasks=1))
    assert diagnostics["cosine"]["conv2"] == pytest.approx(1, abs=1e-12)


class Fixed(Episodes):
    """Episodes that are always the same batch."""

    def __init__(self, task: Task):
        self.task = task  # and nothing of a data set

    def batch(self, first: int, count: int) -> Task:
        return self.task.part(first, first + count)


@pytest.mark.parametrize("net", ["conv4", "mlp"])
def test_evaluation_is_the_obvious_loop_for_any_number_of_tasks_at_once(net):
    case = Case(net=net)
    task = images(tasks=5) if net == "conv4" else waves(tasks=5)
    asked = [Asked([case.groups], case.method.heads)]
    results = [
        evaluate_all(case.method, asked, Fixed(task), 5, steps=(0, 1, 3), tasks_at_once=n)[0]
        for n in (1, 2, 5)
    ]
    for steps in (0, 1, 3):
        inner = {**case.inner(), "steps": steps}
        base, co = ({n: p for n, p in case.groups[g].items()} for g in ("base", "co"))
        meta_loss, co_loss = reference.outer_losses(
            case.ref, base, co, task, case.kind, 1.0, case.depth, **inner
        )
        for head, want in (("meta", meta_loss), ("co", co_loss)):
            for result in results:
                assert torch.allclose(
                    result[head, steps].loss, torch.stack(want).detach(), atol=1e-10
                )


# -- golden traces


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("name", [n for n in registry.method_names() if registry.method(n).learns])
def test_golden_trace(name, path):
    """Ten meta-steps give the losses of the day when the method was added.

    `make traces` writes the traces of new methods.
    """
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    for problem, losses in trace(name, path).items():
        for head, values in losses.items():
            assert values == pytest.approx(stored[problem][head], rel=1e-8), (problem, head)
