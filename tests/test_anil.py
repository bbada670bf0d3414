"""Laws of ANIL, from its definition. float64."""

import itertools
import math

import pytest
import torch

from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.evaluate import Asked, score_all
from cml_bench.engine.step import expand
from tests.helpers.cases import Case, adapted, images, relative


@pytest.mark.parametrize("name", ["anil", "anil+cml"])
def test_the_head_alone_moves(name):
    case, task = Case(name, inner_steps=3), images()
    params = adapted(case, task)
    for key in case.network.params:
        still = torch.equal(params[key], expand(case.groups, 3)["base"][key])
        assert still == (key not in case.network.head_names), key


def test_a_head_of_convolutions_moves_as_a_whole():
    """As in Table 7: such a head has batch-norms of its own."""
    case, task = Case("anil", network={"head_blocks": 1}), images()
    params, start = adapted(case, task), expand(case.groups, 3)["base"]
    moved = {key for key in start if not torch.equal(params[key], start[key])}
    assert {"convh1.weight", "normh1.weight", "head.weight"} <= moved <= case.network.head_names


def test_it_is_boil_with_the_parts_exchanged():
    """Head by its own step and body by none: BOIL's code reaches ANIL's gradient, too."""
    task = images()
    anil = Case("anil", inner_steps=2, inner_lr=0.3).engine_gradient(task)[1]
    boil = Case("boil", inner_steps=2, inner_lr=0.0, head_lr=0.3).engine_gradient(task)[1]
    assert relative(anil, boil) < 1e-12


@pytest.mark.parametrize("first_order", [False, True])
def test_the_support_sets_features_are_computed_once(first_order, monkeypatch):
    case, task = Case("anil", inner_steps=5, first_order=first_order), images()
    seen, original = [], case.network.features

    def counted(params, x):
        seen.append(x.shape[1])
        return original(params, x)

    monkeypatch.setattr(case.network, "features", counted)
    case.engine_gradient(task)
    assert seen == [task.support.x.shape[1], task.query.x.shape[1]]


def test_the_co_learner_is_at_chance_by_construction():
    """Over all labelings of a task its accuracy is 1/N and its mean loss at least log N."""
    case, task = Case("anil+cml", inner_steps=2), images(query=3)
    results = [
        score_all(
            case.method,
            [Asked([case.groups], ("meta", "co"))],
            Task(*(Examples(e.x, torch.tensor(order)[e.y]) for e in task)),
            (2,),
        )[0]
        for order in itertools.permutations(range(3))
    ]
    mean = {head: torch.stack([one[head, 2].score for one in results]).mean(0) for head in ("co",)}
    assert torch.allclose(mean["co"], torch.full_like(mean["co"], 1 / 3), atol=1e-12)
    losses = torch.stack([one["co", 2].loss for one in results]).mean(0)
    assert bool((losses >= math.log(3)).all())
    assert case.method.cannot_adapt("co", "meta")
    assert not case.method.cannot_adapt("meta", "meta")


def test_the_co_learners_gradient_reaches_the_body_alone():
    """What gamma adds to the gradient is that of CE(phi(psi(x)), y) on the queries: no theta."""
    task = images()
    with_co, without = (
        Case("anil+cml", inner_steps=2, gamma=gamma).engine_gradient(task)[1] for gamma in (1, 0)
    )
    case = Case("anil+cml")
    wide = expand(case.groups, 3)
    outputs = case.method.outputs(wide, wide["base"], task.query.x, ("co",))["co"]
    loss = case.method.criterion(outputs, task.query.y).mean()
    base = case.groups["base"]
    grads = torch.autograd.grad(loss, list(base.values()), materialize_grads=True)
    want = {("base", name): grad for name, grad in zip(base, grads, strict=True)}
    got = {key: with_co[key] - without[key] for key in want}
    assert relative(got, want) < 1e-10
    assert all(not got["base", name].any() for name in case.network.head_names)
