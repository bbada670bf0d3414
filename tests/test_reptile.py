"""Laws of Reptile, from its paper. float64."""

import pytest
import torch

from cml_bench import registry
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.step import MetaStep, expand, optimizer
from cml_bench.errors import UserError
from cml_bench.spec import Protocol
from tests.helpers.cases import Case, images, relative, values

WHOLE = {"inner_batch": 0, "trained_on": "support"}


def test_one_step_on_the_support_set_is_its_gradient():
    """For k = 1 Reptile trains on all tasks together: alpha * grad CE(w; S)."""
    case, task = Case("reptile", inner_steps=1, **WHOLE), images()
    wide = expand(case.groups, 3)
    loss = case.method.support_loss(wide, wide["base"], task.support, "meta").mean()
    base = case.groups["base"]
    grads = torch.autograd.grad(loss, [*base.values()], allow_unused=True)
    want = {
        ("base", n): case.options.inner_lr * (torch.zeros_like(base[n]) if g is None else g)
        for n, g in zip(base, grads, strict=True)
    }
    assert relative(case.received(task), want) < 1e-12


def test_an_outer_step_of_size_1_ends_at_the_mean_of_the_tasks_ends():
    """The paper's batched version: w + eps * mean(w_k - w) with eps = 1 is the mean of w_k."""
    case, task = Case("reptile", inner_steps=3, **WHOLE), images()
    *_, end = case.method.trajectory(expand(case.groups, 3), task.support, 3)
    chosen = Protocol.read({"outer_optimizer": "sgd", "outer_lr": 1.0}, "test")
    MetaStep(case.method, case.groups, optimizer(case.groups, chosen, case.method.trains), 2)(task)
    want = {("base", n): p.detach().mean(0) for n, p in end.items()}
    assert relative(values(case.groups), want) < 1e-12


@pytest.mark.parametrize("trained_on", ["both", "support"])
def test_whether_training_descends_on_queries(trained_on):
    case, task = Case("reptile", trained_on=trained_on), images()
    other = Task(task.support, Examples(task.query.x.flip(0), task.query.y))
    share = relative(case.received(task), case.received(other))
    assert share > 1e-3 if trained_on == "both" else share == 0


def test_at_test_it_adapts_to_the_support_set_alone():
    """As MAML does, if all examples are in every step."""
    reptile, maml = (Case(n, inner_steps=3) for n in ("reptile", "maml"))
    task = images()
    ends = [
        [*case.method.trajectory(expand(case.groups, 3), task.support, 3)][-1]
        for case in (reptile, maml)
    ]
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


@pytest.mark.parametrize(
    ("count", "size", "parts"), [(30, 10, 3), (33, 10, 4), (3, 10, 1), (9, 0, 1)]
)
def test_minibatches_share_all_examples_among_them(count, size, parts):
    case = Case("reptile", inner_batch=size)
    rows = torch.arange(count).expand(2, -1)
    labels = rows // (count // 3)  # three classes, one after another
    batches = [case.method.inner_batch(Examples(rows, labels), step) for step in range(2 * parts)]
    once = torch.cat([batch.x for batch in batches[:parts]], 1).sort(1).values
    assert torch.equal(once, rows)
    assert all(torch.equal(a.x, b.x) for a, b in zip(batches[:parts], batches[parts:], strict=True))
    lengths = [batch.y.shape[1] for batch in batches]
    assert max(lengths) - min(lengths) <= 1
    assert not size or max(lengths) <= size
    # Of every class alike, as far as that can be.
    for batch in batches:
        of_class = torch.bincount(batch.y[0], minlength=3)
        assert of_class.max() - of_class.min() <= 1


def test_the_first_step_of_its_adam_has_one_length_everywhere():
    """Beta1 0 and corrected squares: g / |g|."""
    case, task = Case("reptile", inner_optimizer="adam", inner_lr=0.01, inner_batch=0), images()
    start = expand(case.groups, 3)["base"]
    _, end = case.method.trajectory(expand(case.groups, 3), task.support, 1)
    step = (end["head.weight"] - start["head.weight"]).abs()
    assert torch.allclose(step, torch.full_like(step, 0.01), rtol=1e-4)


def test_norms_may_stay():
    case, task = Case("reptile", adapt_norm=False), images()
    got = case.received(task)
    still = {name for (_, name), value in got.items() if not value.any()}
    assert case.network.norm_names <= still
    assert "head.weight" not in still


def test_its_loss_is_the_query_loss_at_the_end():
    case, task = Case("reptile", inner_steps=2, **WHOLE), images()
    wide = expand(case.groups, 3)
    *_, end = case.method.trajectory(wide, task.support, 2)
    outputs = case.method.outputs(wide, end, task.query.x, ("meta",))["meta"]
    want = case.method.criterion(outputs, task.query.y)
    loss, scores = case.method.outer_loss(wide, task)
    assert torch.allclose(loss, want, atol=1e-12)
    assert torch.allclose(scores.loss["meta"], want, atol=1e-12)
    assert torch.equal(scores.score["meta"], case.method.score(outputs, task.query.y))


def test_it_has_no_co_learner_and_says_why():
    with pytest.raises(UserError, match=r"reptile\+cml does not exist: .* difference of parameter"):
        registry.method("reptile+cml")
