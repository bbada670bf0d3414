"""Prototypical networks against the obvious loop, on every path; their laws. float64."""

import pytest
import torch
import torch.nn.functional as F

from cml_bench import registry
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine import compiled, seeds
from cml_bench.engine.compiled import CompiledStep
from cml_bench.engine.evaluate import Asked, score_all
from cml_bench.engine.step import MetaStep, adam, expand, leaves
from cml_bench.errors import UserError
from cml_bench.methods.protonet import ProtoNet
from cml_bench.networks.mlp import MLP, MLPOptions
from tests.helpers import reference
from tests.helpers.cases import CPU, Case, follow, images, random, relative, values
from tests.helpers.runs import same


def by_hand(features, psi, task):
    """The outer loss: task by task, class by class, query by query."""
    total, tasks = 0.0, task.support.x.shape[0]
    for t in range(tasks):
        (x, y), (xq, yq) = ((part.x[t], part.y[t]) for part in task)
        z, zq = features(psi, x), features(psi, xq)
        centres = []
        for k in range(int(y.max()) + 1):
            own = [z[i] for i in range(len(y)) if int(y[i]) == k]
            centres.append(sum(own) / len(own))
        for j in range(len(yq)):
            near = torch.stack([-((zq[j] - c) ** 2).sum() for c in centres])
            total = total - torch.log_softmax(near, 0)[yq[j]] / len(yq) / tasks
    return total


def wanted(features, groups, task):
    psi = {n: p.detach().clone().requires_grad_() for n, p in groups["base"].items()}
    grads = torch.autograd.grad(by_hand(features, psi, task), [*psi.values()])
    return {("base", n): g for n, g in zip(psi, grads, strict=True)}


def pooled(case):
    return lambda psi, x: F.max_pool2d(case.ref.features(psi, x), 2).flatten(1)


class Vectors:
    """The method on a perceptron with three classes of vectors, for the compiled paths."""

    ref = reference.MLP()

    def __init__(self, scale: float = 1.0):
        network = MLP(MLPOptions(hidden=(7, 7)), (4,), 3)
        self.method = ProtoNet(ProtoNet.Options(), network, "classification")
        self.groups = leaves(self.method.init(3), CPU, torch.float64)
        with torch.no_grad():
            for p in self.groups["base"].values():
                p.mul_(scale)

    def step(self, made):
        return made(self.method, self.groups, adam(self.groups, 1e-3), 4)

    @staticmethod
    def task(name="v") -> Task:
        def part(each):
            y = torch.arange(3).repeat_interleave(each).expand(3, -1)
            return Examples(random(3, 3 * each, 4, name=f"{name}{each}") + 0.3 * y[..., None], y)

        return Task(part(2), part(4))


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("shot", [1, 3])
def test_the_engines_outer_gradient_is_the_obvious_loops(path, shot):
    case, task = Case("protonet", path=path), images(shot=shot)
    assert relative(case.received(task), wanted(pooled(case), case.groups, task)) < 1e-10


def test_tasks_in_parts_too():
    case, task = Case("protonet"), images()
    assert relative(case.received(task, 2), wanted(pooled(case), case.groups, task)) < 1e-10


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_ten_adam_steps_are_the_obvious_loops(path):
    ours, theirs = Case("protonet", path=path), Case("protonet", path=path)
    step, adam_by_hand = ours.step(), reference.Adam()
    for number in range(10):
        task = images(name=f"step {number}")
        step(task)
        follow(theirs.groups, adam_by_hand, wanted(pooled(theirs), theirs.groups, task))
    assert relative(values(ours.groups), values(theirs.groups)) < 1e-8


@pytest.mark.parametrize("made", [MetaStep, CompiledStep])
def test_on_vectors_and_compiled(made, monkeypatch):
    """The traced computation is interpreted."""
    monkeypatch.setattr(compiled, "compiled", lambda graph, arguments: graph)
    case, task = Vectors(), Vectors.task()
    case.step(made).gradients(task)
    got = {("base", n): p.grad for n, p in case.groups["base"].items()}
    assert relative(got, wanted(case.ref.features, case.groups, task)) < 1e-10


def test_what_is_made_of_seeds_is_each_ones_obvious_loop(monkeypatch):
    monkeypatch.setattr(seeds, "compiled", lambda graph, arguments: graph)
    cases, tasks = [Vectors(), Vectors(0.9)], [Vectors.task("a"), Vectors.task("b")]
    each = [
        [*(p.detach() for p in case.groups["base"].values()), *task.support, *task.query]
        for case, task in zip(cases, tasks, strict=True)
    ]
    with torch.no_grad():
        arguments = [torch.stack(parts) for parts in zip(*each, strict=True)]
        graph = cases[0].step(CompiledStep).traced(each[0])
        grads = seeds._over_seeds(graph, arguments)(*arguments)
    for seed, (case, task) in enumerate(zip(cases, tasks, strict=True)):
        got = {("base", n): g[seed] for n, g in zip(case.groups["base"], grads, strict=False)}
        assert relative(got, wanted(case.ref.features, case.groups, task)) < 1e-10


def test_its_outputs_are_distances_and_inner_steps_change_nothing():
    case, task = Case("protonet"), images(shot=2)
    wide = expand(case.groups, 3)
    states = list(case.method.trajectory(wide, task.support, 2))
    assert len(states) == 3
    assert same(states[0], states[2])
    outputs = case.method.outputs(wide, states[0], task.query.x, ("meta",))["meta"]
    assert bool((outputs <= 0).all())
    own = case.method.outputs(wide, states[0], task.support.x, ("meta",))["meta"]
    z = case.method.network.embedding(case.method.features(wide, states[0], task.support.x))
    want = -torch.cdist(z, states[0]["prototypes"]).square()
    assert torch.allclose(own, want, atol=1e-10)


def test_the_order_of_classes_and_of_examples_does_not_matter():
    case, task = Case("protonet"), images(shot=2)
    order = torch.tensor([2, 0, 1])
    shuffled = Examples(task.support.x.flip(1), task.support.y.flip(1))
    other = Task(*(Examples(e.x, order[e.y]) for e in (shuffled, task.query)))
    one, two = (
        score_all(case.method, [Asked([case.groups], ("meta",))], t, (0,))[0]["meta", 0]
        for t in (task, other)
    )
    assert torch.allclose(one.loss, two.loss, atol=1e-12)
    assert torch.equal(one.score, two.score)


def test_the_head_is_no_parameter():
    """64 filters at 28x28: four blocks, and 64 numbers of an image."""
    case = Case("protonet", filters=64, size=28, way=5)
    assert case.groups["base"].keys() == case.network.params.keys() - case.network.head_names
    z = case.network.embedding(torch.zeros(2, 3, *case.network.feature_shape))
    assert z.shape == (2, 3, 64)


def test_it_needs_classes_and_has_no_co_learner():
    with pytest.raises(UserError, match="protonet needs classes, and the examples of this data"):
        Case("protonet", "mlp")
    with pytest.raises(UserError, match=r"protonet\+cml does not exist: .* be at chance by constr"):
        registry.method("protonet+cml")
