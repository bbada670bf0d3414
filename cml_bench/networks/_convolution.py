"""3x3 convolution of maps (n, C, H, W) whose derivatives of any order are convolutions of its kind.

torch's own second derivatives of a convolution are right and slow: they swap batch and channels,
or mix memory layouts. The functions here keep the layout of the maps that they get.
"""

from math import inf
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cml_bench.networks._autograd import Context
from cml_bench.networks._maps import alike, images_at_once, layout

# From so many pixels of a map on, matrix products beat the library's weight derivative: see _wide.
# With AVX-512 they never do: the library has a kernel of its own for maps with channels last.
_WIDE = inf if torch.backends.cpu.get_cpu_capability() == "AVX512" else 10 * 10


class _Grouped(Context, Protocol):
    """The context of a convolution of several tasks."""

    groups: int


class Conv(torch.autograd.Function):
    """3x3 convolution of maps (n, T*C, H, W) with weights (T*F, C, 3, 3), T groups, padded by 1.

    With grad (n, T*F, H, W), the number <grad, Conv(x, weight)> is linear in grad, x and weight.
    Its derivative by each of the three is this function, :class:`ConvInput` or
    :class:`ConvWeight`. So the derivatives of these three, of any order, are the same three again.
    """

    @staticmethod
    def forward(ctx: _Grouped, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        return F.conv2d(*alike(x, weight), padding=1, groups=groups)

    @staticmethod
    def backward(ctx: _Grouped, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        at_x = ConvInput.apply(grad, weight, ctx.groups) if ctx.needs_input_grad[0] else None
        at_weight = ConvWeight.apply(x, grad, ctx.groups) if ctx.needs_input_grad[1] else None
        return at_x, at_weight, None


class ConvInput(torch.autograd.Function):
    """The derivative (n, T*C, H, W) of <grad, :class:`Conv` of x> by x."""

    @staticmethod
    def forward(ctx: _Grouped, grad: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.groups = groups
        grad, weight = alike(grad, weight)
        shape = (len(grad), groups * weight.shape[1], *grad.shape[2:])
        like = grad  # only its shape is read
        if grad.shape != shape:
            like = torch.empty(
                shape, dtype=grad.dtype, device=grad.device, memory_format=layout(grad)
            )
        return _conv_backward(grad, like, weight, groups)[0]

    @staticmethod
    def backward(ctx: _Grouped, x: Tensor) -> tuple[Tensor | None, ...]:
        grad, weight = ctx.saved_tensors
        at_grad = Conv.apply(x, weight, ctx.groups) if ctx.needs_input_grad[0] else None
        at_weight = ConvWeight.apply(x, grad, ctx.groups) if ctx.needs_input_grad[1] else None
        return at_grad, at_weight, None


class ConvWeight(torch.autograd.Function):
    """The derivative (T*F, C, 3, 3) of <grad, :class:`Conv` of x> by the weights."""

    @staticmethod
    def forward(ctx: _Grouped, x: Tensor, grad: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, grad)
        ctx.groups = groups
        x, grad = alike(x, grad)
        if _wide(x, groups):
            return _weight_by_rows(x, grad)
        like = x.new_empty(grad.shape[1], x.shape[1] // groups, 3, 3).contiguous(
            memory_format=layout(x)
        )
        return _conv_backward(grad, x, like, groups, at_weight=True)[1]

    @staticmethod
    def backward(ctx: _Grouped, weight: Tensor) -> tuple[Tensor | None, ...]:
        x, grad = ctx.saved_tensors
        at_x = ConvInput.apply(grad, weight, ctx.groups) if ctx.needs_input_grad[0] else None
        at_grad = Conv.apply(x, weight, ctx.groups) if ctx.needs_input_grad[1] else None
        return at_x, at_grad, None


def _conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, groups: int, at_weight: bool = False
) -> tuple[Tensor, ...]:
    """torch's derivatives by the input, the weights and the bias; only one of them is made."""
    one, wanted = [1, 1], [not at_weight, at_weight, False]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, one, one, one, False, [0, 0], groups, wanted
    )


def _wide(x: Tensor, groups: int) -> bool:
    """Whether matrix products beat the library's weight derivative.

    They do on some CPUs, for large maps of one task with channels last.
    """
    return (
        groups == 1
        and not x.is_cuda
        and x.shape[2] * x.shape[3] >= _WIDE
        and layout(x) == torch.channels_last
    )


def _weight_by_rows(x: Tensor, grad: Tensor) -> Tensor:
    """The weight derivative (F, C, 3, 3) of one task: one matrix product for each kernel row.

    The other factor is ``x`` beside its left and right neighbours. Sums over parts are float32 at
    least.
    """
    n, channels, height, width = x.shape
    dtype = torch.promote_types(x.dtype, torch.float32)
    step = images_at_once(3 * x[0].numel() * x.element_size())
    beside = x.new_empty(min(step, n), height, width, 3, channels)
    beside[:, :, 0, 0] = beside[:, :, -1, 2] = 0
    rows = x.new_zeros(3, grad.shape[1], 3 * channels, dtype=dtype)
    for first in range(0, n, step):
        inner = x[first : first + step].permute(0, 2, 3, 1)
        at = grad[first : first + step].permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)
        some = beside[: len(inner)]
        some[:, :, 1:, 0] = inner[:, :, :-1]
        some[:, :, :, 1] = inner
        some[:, :, :-1, 2] = inner[:, :, 1:]
        some = some.flatten(3).flatten(1, 2)
        rows[0] += torch.bmm(at[:, :, width:], some[:, :-width]).sum(0, dtype=dtype)
        rows[1] += torch.bmm(at, some).sum(0, dtype=dtype)
        rows[2] += torch.bmm(at[:, :, :-width], some[:, width:]).sum(0, dtype=dtype)
    return rows.to(x.dtype).unflatten(2, (3, channels)).permute(1, 3, 0, 2)
