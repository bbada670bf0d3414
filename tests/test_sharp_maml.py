"""Laws of Sharp-MAML, from its equations. float64."""

import pytest
import torch

from cml_bench import registry
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.step import MetaStep, expand
from tests.helpers.cases import Case, adapted, images, relative, waves
from tests.helpers.runs import same

PLAIN = {"adapt_norm": False, "inner_steps": 2}


def sharp(level="both", low=0.05, up=0.05, name="sharp_maml", **options) -> Case:
    return Case(name, inner_steps=2, level=level, rho_low=low, rho_up=up, **options)


@pytest.mark.parametrize("level", ["low", "up", "both"])
def test_radius_zero_is_maml(level):
    task = images()
    assert (
        relative(sharp(level, 0.0, 0.0).received(task), Case("maml", **PLAIN).received(task))
        < 1e-12
    )


def test_adapted_weights_go_to_mamls_with_the_radius():
    task = images()
    want = adapted(Case("maml", **PLAIN), task)
    gaps = []
    for radius in (1e-2, 1e-4, 1e-6):
        got = adapted(sharp("low", radius), task)
        gaps.append(max((got[n] - want[n]).abs().max().item() for n in want))
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 1e-4


def test_levels_are_switches_of_each_other():
    task = images()
    assert relative(sharp("both", low=0.0).received(task), sharp("up").received(task)) < 1e-12
    assert relative(sharp("both", up=0.0).received(task), sharp("low").received(task)) < 1e-12
    assert relative(sharp("both").received(task), sharp("up").received(task)) > 1e-3
    assert relative(sharp("both").received(task), sharp("low").received(task)) > 1e-3


@pytest.mark.parametrize("perturb_co", [False, True])
@pytest.mark.parametrize("name", ["sharp_maml", "sharp_maml+cml"])
def test_the_outer_ascent_has_the_radius_and_is_taken_back_bitwise(name, perturb_co):
    case, task = sharp("up", name=name, perturb_co=perturb_co), images()
    leaf = {(g, n): p for g, params in case.groups.items() for n, p in params.items()}
    before, passes = {k: p.detach().clone() for k, p in leaf.items()}, []
    step = MetaStep(case.method, case.groups, torch.optim.SGD(leaf.values(), lr=0.0), 4)
    gradients = step.gradients

    def watched(task):
        scores = gradients(task)
        passes.append({k: p.detach() - before[k] for k, p in leaf.items()})
        return scores

    step.gradients = watched
    step(task)
    at_first, ascent = passes
    assert all(float(v.abs().max()) == 0 for v in at_first.values())
    norm = torch.sqrt(sum((v * v).sum() for v in ascent.values()))
    assert float(norm) == pytest.approx(0.05, rel=1e-9)
    assert (sum(float(v.abs().max()) for k, v in ascent.items() if k[0] == "co") > 0) == (
        perturb_co and "cml" in name
    )
    assert float(ascent["base", "norm2.weight"].abs().max()) > 0, "batch-norm is part of the ascent"
    assert all(torch.equal(p.detach(), before[k]) for k, p in leaf.items()), "Phi is restored"


def test_the_outer_loss_rises_by_the_radius_times_the_gradients_norm():
    case, task = (
        Case("sharp_maml", "mlp", activation="tanh", inner_steps=2, level="up", rho_up=1e-5),
        waves(),
    )
    g = case.engine_gradient(task)[1]
    norm = torch.sqrt(sum((v * v).sum() for v in g.values()))
    before = case.method.outer_loss(expand(case.groups, 3), task)[0].mean().item()
    with torch.no_grad():
        for (group, name), value in g.items():
            case.groups[group][name].add_(1e-5 * value / norm)
    after = case.method.outer_loss(expand(case.groups, 3), task)[0].mean().item()
    assert after - before == pytest.approx(1e-5 * norm.item(), rel=1e-2)


def test_phi_steps_with_the_gradient_of_the_second_pass():
    case, task = sharp("up", name="sharp_maml+cml"), images()
    got = {k: v for k, v in case.received(task).items() if k[0] == "co"}
    want = {k: v for k, v in case.wanted(task).items() if k[0] == "co"}
    assert relative(got, want) < 1e-10
    first = {k: v for k, v in case.engine_gradient(task)[1].items() if k[0] == "co"}
    assert relative(got, first) > 1e-3


def test_without_inner_steps_the_upper_level_is_sam_on_the_query_loss():
    case, task = Case("sharp_maml", level="up", rho_up=0.05, inner_steps=0), images()
    assert relative(case.received(task), case.wanted(task)) < 1e-10


def test_the_gradient_passes_through_the_ascent_vector(monkeypatch):
    task = images()
    kept = sharp("low").received(task)
    original = torch.linalg.vector_norm
    cls = registry.methods.get("sharp_maml")
    grads = cls.__mro__[1].inner_gradients

    def detached(self, groups, params, names, support, loss, create_graph):
        g = {
            n: v.detach()
            for n, v in grads(self, groups, params, names, support, loss, False).items()
        }
        norm = original(torch.cat([v.flatten(1) for v in g.values()], 1), dim=1) + 1e-12
        at = {
            n: params[n] + 0.05 * v / norm.reshape(-1, *[1] * (v.dim() - 1)) for n, v in g.items()
        }
        return grads(self, groups, {**params, **at}, names, support, loss, create_graph)

    monkeypatch.setattr(cls, "inner_gradients", detached)
    assert relative(sharp("low").received(task), kept) > 1e-3


def test_a_zero_gradient_is_no_nan():
    case = sharp("both")
    still = Task(*(Examples(torch.zeros_like(e.x), e.y) for e in images()))
    assert all(bool(torch.isfinite(v).all()) for v in case.received(still).values())


def test_at_test_the_ascent_can_be_left_out():
    task = images()
    for option, plain in ((True, False), (False, True)):
        case = sharp("both", sharp_test_perturb=option)
        params = adapted(case, task)
        case.method = case.method.for_test()
        tested = adapted(case, task)
        assert same(params, tested) != plain
        if plain:
            want = adapted(Case("maml", **PLAIN), task)
            assert all(torch.allclose(tested[n], want[n], atol=1e-12) for n in want)
