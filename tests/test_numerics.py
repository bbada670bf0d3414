"""Every path of the engine against the obvious loop, and the invariants of MAML. float64."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.step import expand
from cml_bench.networks import _convolution, _maps, _patches, _pooling, base
from tests.helpers.cases import Case, images, random, relative, waves

# -- the engine is the obvious loop
# -------------------------------------------------------------------


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
    """``large``: maps are treated as those that do not fit the cache."""
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
    """Why tasks are folded into channels: with vmap, second-order gradients through F.batch_norm go
    astray.
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
# ---------------------------------------------------------------------------------------------


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


# -- the fast block's own functions
# -----------------------------------------------------------------------


def _map(*shape: int) -> torch.Tensor:
    found = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return found.contiguous(memory_format=torch.channels_last).requires_grad_()


def _weights(*shape: int) -> torch.Tensor:
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    ).requires_grad_()


_pooled = _patches.PooledProduct.apply


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda x, w: _convolution.Conv.apply(x, w, 1), (_map(2, 3, 4, 5), _map(2, 3, 3, 3))),
        (lambda x, w: _convolution.Conv.apply(x, w, 2), (_map(2, 6, 4, 3), _map(4, 3, 3, 3))),
        (lambda g, w: _convolution.ConvInput.apply(g, w, 2), (_map(2, 4, 4, 3), _map(4, 3, 3, 3))),
        (lambda x, g: _convolution.ConvWeight.apply(x, g, 2), (_map(2, 6, 4, 3), _map(2, 4, 4, 3))),
        (lambda x, g: _convolution.ConvWeight.apply(x, g, 1), (_map(2, 3, 4, 3), _map(2, 2, 4, 3))),
        (_pooling.Pooled.apply, (_map(3, 2, 5, 5),)),
        (
            lambda x: _pooling.Pooled.apply(x)[0] * _pooling.Pooled.apply(x)[1] ** 2,
            (_map(2, 2, 5, 4),),
        ),
        (lambda x: _pooling.Pooled.apply(x.contiguous())[0] ** 2, (_map(2, 2, 4, 4),)),
        (lambda x: _pooling.Pooled.apply(x.contiguous())[0] ** 2, (_map(2, 3, 3, 2),)),
        (
            lambda z, f: _pooling.ScaledReLU.apply(z, f, f + 0.1, 0.1),
            (_map(3, 2, 9, 5), _weights(1, 2, 1, 1)),
        ),
        (_pooling.Pooled.apply, (_map(5, 4, 5, 3),)),
        (lambda w: _pooled(w, _weights(5, 1, 4, 20).detach(), (4, 5), 0.0), (_weights(1, 3, 4),)),
        (lambda w: _pooled(w, _weights(3, 2, 4, 20).detach(), (4, 5), 0.1), (_weights(2, 3, 4),)),
    ],
    ids=[
        "conv",
        "conv of 2 tasks",
        "input gradient",
        "weight gradient",
        "weight gradient of one task",
        "pooled",
        "pooled and variance",
        "pooled, channels first",
        "pooled to one place",
        "scaled ReLU",
        "pooled in parts of two and three",
        "pooled product in parts of two and three",
        "pooled product of 2 tasks",
    ],
)
def test_what_the_fast_block_is_made_of_has_right_derivatives(function, inputs, monkeypatch):
    """First and second, against finite differences; a third one too, which is of the same functions
    again.
    """
    monkeypatch.setattr(_maps, "_CACHED", 2 * 3 * 20 * 8)  # in parts of one or two images
    monkeypatch.setattr(_convolution, "_WIDE", 12)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)

    def gradient(*values):
        found = function(*values)
        total = sum(
            value.pow(3).sum() for value in (found if isinstance(found, tuple) else (found,))
        )
        return torch.autograd.grad(total, values, create_graph=True)

    assert torch.autograd.gradgradcheck(gradient, inputs)


@pytest.mark.parametrize("scale", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("size", [(16, 16), (17, 19)])
def test_the_fast_first_block_is_the_block(size, scale, monkeypatch):
    """Values, first and second derivatives, for two tasks, odd sizes, and scales of all signs; ties
    go to one place.
    """
    monkeypatch.setattr(_maps, "_CACHED", 2**14)
    x = random(2, 3, 1, *size, name="x")
    params = {
        "conv1.weight": _weights(2, 4, 1, 3, 3),
        "conv1.bias": torch.zeros(2, 4, dtype=torch.float64),
        "norm1.weight": (scale * _weights(2, 4).abs()).detach().requires_grad_(),
        "norm1.bias": _weights(2, 4),
    }
    leaves = [p for p in params.values() if p.requires_grad]

    def derivatives(out: torch.Tensor) -> list[torch.Tensor]:
        first = torch.autograd.grad(out.pow(3).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.pow(2).sum() for g in first), leaves)
        return [out, *first, *second]

    got = derivatives(base.fast_first_block(params, "1", base.Covered.by(x), 0.1))
    want = derivatives(base.block(params, "1", base.fold(x), pool=True, slope=0.1))
    for ours, theirs in zip(got, want, strict=True):
        assert torch.allclose(
            ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.detach().abs().max()) + 1e-12
        )


@pytest.mark.parametrize("size", [(180, 182), (182, 183)], ids=["in 16 bits", "in 32 bits"])
def test_places_of_large_maps_are_kept_whole(size):
    """Up to 2**15 pixels a place has 16 bits."""
    weight, patches = _weights(1, 2, 3), _weights(2, 1, 3, size[0] * size[1]).detach()
    got = _patches.PooledProduct.apply(weight, patches, size, 0.1)
    maps = (weight @ patches).unflatten(3, size).flatten(0, 1)
    want = torch.nn.functional.leaky_relu(torch.nn.functional.max_pool2d(maps, 2), 0.1)
    assert torch.allclose(got, want, atol=1e-12)
    gradients = (torch.autograd.grad(value.pow(2).sum(), weight)[0] for value in (got, want))
    assert torch.allclose(*gradients, rtol=1e-10)


def test_derivatives_take_what_autocast_makes_of_them_on_a_gpu():
    """Its lists are others than a CPU's; no values here, so no GPU is needed."""

    def context():
        return SimpleNamespace(save_for_backward=lambda *saved: None)

    with FakeTensorMode():
        z = torch.empty(2, 3, 8, 8, device="cuda", dtype=torch.bfloat16).contiguous(
            memory_format=torch.channels_last
        )
        before = torch.get_autocast_dtype("cuda")
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            pooled, var = _pooling.Pooled.forward(context(), z)
            mean, places = var, torch.empty_like(pooled, dtype=torch.int64)
            out = _pooling._FromPooled.forward(context(), pooled, var, z, mean, places)
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.set_autocast_dtype("cuda", before)
    assert (pooled.dtype, var.dtype, out.shape) == (torch.bfloat16, torch.float32, z.shape)


def test_parts_in_16_bits_add_up_in_32(monkeypatch):
    """257 images of 16 pooled places each: of bf16 numbers, 4096 + 16 is 4096."""
    monkeypatch.setattr(_maps, "_CACHED", 1)
    weight, patches = torch.tensor([[[0.0, 1.0]]]).requires_grad_(), torch.ones(257, 1, 2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        out = _patches.PooledProduct.apply(weight, patches, (8, 8), 0.0)
        (found,) = torch.autograd.grad(out.sum(dtype=torch.float32), weight)
    assert out.dtype == torch.bfloat16
    assert found[0, 0, 1] == 257 * 16


def test_a_weight_derivative_in_16_bits_adds_up_in_32(monkeypatch):
    """300 images of 16 pixels, one at a time; of bf16 numbers, 4096 + 16 is 4096."""
    monkeypatch.setattr(_maps, "_CACHED", 1)
    ones = torch.ones(300, 1, 4, 4, dtype=torch.bfloat16).contiguous(
        memory_format=torch.channels_last
    )
    found = _convolution._weight_by_rows(ones, ones)
    assert found.dtype == torch.bfloat16
    assert found[0, 0, 1, 1] == 300 * 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bright_images_of_little_contrast_have_variances(dtype):
    """Differences of large numbers: of products in bf16 some variance would be below 0."""
    x = 0.85 + 0.1 * random(1, 20, 3, 1, 1, name="bright").expand(-1, -1, -1, 32, 32).to(
        torch.float32
    )
    x = x + 0.002 * random(1, 20, 3, 32, 32, name="grain").to(torch.float32)
    params = {
        "conv1.weight": _weights(1, 64, 3, 3, 3).to(torch.float32) / 5,
        "conv1.bias": torch.zeros(1, 64),
        "norm1.weight": torch.ones(1, 64),
        "norm1.bias": torch.zeros(1, 64),
    }
    want = base.block(params, "1", base.fold(x), pool=True)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        got = base.fast_first_block(params, "1", base.Covered.by(x))
    assert torch.isfinite(got).all()
    assert (got - want).abs().max() < (1e-3 if dtype == torch.float32 else 0.3)


def test_inputs_far_from_zero_keep_their_variances():
    """A centre tap sees no border; of products with the mean left in, 30 squared would hide a
    variance of 0.0004.
    """
    x = 30 + 0.02 * random(2, 3, 1, 20, 20, name="grain").to(torch.float32)
    params = {
        "conv1.weight": torch.zeros(2, 4, 1, 3, 3),
        "conv1.bias": torch.zeros(2, 4),
        "norm1.weight": torch.ones(2, 4),
        "norm1.bias": torch.zeros(2, 4),
    }
    params["conv1.weight"][..., 1, 1] = 1
    want = base.block(
        {name: p.double() for name, p in params.items()}, "1", base.fold(x.double()), pool=True
    )
    got = base.fast_first_block(params, "1", base.Covered.by(x))
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert (got - want).abs().max() < 1e-3


def test_maps_keep_their_layout_through_two_derivatives():
    """Mixed layouts are right and slow: the second derivative of a block stays channels last."""
    seen = []

    class Layouts(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for value in out if isinstance(out, (tuple, list)) else [out]:
                maps = (
                    isinstance(value, torch.Tensor)
                    and value.ndim == 4
                    and value.shape[:2] == (4, 6)
                )
                full = maps and value[0, 0].numel() > 1 and 0 not in value.stride()
                if full and not value.is_contiguous(memory_format=torch.channels_last):
                    seen.append(str(function))
            return out

    x = _map(4, 6, 8, 8)
    params = {
        "conv1.weight": _map(6, 6, 3, 3).detach()[None].requires_grad_(),
        "norm1.weight": torch.ones(1, 6, dtype=torch.float64, requires_grad=True),
        "norm1.bias": torch.zeros(1, 6, dtype=torch.float64, requires_grad=True),
    }
    with Layouts():
        out = base.fast_block(params, "1", x)
        (first,) = torch.autograd.grad(out.pow(2).sum(), params["conv1.weight"], create_graph=True)
        torch.autograd.grad(first.pow(2).sum(), [x, *params.values()])
    assert not seen
