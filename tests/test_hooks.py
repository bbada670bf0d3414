"""The hooks of methods beyond MAML's shape hold what docs/extending.md says of them."""

import pytest
import torch

from cml_bench import registry
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.build import build_data, build_method
from cml_bench.engine.run import run
from cml_bench.methods.maml import MAML, MAMLOptions
from cml_bench.spec import canonical
from tests.helpers.cases import Case, adapted, images
from tests.helpers.specs import glyph_spec, sinusoid_spec


@pytest.fixture
def known(monkeypatch):
    """A registry of methods that a test may add to."""
    registry.methods.names()
    monkeypatch.setattr(registry.methods, "_entries", dict(registry.methods._entries))
    return registry.methods


def test_a_method_knows_how_long_its_training_is(known, settings):
    """Set before the first step, and the same at every step."""
    seen = []

    @known.register("counting")
    class Counting(MAML):
        def at_step(self, step):
            seen.append((step, self.total_steps, self.seed))

    run(glyph_spec("counting", steps=3, seed=4), settings)
    assert seen[:3] == [(0, 3, 4), (1, 3, 4), (2, 3, 4)]


def test_a_method_that_is_only_tested_knows_it_too():
    spec = sinusoid_spec(steps=30)
    assert build_method(spec, build_data(spec)).total_steps == 30


@pytest.mark.parametrize("first_order", [False, True])
def test_momentum_of_the_inner_loop_is_that_of_torchs_sgd(first_order):
    """The values; that the outer gradient passes through is tested against the obvious loop."""
    case = Case("maml", inner_steps=3, inner_momentum=0.8, first_order=first_order)
    task = images(tasks=1)
    theta = {n: p.detach().clone().requires_grad_() for n, p in case.groups["base"].items()}
    sgd = torch.optim.SGD([*theta.values()], lr=0.4, momentum=0.8)
    for _ in range(3):
        sgd.zero_grad()
        logits = case.ref.head(theta, case.ref.features(theta, task.support.x[0]))
        torch.nn.functional.cross_entropy(logits, task.support.y[0]).backward()
        sgd.step()
    params = adapted(case, task)
    for name, value in theta.items():
        if not name.startswith("conv") or name.endswith("weight"):
            assert torch.allclose(params[name][0], value, atol=1e-10), name


def test_without_momentum_ids_stay_and_with_it_they_differ():
    options = [canonical(MAMLOptions(**more)) for more in ({}, {"inner_momentum": 0.9})]
    assert "inner_momentum" not in options[0]
    assert options[1]["inner_momentum"] == 0.9
    specs = [sinusoid_spec(method_options=more) for more in ({}, {"inner_momentum": 0.9})]
    assert specs[0].id != specs[1].id


def test_the_inner_optimisers_memory_is_a_tasks_own_and_empty_at_its_start(known):
    seen = []

    class Watching(MAML):
        def inner_update(self, groups, params, grads, step, memory):
            seen.append((step, sorted(memory)))
            moved, memory = super().inner_update(groups, params, grads, step, memory)
            return moved, {"mark": torch.full((3,), float(step))}

    known.register("watching")(Watching)
    case = Case("watching", inner_steps=2)
    for _ in range(2):
        adapted(case, images())
    assert seen == [(0, []), (1, ["mark"])] * 2


def test_each_inner_step_descends_on_the_batch_that_the_method_names(known):
    """Two steps on halves are two steps of one, each on a task of that half."""

    class Halves(MAML):
        def inner_batch(self, support, step):
            half = support.y.shape[1] // 2
            rows = slice(0, half) if step == 0 else slice(half, None)
            return Examples(*(values[:, rows] for values in support))

    known.register("halves")(Halves)
    task, halves, maml = images(shot=2), Case("halves", inner_steps=2), Case("maml", inner_steps=1)
    got = adapted(halves, task)
    first, second = (halves.method.inner_batch(task.support, step) for step in (0, 1))
    once = adapted(maml, Task(first, task.query))
    for t in range(3):
        for name, value in once.items():
            maml.groups["base"][name] = value[t].detach().requires_grad_()
        alone = Examples(*(values[t : t + 1] for values in second))
        then = adapted(maml, Task(alone, task.part(t, t + 1).query))
        assert all(torch.allclose(got[n][t], then[n][0], atol=1e-10) for n in then)
