"""Operations on maps (n, C, H, W) whose derivatives, of any order, are operations of the same kind.

torch's own second derivatives of a convolution, a batch's statistics and a max-pool are right and slow: they swap batch
and channels, or mix memory layouts. These keep the layout that they get.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


class Conv(torch.autograd.Function):
    """3x3 convolution of maps (n, T*C, H, W) with weights (T*F, C, 3, 3), T groups, padded by 1.

    Its derivatives are itself with the turned kernel, and :class:`ConvWeight`, whose derivatives are these two again.
    So second derivatives are convolutions of the same kind, where torch's own would swap batch and channels.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        return F.conv2d(*_alike(x, weight), padding=1, groups=groups)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        at_x = Conv.apply(grad, _turned(weight, ctx.groups), ctx.groups) if ctx.needs_input_grad[0] else None
        at_weight = ConvWeight.apply(x, grad, ctx.groups) if ctx.needs_input_grad[1] else None
        return at_x, at_weight, None


class ConvWeight(torch.autograd.Function):
    """The derivative (T*F, C, 3, 3) of <grad, :class:`Conv` of x> for the weights: bilinear in x and grad."""

    @staticmethod
    def forward(ctx, x: Tensor, grad: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, grad)
        ctx.groups = groups
        x, grad = _alike(x, grad)
        like = x.new_empty(grad.shape[1], x.shape[1] // groups, 3, 3).contiguous(memory_format=layout(x))
        pair = [1, 1]
        return torch.ops.aten.convolution_backward(
            grad, x, like, None, pair, pair, pair, False, [0, 0], groups, [False, True, False]
        )[1]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, outer = ctx.saved_tensors
        at_x = Conv.apply(outer, _turned(grad, ctx.groups), ctx.groups) if ctx.needs_input_grad[0] else None
        at_grad = Conv.apply(x, grad, ctx.groups) if ctx.needs_input_grad[1] else None
        return at_x, at_grad, None


class Centred(torch.autograd.Function):
    """A map (n, C, H, W) minus the mean of each channel: its own derivative.

    Here and in :class:`MeanSquare` torch's own derivatives would spread a number per channel over a map of another
    layout, and what meets that map is slow.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x - x.mean((0, 2, 3), keepdim=True)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return Centred.apply(grad)


class MeanSquare(torch.autograd.Function):
    """Mean square (1, C, 1, 1) of each channel of a map (n, C, H, W)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x * x).mean((0, 2, 3), keepdim=True)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * (grad * (2 / (x.numel() / x.shape[1])))


class MaxPool(torch.autograd.Function):
    """Max-pool 2 of maps; the derivative is :class:`_Spread`, and not also a map of zeros for the values as torch's."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        pooled, places = torch.ops.aten.max_pool2d_with_indices(x, [2, 2])
        ctx.save_for_backward(x.detach(), places)
        return pooled

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _Spread.apply(grad, *ctx.saved_tensors)


class _Spread(torch.autograd.Function):
    """Pooled values at their places in a map like ``x``, and zeros; the transpose of :class:`_Pick`."""

    @staticmethod
    def forward(ctx, pooled: Tensor, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(x, places)
        pair, one = [2, 2], [1, 1]
        return torch.ops.aten.max_pool2d_with_indices_backward(pooled, x, pair, pair, [0, 0], one, False, places)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Pick.apply(grad, *ctx.saved_tensors), None, None


class _Pick(torch.autograd.Function):
    """The values of a map at the places (n, C, H', W') of its maxima."""

    @staticmethod
    def forward(ctx, grad: Tensor, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(x, places)
        flat, index = (v.permute(0, 2, 3, 1).flatten(1, 2) for v in (grad, places))
        return flat.gather(1, index).unflatten(1, places.shape[2:]).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Spread.apply(grad, *ctx.saved_tensors), None, None


def _alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """In the smaller of their types: with precision bf16 derivatives are of it, and parameters are not."""
    if a.dtype == b.dtype:
        return a, b
    dtype = min(a.dtype, b.dtype, key=lambda d: d.itemsize)
    return a.to(dtype), b.to(dtype)


def layout(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _turned(weight: Tensor, groups: int) -> Tensor:
    """The kernel of the transposed convolution: (T*F, C, 3, 3) -> (T*C, F, 3, 3), turned by half a circle."""
    turned = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)
    return turned.contiguous(memory_format=layout(weight))
