"""The fast path's convolution blocks: values, derivatives, number formats and memory layout."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cml_bench.networks import _convolution, _maps, _patches, _pooling, base
from tests.helpers.cases import random


def _map(*shape: int) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return values.contiguous(memory_format=torch.channels_last).requires_grad_()


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
    """First and second derivatives agree with finite differences.

    A third derivative is checked too: it is made of the same functions again.
    """
    monkeypatch.setattr(_maps, "_CACHED", 2 * 3 * 20 * 8)  # in parts of one or two images
    monkeypatch.setattr(_convolution, "_WIDE", 12)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)

    def gradient(*values):
        outputs = function(*values)
        total = sum(
            value.pow(3).sum() for value in (outputs if isinstance(outputs, tuple) else (outputs,))
        )
        return torch.autograd.grad(total, values, create_graph=True)

    assert torch.autograd.gradgradcheck(gradient, inputs)


@pytest.mark.parametrize("scale", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("size", [(16, 16), (17, 19)])
def test_the_fast_first_block_is_the_block(size, scale, monkeypatch):
    """Values and two derivatives, for two tasks, odd sizes and scales of all signs.

    Ties go to one place.
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
    """A place has 16 bits in maps of up to 2**15 pixels, and 32 bits in larger ones."""
    weight, patches = _weights(1, 2, 3), _weights(2, 1, 3, size[0] * size[1]).detach()
    got = _patches.PooledProduct.apply(weight, patches, size, 0.1)
    maps = (weight @ patches).unflatten(3, size).flatten(0, 1)
    want = torch.nn.functional.leaky_relu(torch.nn.functional.max_pool2d(maps, 2), 0.1)
    assert torch.allclose(got, want, atol=1e-12)
    gradients = (torch.autograd.grad(value.pow(2).sum(), weight)[0] for value in (got, want))
    assert torch.allclose(*gradients, rtol=1e-10)


def test_derivatives_take_what_autocast_makes_of_them_on_a_gpu():
    """Autocast has other lists of operations for a GPU than for a CPU.

    The tensors have no values, so the test needs no GPU.
    """

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
    """There are 257 images of 16 pooled places each; in bf16, 4096 + 16 is 4096."""
    monkeypatch.setattr(_maps, "_CACHED", 1)
    weight, patches = torch.tensor([[[0.0, 1.0]]]).requires_grad_(), torch.ones(257, 1, 2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        out = _patches.PooledProduct.apply(weight, patches, (8, 8), 0.0)
        (grad,) = torch.autograd.grad(out.sum(dtype=torch.float32), weight)
    assert out.dtype == torch.bfloat16
    assert grad[0, 0, 1] == 257 * 16


def test_a_weight_derivative_in_16_bits_adds_up_in_32(monkeypatch):
    """There are 300 images of 16 pixels, taken one at a time; in bf16, 4096 + 16 is 4096."""
    monkeypatch.setattr(_maps, "_CACHED", 1)
    ones = torch.ones(300, 1, 4, 4, dtype=torch.bfloat16).contiguous(
        memory_format=torch.channels_last
    )
    grad = _convolution._weight_by_rows(ones, ones)
    assert grad.dtype == torch.bfloat16
    assert grad[0, 0, 1, 1] == 300 * 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bright_images_of_little_contrast_have_variances(dtype):
    """A variance is a difference of large numbers: from products in bf16 some would be below 0."""
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
    """A kernel that is its centre alone sees no border.

    In products that include the mean, 30 squared would hide a variance of 0.0004.
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
    """Mixed layouts are right but slow: the second derivative must stay channels last."""
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
