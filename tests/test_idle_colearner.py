"""A co-learner that gets no gradient stops the training in its first outer step."""

import pytest

from cml_bench import registry
from cml_bench.engine.build import Settings
from cml_bench.engine.jobs import run_all
from cml_bench.engine.run import run
from cml_bench.errors import UserError
from cml_bench.methods.base import Scores
from cml_bench.methods.maml import MAML
from cml_bench.records import Store
from tests.helpers.seeds import interpret, met, seeded
from tests.helpers.specs import sinusoid_spec


class Drift(MAML):
    """The outer loss is the distance to the adapted parameters, no query loss (Nichol 2018)."""

    def outer_loss(self, groups, task):
        *_, end = self.trajectory(groups, task.support, self.inner_steps)
        moved = [
            (p - end[name].detach()).flatten(1).square().sum(1) / 2
            for name, p in groups["base"].items()
        ]
        outputs = self.outputs(groups, end, task.query.x, self.heads)
        losses = {head: self.criterion(outputs[head], task.query.y).detach() for head in self.heads}
        return sum(moved), Scores(losses, losses)


@pytest.fixture
def settings(tmp_path):
    """As runs are made on a CPU; Drift is a method."""
    registry.methods.names()
    registry.methods.register("drift")(Drift)
    yield Settings(results=tmp_path, device="cpu", report=lambda text: None)
    registry.methods._entries.pop("drift")


def test_it_stops_in_the_first_step_with_one_sentence(settings):
    spec = sinusoid_spec("drift+cml", steps=5)
    with pytest.raises(UserError) as error:
        run(spec, settings)
    assert str(error.value) == (
        "drift+cml on sinusoid, 1-way 5-shot, seed 0: the co-learner got no gradient in the"
        " first outer step, so it would never learn: the outer loss of drift holds no query loss"
        " of its own. Train drift without a co-learner, or set options.cml.frozen, or"
        " options.cml.gamma to 0."
    )
    assert Store(settings.results).read(spec) is None


@pytest.mark.parametrize(
    ("method", "cml"),
    [
        ("drift+cml", {"frozen": True}),
        ("drift+cml", {"gamma": 0.0}),
        ("maml+cml", {}),
        ("cl", {}),
        ("drift", None),
    ],
)
def test_one_that_is_to_stay_and_one_that_learns_are_trained(method, cml, settings):
    options = {} if cml is None else {"cml": {"gamma": 0.2, **cml}}
    spec = sinusoid_spec(method, steps=3, method_options=options)
    assert run(spec, settings).status == "finished"


def test_seeds_of_one_program_stop_too(settings, monkeypatch):
    interpret(monkeypatch)
    with pytest.raises(UserError) as error:
        run_all(seeded("drift+cml"), met(settings))
    assert str(error.value).count("the co-learner got no gradient in the first outer step") == 3
