"""MAML++: each switch, its schedules, and its ensemble. float64 unless a test says otherwise."""

import itertools

import pytest
import torch

from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.evaluate import Asked, score_all
from cml_bench.engine.step import expand, leaves
from cml_bench.engine.train import annealed
from cml_bench.methods.mamlpp import loss_weights
from cml_bench.study.protocols import protocol
from tests.helpers.cases import CPU, Case, images, relative

OFF = {"learn_inner_lr": False, "per_step_norm": False, "msl_epochs": 0}


def test_all_switches_off_is_maml_bit_for_bit():
    """In float32, over five Adam steps."""
    ends = []
    for name, options in (("mamlpp", OFF), ("maml", {"adapt_norm": False})):
        case = Case(name, inner_steps=3, **options)
        case.groups = leaves(case.method.init(1), CPU, torch.float32)
        step = case.step()
        for number in range(5):
            task = images(name=f"s{number}")
            step(Task(*(Examples(e.x.float(), e.y) for e in task)))
        ends.append(case.groups["base"])
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


@pytest.mark.parametrize(
    ("epoch", "weights"),
    [
        (0, [0.2] * 5),
        (7, [0.10667] * 4 + [0.57333]),
        (14, [0.01333] * 4 + [0.94667]),
        (15, [0] * 4 + [1]),
    ],
)
def test_weights_of_the_query_losses(epoch, weights):
    assert loss_weights(5, epoch, 15) == pytest.approx(weights, abs=1e-5)


def test_weights_sum_to_one_in_every_epoch():
    for steps in (1, 2, 5, 10):
        for epoch in range(40):
            assert sum(loss_weights(steps, epoch, 30)) == pytest.approx(1, abs=1e-12)


def test_with_one_inner_step_the_multi_step_loss_is_no_other():
    task = images()
    on, off = (
        Case("mamlpp", inner_steps=1, msl_epochs=e).engine_gradient(task)[1] for e in (15, 0)
    )
    assert relative(on, off) < 1e-14


def test_in_epoch_zero_the_loss_is_the_mean_over_inner_steps():
    case, task = Case("mamlpp", inner_steps=3), images()
    losses = score_all(case.method, [Asked([case.groups], ("meta",))], task, (1, 2, 3))[0]
    want = sum(losses["meta", k].loss for k in (1, 2, 3)) / 3
    assert torch.allclose(
        case.method.outer_loss(expand(case.groups, 3), task)[0].detach(), want, atol=1e-12
    )


@pytest.mark.parametrize("first_order", [True, False])
def test_the_gradient_of_a_learned_step_size(first_order):
    """It is -<grad L at w_K, g_j>: exact for the last step, and for all steps in first order.

    The spare step size gets no gradient.
    """
    case, task = (
        Case("mamlpp", inner_steps=3, msl_epochs=0, first_order=first_order),
        images(tasks=1),
    )
    got = case.engine_gradient(task)[1]
    wide = expand(case.groups, 1)
    path = [
        dict(p) for p in case.method.trajectory(wide, task.support, 3, create_graph=not first_order)
    ]
    end = {n: path[3][n].detach().requires_grad_() for n in case.network.params}
    loss = case.method.criterion(
        case.method.outputs(wide, end, task.query.x, ("meta",))["meta"], task.query.y
    ).sum()
    outer = dict(
        zip(end, torch.autograd.grad(loss, list(end.values()), materialize_grads=True), strict=True)
    )
    for name in ("conv1.weight", "conv3.weight", "head.weight", "head.bias"):
        rates = got["base", f"{name}.inner_lr"]
        assert rates[3] == 0
        eta = case.groups["base"][f"{name}.inner_lr"].detach()
        for j in range(3) if first_order else (2,):
            g = (path[j][name] - path[j + 1][name]).detach() / eta[j]
            assert float(rates[j]) == pytest.approx(-float((outer[name] * g).sum()), rel=1e-8)


@pytest.mark.parametrize("first_order", [True, False])
def test_which_rows_of_batch_norm_move(first_order):
    case, task = Case("mamlpp", inner_steps=3, msl_epochs=0, first_order=first_order), images()
    grad = case.engine_gradient(task)[1]["base", "norm2.weight"]
    assert grad.shape == (3, 4)
    moves = [bool(row.abs().max() > 0) for row in grad]
    assert moves == ([False, False, True] if first_order else [True, True, True])


def test_adapted_norm_has_one_row_for_all_steps():
    case, task = Case("mamlpp", inner_steps=2, adapt_norm=True), images()
    assert case.method.params["norm1.weight"].shape == (4,)
    *_, params = case.method.trajectory(expand(case.groups, 3), task.support, 2)
    assert not torch.equal(params["norm1.weight"], expand(case.groups, 3)["base"]["norm1.weight"])


def test_derivative_order_annealing_is_first_order_up_to_its_epoch():
    task = images()
    options = {"inner_steps": 2, "epoch_steps": 10, "msl_epochs": 0}
    annealing = Case("mamlpp", first_order_to_second_order_epoch=1, **options)
    first = Case("mamlpp", first_order=True, **options).engine_gradient(task)[1]
    second = Case("mamlpp", **options).engine_gradient(task)[1]
    for step, want in ((0, first), (19, first), (20, second)):
        annealing.method.at_step(step)
        assert relative(annealing.engine_gradient(task)[1], want) < 1e-14, step
    assert relative(first, second) > 1e-3


def test_cosine_annealing_of_the_outer_learning_rate():
    flat = protocol("matched", {"outer_lr_min": 1e-3}, "test")
    assert {annealed(flat, step, 5000) for step in range(0, 5000, 250)} == {1e-3}
    falling = protocol("matched", {"outer_lr_min": 1e-5, "epoch_steps": 500}, "test")
    rates = [annealed(falling, step, 5000) for step in range(0, 5000, 250)]
    assert rates[0] == rates[1] == 1e-3, "constant within an epoch"
    assert rates[2] == pytest.approx(
        1e-5 + (1e-3 - 1e-5) * (1 + torch.cos(torch.tensor(0.1 * torch.pi)).item()) / 2
    )
    assert rates[10] == pytest.approx((1e-3 + 1e-5) / 2)
    assert all(a >= b for a, b in itertools.pairwise(rates))


def test_an_ensemble_of_copies_is_the_model_and_of_others_the_mean_of_logits():
    case, task = Case("mamlpp+cml", inner_steps=2), images()
    one = score_all(case.method, [Asked([case.groups], ("meta", "co"))], task, (2,))[0]
    five = score_all(case.method, [Asked([case.groups] * 5, ("meta", "co"))], task, (2,))[0]
    assert all(torch.allclose(one[k].loss, five[k].loss, atol=1e-12) for k in one)
    other = {g: {n: p.detach() * 1.1 for n, p in ps.items()} for g, ps in case.groups.items()}
    both = score_all(case.method, [Asked([case.groups, other], ("meta",))], task, (2,))[0][
        "meta", 2
    ].loss
    logits = 0
    for member in (case.groups, leaves(other, CPU, torch.float64)):
        wide = expand(member, 3)
        *_, params = case.method.trajectory(wide, task.support, 2)
        logits = logits + case.method.outputs(wide, params, task.query.x, ("meta",))["meta"] / 2
    assert torch.allclose(both, case.method.criterion(logits, task.query.y).detach(), atol=1e-12)


def test_more_inner_steps_than_trained_use_the_spare_step_size_and_the_last_row():
    case, task = Case("mamlpp", inner_steps=2), images()
    path = [dict(p) for p in case.method.trajectory(expand(case.groups, 3), task.support, 4)]
    assert torch.equal(path[4]["norm1.weight"][0], case.groups["base"]["norm1.weight"][1])
    assert not torch.equal(path[3]["head.weight"], path[4]["head.weight"])
