"""The outer optimiser: SGD and its momentum beside Adam, and how its learning rate goes down."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cml_bench.engine import seeds
from cml_bench.engine.run import run
from cml_bench.engine.step import MetaStep, optimizer
from cml_bench.engine.train import annealed
from cml_bench.errors import UserError
from cml_bench.registry import method
from cml_bench.report.summary import _optimiser
from cml_bench.spec import Protocol, canonical
from cml_bench.study.protocols import protocol
from tests.helpers.cases import Case, images, relative, values
from tests.helpers.runs import interrupted, same, tensors
from tests.helpers.specs import glyph_spec

SGD = {"outer_optimizer": "sgd", "outer_lr": 0.1}
MOMENTUM = {**SGD, "outer_momentum": 0.9}


def twin_of(settings):
    return replace(settings, results=settings.results / "twin")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_steps_of_sgd_are_those_on_paper(momentum, decay):
    """v = m v + g + decay * w;  w = w - lr v, with a gradient from the obvious loop."""
    chosen = Protocol.read({**SGD, "outer_momentum": momentum, "weight_decay": decay}, "test")
    ours, theirs = Case("maml+cml"), Case("maml+cml")
    step = MetaStep(ours.method, ours.groups, optimizer(ours.groups, chosen, ours.method.trains), 4)
    memory = {}
    for number in range(4):
        task = images(name=f"step {number}")
        step(task)
        grads, at = theirs.wanted(task), values(theirs.groups)
        with torch.no_grad():
            for (group, name), grad in grads.items():
                grad = grad + decay * at[group, name]
                memory[group, name] = momentum * memory.get((group, name), 0) + grad
                theirs.groups[group][name] -= 0.1 * memory[group, name]
    assert relative(values(ours.groups), values(theirs.groups)) < 1e-8


def test_it_leaves_alone_what_the_method_does_not_train():
    case = Case("boil", outer_fix=True)
    before = values(case.groups)
    before = {key: value.clone() for key, value in before.items()}
    chosen = Protocol.read(MOMENTUM, "test")
    MetaStep(case.method, case.groups, optimizer(case.groups, chosen, case.method.trains), 4)(
        images()
    )
    moved = {
        name
        for (_, name), p in values(case.groups).items()
        if not torch.equal(p, before["base", name])
    }
    assert moved
    assert moved.isdisjoint(case.network.head_names)


def test_each_choice_is_another_run_and_adam_is_the_one_of_before(settings):
    chosen = [{}, {"outer_optimizer": "sgd"}, SGD, MOMENTUM]
    runs = [run(glyph_spec(protocol_options={"val_every": 4, **one}), settings) for one in chosen]
    assert len({one.spec.id for one in runs}) == 4
    ends = [tensors(one, "last") for one in runs]
    assert not any(same(a, b) for i, a in enumerate(ends) for b in ends[:i])
    assert "outer_optimizer" not in canonical(runs[0].spec.protocol)
    named = Protocol.read({"outer_optimizer": "adam", "outer_momentum": 0}, "test")
    assert canonical(named) == canonical(Protocol())


def test_a_resumed_run_with_momentum_is_the_uninterrupted_one(settings):
    spec = glyph_spec(protocol_options={"val_every": 4, **MOMENTUM})
    whole = run(spec, twin_of(settings))
    interrupted(spec, settings, at_step=6)
    resumed = run(spec, settings)
    assert same(tensors(whole, "last"), tensors(resumed, "last"))
    assert all(np.array_equal(values, resumed.arrays[key]) for key, values in whole.arrays.items())


def test_seeds_with_sgd_are_trained_one_by_one():
    """One program for several seeds makes steps of Adam alone."""
    maml = method("maml")
    assert seeds.fits(glyph_spec(), maml)
    assert not seeds.fits(glyph_spec(protocol_options=SGD), maml)


def test_momentum_with_adam_is_one_sentence():
    with pytest.raises(UserError) as error:
        Protocol.read({"outer_momentum": 0.9}, "here, protocol_options")
    said = str(error.value)
    assert said.startswith("here, protocol_options: ")
    assert "set outer_optimizer to sgd, or leave outer_momentum out" in said


def test_the_learning_rate_goes_down_in_equal_steps():
    chosen = protocol(
        "matched",
        {"outer_lr": 1.0, "outer_lr_min": 0.0, "outer_schedule": "linear", "epoch_steps": 1},
        "test",
    )
    assert [annealed(chosen, step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    cosine = chosen.model_copy(update={"outer_schedule": "cosine"})
    assert annealed(cosine, 1, 4) != 0.75


def test_a_page_names_the_optimiser():
    said = [_optimiser(Protocol.read(one, "test")) for one in ({}, SGD, MOMENTUM)]
    assert said == ["Adam 0.001", "SGD 0.1", "SGD 0.1 with momentum 0.9"]
