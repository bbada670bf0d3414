"""Laws of BOIL, More-MAML, CL and the noise controls, from their equations. float64."""

import itertools
import math

import pytest
import torch

from cml_bench import registry
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.evaluate import Asked, score_all
from cml_bench.engine.step import MetaStep, adam, add_noise, clamp, expand
from cml_bench.errors import UserError
from cml_bench.networks.base import count
from cml_bench.networks.conv4 import Conv4, Conv4Options
from tests.helpers.cases import Case, adapted, images, relative
from tests.helpers.runs import same

# -- BOIL


@pytest.mark.parametrize("name", ["boil", "boil+cml"])
def test_boil_leaves_the_head_bitwise_and_moves_the_body(name):
    case, task = Case(name, inner_steps=3), images()
    params = adapted(case, task)
    for key in case.network.params:
        # The gradients of convolutions' biases are rounding noise.
        if not (key.startswith("conv") and key.endswith("bias")):
            still = torch.equal(params[key], expand(case.groups, 3)["base"][key])
            assert still == (key in case.network.head_names), key


def test_boil_with_the_bodys_step_for_the_head_is_maml():
    task = images()
    maml, boil = Case("maml", inner_steps=2), Case("boil", inner_steps=2, head_lr=0.4)
    assert same(maml.engine_gradient(task)[1], boil.engine_gradient(task)[1])


def test_boils_head_has_a_step_of_its_own():
    """Compared with MAML, one inner step moves the head by head_lr / alpha, the body by as much."""
    task = images()
    maml, boil = (adapted(c, task) for c in (Case("maml"), Case("boil", head_lr=0.1)))
    start = expand(Case("boil").groups, 3)["base"]
    for key in start:
        share = 0.25 if key.startswith("head") else 1.0
        assert torch.allclose(
            boil[key] - start[key], share * (maml[key] - start[key]), atol=1e-12
        ), key


def test_boil_without_any_step_does_not_adapt():
    case, task = Case("boil", inner_lr=0.0), images()
    assert same(adapted(case, task), dict(expand(case.groups, 3)["base"]))


@pytest.mark.parametrize("first_order", [True, False])
def test_boils_head_gradient(first_order):
    """In first order it is (softmax - onehot)' z / n on adapted features.

    Second order adds a term that is not zero.
    """
    case, task = Case("boil", first_order=first_order), images()
    params, want = adapted(case, task), 0.0
    for t in range(3):
        one = {n: p[t : t + 1].detach() for n, p in params.items()}
        z = case.network.features(one, task.query.x[t : t + 1])
        pooled = torch.nn.functional.max_pool2d(z[0], 2).flatten(1)
        error = case.network.head(one, z)[0].softmax(1) - torch.nn.functional.one_hot(
            task.query.y[t], 3
        )
        want = want + error.T @ pooled / len(pooled) / 3
    got = case.engine_gradient(task)[1]["base", "head.weight"]
    difference = float((got - want).abs().max())
    assert difference < 1e-14 if first_order else difference > 1e-3 * float(want.abs().max())


def test_boils_outer_fix_and_ortho_init():
    case = Case("boil+cml", outer_fix=True, ortho_init=True)
    weight = case.method.init(3)["base"]["head.weight"]
    assert torch.allclose(weight @ weight.T, torch.eye(3), atol=1e-6)
    before = {n: case.groups["base"][n].clone() for n in case.network.params}
    step = MetaStep(case.method, case.groups, adam(case.groups, 1e-2, case.method.trains), 4)
    for number in range(3):
        step(images(name=f"s{number}"))
    moved = {n for n, p in case.groups["base"].items() if not torch.equal(p, before[n])}
    assert moved.isdisjoint(case.network.head_names)
    assert "conv4.weight" in moved


def test_ortho_init_needs_room_for_its_rows():
    with pytest.raises(UserError, match="at least as many features as ways"):
        Case("boil", way=5, filters=4, ortho_init=True)


def test_without_adaptation_boil_and_maml_are_at_chance():
    """Over all labelings of a task, accuracy is exactly 1/N and the mean loss at least log N."""
    orders = list(itertools.permutations(range(3)))
    for name in ("boil", "maml"):
        case, task = Case(name, inner_lr=0.0), images(query=3)
        results = [
            score_all(
                case.method,
                [Asked([case.groups], ("meta",))],
                Task(*(Examples(e.x, torch.tensor(o)[e.y]) for e in task)),
                (1,),
            )[0]
            for o in orders
        ]
        accuracy = torch.stack([f["meta", 1].score for f in results]).mean(0)
        loss = torch.stack([f["meta", 1].loss for f in results]).mean(0)
        assert torch.allclose(accuracy, torch.full_like(accuracy, 1 / 3), atol=1e-12)
        assert bool((loss >= math.log(3)).all())


def test_the_original_codes_step_on_the_summed_loss_is_n_times_ours():
    """cbfinn/maml sums cross-entropy over the N classes and divides it by K.

    Its step alpha is a step of N * alpha on the mean loss.
    """
    case, task = Case("maml", inner_lr=0.3), images(tasks=1, shot=1)
    theta = {n: p.detach().clone().requires_grad_() for n, p in case.groups["base"].items()}
    logits = case.ref.head(theta, case.ref.features(theta, task.support.x[0]))
    summed = torch.nn.functional.cross_entropy(logits, task.support.y[0], reduction="sum")
    grads = torch.autograd.grad(summed, list(theta.values()))
    params = adapted(case, task)
    for (name, value), grad in zip(theta.items(), grads, strict=True):
        assert torch.allclose(params[name][0], value - 0.1 * grad, atol=1e-12), name


# -- More-MAML


def test_more_mamls_extra_blocks_adapt_and_its_size_is_the_papers():
    case, task = Case("more_maml"), images()
    params = adapted(case, task)
    for i in (5, 6, 7):
        assert not torch.equal(
            params[f"conv{i}.weight"], expand(case.groups, 3)["base"][f"conv{i}.weight"]
        )
    assert count(Conv4(Conv4Options(extra_blocks=3), (3, 84, 84), 5).params) == 232_261
    with pytest.raises(UserError, match="more_maml needs a network with extra_blocks"):
        registry.method("more_maml")(case.options, Case("maml").network, "classification")


def test_more_maml_with_blocks_that_change_nothing_is_maml():
    more, plain, task = Case("more_maml", path="plain"), Case("maml", path="plain"), images()
    more.groups["base"] |= {
        n: p.detach().clone().requires_grad_() for n, p in plain.groups["base"].items()
    }
    z = plain.network.features(expand(plain.groups, 1)["base"], task.query.x[:1]).detach()[0]
    identity = torch.zeros(4, 4, 3, 3, dtype=torch.float64)
    identity[range(4), range(4), 1, 1] = 1
    with torch.no_grad():
        for i in (5, 6, 7):
            more.groups["base"][f"conv{i}.weight"].copy_(identity)
            more.groups["base"][f"conv{i}.bias"].zero_()
            more.groups["base"][f"norm{i}.weight"].copy_(
                (z.var((0, 2, 3), unbiased=False) + 1e-5).sqrt()
            )
            more.groups["base"][f"norm{i}.bias"].copy_(z.mean((0, 2, 3)))
    got, want = (
        c.method.outputs(w := expand(c.groups, 1), w["base"], task.query.x[:1], ("meta",))["meta"]
        for c in (more, plain)
    )
    assert torch.allclose(got, want, atol=1e-10)


# -- CL


def test_cl_without_the_co_learners_part_in_the_inner_loop_is_cml():
    task = images()
    cl, cml = (
        Case("cl", inner_steps=2, inner_gamma=0.0, co_inner_lr=0.0),
        Case("maml+cml", inner_steps=2),
    )
    assert relative(cl.engine_gradient(task)[1], cml.engine_gradient(task)[1]) < 1e-12


def test_cls_equal_heads_stay_equal_under_symmetric_losses():
    case = Case("cl", depth=0, gamma=1.0, inner_steps=2)
    with torch.no_grad():
        for key, value in case.groups["co"].items():
            value.copy_(case.groups["base"][key])
    step = case.step(lr=0.01)
    for number in range(3):
        scores = step(images(name=f"s{number}"))
        assert torch.allclose(scores.loss["meta"], scores.loss["co"], atol=1e-12)
    for key, value in case.groups["co"].items():
        assert torch.allclose(value, case.groups["base"][key], atol=1e-9)


def test_cls_readings():
    """CL averages the logits of both adapted heads; `fixed` leaves phi as it was."""
    case, task = Case("cl", inner_steps=2), images()
    params = adapted(case, task)
    wide = expand(case.groups, 3)
    out = case.method.outputs(wide, params, task.query.x, ("meta", "co", "both"))
    assert torch.allclose(out["both"], (out["meta"] + out["co"]) / 2)
    fixed = adapted(case, task, loss="fixed")
    for key in case.groups["co"]:
        assert torch.equal(fixed[f"co/{key}"], wide["co"][key])
    assert not torch.equal(params["co/head.weight"], fixed["co/head.weight"])
    assert torch.allclose(params["conv1.weight"][0], fixed["conv1.weight"][0]) is False
    names = {reading.name for reading in case.method.more_readings}
    assert names == {"both", "co_fixed", "co_unadapted"}
    still = adapted(case, task, loss="none")
    assert all(torch.equal(still[n], wide["base"][n]) for n in wide["base"])
    tested = score_all(case.method, [Asked([case.groups], ("both",))], task, (2,))[0]
    assert tested["both", 2].loss.shape == (3,)


def test_cl_accepts_no_co_learner_of_its_own():
    with pytest.raises(UserError, match=r"cl\+cml does not exist: cl does not accept a co-learner"):
        registry.method("cl+cml")


# -- controls


def test_a_frozen_co_learner_is_constant_and_its_gradient_is_felt():
    case = Case("maml+cml", cml={"frozen": True})
    before = {n: p.detach().clone() for n, p in case.groups["co"].items()}
    task = images()
    assert relative(case.engine_gradient(task)[1], Case("maml+cml").engine_gradient(task)[1]) == 0
    step = MetaStep(case.method, case.groups, adam(case.groups, 1e-2, case.method.trains), 4)
    for number in range(3):
        step(images(name=f"s{number}"))
    assert all(torch.equal(p.detach(), before[n]) for n, p in case.groups["co"].items())
    base = {k: v for k, v in Case("maml").engine_gradient(task)[1].items()}
    assert relative(Case("maml+cml").engine_gradient(task)[1], base) > 1e-3


def test_gaussian_noise_has_the_gradients_norm_and_touches_psi_alone():
    case, task = Case("maml+cml"), images()
    step = case.step()
    step.gradients(task)
    plain = {
        (g, n): p.grad.clone()
        for g, ps in case.groups.items()
        for n, p in ps.items()
        if p.grad is not None
    }
    add_noise(case.method, case.groups, 1.0, seed=3, step=7)
    noise = {(g, n): case.groups[g][n].grad - v for (g, n), v in plain.items()}
    for (group, name), value in noise.items():
        psi = group == "base" and name not in case.network.head_names
        assert float(value.norm()) == pytest.approx(
            float(plain[group, name].norm()) if psi else 0.0, rel=1e-9
        )
    step.gradients(task)
    add_noise(case.method, case.groups, 1.0, seed=3, step=7)
    again = {(g, n): case.groups[g][n].grad - v for (g, n), v in plain.items()}
    assert same(noise, again), "a function of seed and step"
    step.gradients(task)
    add_noise(case.method, case.groups, 1.0, seed=3, step=8)
    key = ("base", "conv2.weight")
    assert not torch.equal(case.groups["base"]["conv2.weight"].grad - plain[key], again[key])


def test_the_clamp_acts_by_value_and_spares_step_sizes():
    case, task = Case("mamlpp+cml", inner_steps=2), images()
    case.step().gradients(task)
    clamp(case.method, case.groups, 1e-6)
    for group, params in case.groups.items():
        for name, p in params.items():
            if p.grad is not None:
                assert (float(p.grad.abs().max()) <= 1e-6) or name.endswith("inner_lr"), (
                    group,
                    name,
                )
    assert (
        max(
            float(p.grad.abs().max())
            for n, p in case.groups["base"].items()
            if n.endswith("weight.inner_lr")
        )
        > 1e-6
    )


def test_table_7_s_conv_head_is_the_co_learners_structure():
    network = Conv4(Conv4Options(head_blocks=2), (3, 84, 84), 5)
    assert count(network.params) == 121_093 - 8_005 + 82_117
    case, task = Case("maml+cml", network={"head_blocks": 2}), images()
    with torch.no_grad():
        for key, value in case.groups["co"].items():
            own = key.replace("conv", "convh").replace("norm", "normh")
            case.groups["base"][own].copy_(value)
    frozen = score_all(case.method, [Asked([case.groups], ("meta", "co"))], task, (0,))[0]
    assert torch.allclose(frozen["meta", 0].loss, frozen["co", 0].loss)
