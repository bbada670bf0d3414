"""Every path of the engine against the obvious loop, and laws of MAML. float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.step import expand
from cml_bench.networks import _convolution, _maps
from tests.helpers.cases import Case, images, random, relative, waves

# -- the engine is the obvious loop


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize(("net", "path"), [("conv4", "plain"), ("conv4", "fast"), ("mlp", "fast")])
@pytest.mark.parametrize("name", ["maml", "maml+cml"])
def test_meta_gradient(name, net, path, steps, first_order):
    case = Case(name, net, path, inner_steps=steps, first_order=first_order)
    task = images() if net == "conv4" else waves()
    scores, grads = case.engine_gradient(task)
    loss, want = case.reference_gradient(task)
    assert relative(grads, want) < 1e-10
    total = scores.loss["meta"].mean() + (
        case.gamma * scores.loss["co"].mean() if name == "maml+cml" else 0
    )
    assert abs(total - loss) < 1e-12


@settings(max_examples=12, derandomize=True, deadline=None)
@given(
    way=st.integers(2, 4),
    shot=st.integers(1, 2),
    query=st.integers(1, 3),
    tasks=st.integers(1, 5),
    channels=st.sampled_from([1, 3, 5]),
    size=st.sampled_from([16, 21, 28]),
    at_once=st.integers(1, 5),
    adapt_norm=st.booleans(),
    path=st.sampled_from(["plain", "fast"]),
    depth=st.integers(0, 3),
    large=st.booleans(),
)
@example(  # every ReLU of a block is dead
    way=4,
    shot=1,
    query=2,
    tasks=3,
    channels=1,
    size=16,
    at_once=1,
    adapt_norm=False,
    path="plain",
    depth=0,
    large=False,
)
def test_meta_gradient_of_any_shape(
    way, shot, query, tasks, channels, size, at_once, adapt_norm, path, depth, large
):
    """``large``: maps are treated like maps that do not fit the cache."""
    case = Case(
        path=path,
        way=way,
        channels=channels,
        size=size,
        filters=2 + tasks % 3,
        depth=depth,
        adapt_norm=adapt_norm,
    )
    task = images(tasks, way, shot, query, channels, size)
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((_convolution, "_WIDE"), (_maps, "_CACHED")) if large else ():
            patch.setattr(module, name, 1)
        got = case.engine_gradient(task, at_once)[1]
    assert relative(got, case.reference_gradient(task)[1]) < 1e-10


def test_vmap_over_batch_norm_is_wrong_and_our_batched_path_is_not():
    """This is why tasks are folded into channels.

    Under vmap, second-order gradients through F.batch_norm are wrong.
    """
    case = Case("maml", path="plain")
    task = images()

    def one(p, xs, ys, xq, yq):
        def support(q):
            return F.cross_entropy(case.ref.head(q, case.ref.features(q, xs)), ys)

        grads = torch.func.grad(support)(p)
        adapted = {n: p[n] - case.options.inner_lr * grads[n] for n in p}
        return F.cross_entropy(case.ref.head(adapted, case.ref.features(adapted, xq)), yq)

    def mean_loss(p):
        losses = torch.func.vmap(one, in_dims=(None, 0, 0, 0, 0))(p, *task.support, *task.query)
        return losses.mean()

    params = {n: p.detach() for n, p in case.groups["base"].items()}
    vmapped = {("base", n): g for n, g in torch.func.grad(mean_loss)(params).items()}
    _, want = case.reference_gradient(task)
    assert relative(case.engine_gradient(task)[1], want) < 1e-10
    if relative(vmapped, want) < 1e-6:
        pytest.skip("this torch computes it right: the trap is gone")
    assert relative(vmapped, want) > 1e-3


# -- MAML


@pytest.mark.parametrize("net", ["conv4", "mlp"])
def test_without_an_inner_step_size_the_meta_gradient_is_the_query_gradient(net):
    case = Case("maml", net, inner_lr=0.0)
    task = images() if net == "conv4" else waves()
    wide = expand(case.groups, 3)
    loss = case.method.criterion(
        case.method.outputs(wide, wide["base"], task.query.x, ("meta",))["meta"], task.query.y
    )
    plain = torch.autograd.grad(
        loss.mean(), list(case.groups["base"].values()), materialize_grads=True
    )
    want = {("base", n): g for n, g in zip(case.groups["base"], plain, strict=True)}
    assert relative(case.engine_gradient(task)[1], want) < 1e-12


def test_first_order_gradient_is_the_query_gradient_at_the_adapted_parameters():
    case, task = Case("maml", inner_steps=3, first_order=True), images()
    wide = expand(case.groups, 3)
    *_, adapted = case.method.trajectory(wide, task.support, 3)
    at = {n: p.detach().requires_grad_() for n, p in adapted.items()}
    loss = case.method.criterion(
        case.method.outputs(wide, at, task.query.x, ("meta",))["meta"], task.query.y
    )
    grads = torch.autograd.grad(loss.sum() / 3, list(at.values()), materialize_grads=True)
    want = {("base", n): g.sum(0) for n, g in zip(at, grads, strict=True)}
    assert relative(case.engine_gradient(task)[1], want) < 1e-14


@pytest.mark.parametrize("name", ["maml", "maml+cml"])
@pytest.mark.parametrize("steps", [1, 3])
def test_finite_differences_on_a_smooth_network(name, steps):
    case, task = Case(name, "mlp", activation="tanh", inner_steps=steps), waves()
    _, grads = case.engine_gradient(task)
    direction = {key: random(*g.shape, name=str(key)) - 0.5 for key, g in grads.items()}

    def loss_at(h: float) -> float:
        with torch.no_grad():
            for (g, n), d in direction.items():
                case.groups[g][n] += h * d
        value = case.method.outer_loss(expand(case.groups, 3), task)[0].mean().item()
        with torch.no_grad():
            for (g, n), d in direction.items():
                case.groups[g][n] -= h * d
        return value

    h = 1e-5
    slope = (loss_at(h) - loss_at(-h)) / (2 * h)
    want = sum(float((grads[key] * d).sum()) for key, d in direction.items())
    assert abs(slope - want) < 1e-8 * max(1, abs(want))


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_a_bias_in_front_of_batch_norm_has_no_gradient(path):
    _, grads = Case(path=path).engine_gradient(images())
    biases = [g for (_, n), g in grads.items() if n.startswith("conv") and n.endswith("bias")]
    assert len(biases) == 6
    assert max(float(g.abs().max()) for g in biases) < 1e-12


def test_permuted_labels_with_permuted_head_rows_change_nothing():
    case, task = Case("maml"), images()
    scores, grads = case.engine_gradient(task)
    order = torch.tensor([2, 0, 1])
    place = torch.argsort(order)
    with torch.no_grad():
        for key in ("head.weight", "head.bias"):
            case.groups["base"][key].copy_(case.groups["base"][key].clone()[order])
    turned = Task(*(Examples(e.x, place[e.y]) for e in task))
    scores_, grads_ = case.engine_gradient(turned)
    assert torch.allclose(scores.loss["meta"], scores_.loss["meta"], atol=1e-12)
    for key, g in grads.items():
        want = g[order] if key[1].startswith("head") else g
        assert torch.allclose(grads_[key], want, atol=1e-11)


def test_one_vector_added_to_all_head_rows_changes_nothing():
    case, task = Case("maml"), images()
    before, _ = case.engine_gradient(task)
    with torch.no_grad():
        case.groups["base"]["head.weight"] += random(1, 4, name="shift")
    after, _ = case.engine_gradient(task)
    assert torch.allclose(before.loss["meta"], after.loss["meta"], atol=1e-12)


def test_the_meta_gradient_is_the_mean_over_tasks_in_any_order():
    case, task = Case(), images(tasks=4)
    _, whole = case.engine_gradient(task)
    singles = [case.engine_gradient(task.part(i, i + 1))[1] for i in range(4)]
    mean = {key: sum(g[key] for g in singles) / 4 for key in whole}
    assert relative(whole, mean) < 1e-10
    turned = Task(*(Examples(e.x.flip(0), e.y.flip(0)) for e in task))
    assert relative(case.engine_gradient(turned)[1], whole) < 1e-10


def test_batch_norm_is_transductive_and_support_acts_through_the_adapted_weights_only():
    case, task = Case(), images(query=3)
    wide = expand(case.groups, 3)
    *_, adapted = case.method.trajectory(wide, task.support, 1)
    out = case.method.outputs(wide, adapted, task.query.x, ("meta",))["meta"]
    changed = task.query.x.clone()
    changed[:, 0] += 0.3
    again = case.method.outputs(wide, adapted, changed, ("meta",))["meta"]
    assert float((again - out).detach()[:, 1:].abs().max()) > 1e-3, (
        "one query image changes the logits of the others"
    )
    frozen = Case(inner_lr=0.0)
    other = images(query=3, name="other")
    mixed = Task(other.support, task.query)
    assert torch.equal(
        frozen.engine_gradient(task)[0].loss["co"], frozen.engine_gradient(mixed)[0].loss["co"]
    )
