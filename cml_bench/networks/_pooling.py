"""Max-pool, batch statistics and ReLU of maps (n, C, H, W), with fast derivatives of any order.

torch's own second derivatives of batch statistics and of a max-pool are right and slow. The
functions here keep the layout of the maps that they get. Their derivatives are functions of the
same kind, or ordinary operations.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cml_bench.networks._autograd import Context
from cml_bench.networks._maps import CHANNEL, flat, layout, opened, parts, picked, total


class Pooled(torch.autograd.Function):
    """Max-pool 2 of maps (n, C, H, W) minus each channel's mean, and variances (1, C, 1, 1).

    With N = n H W the derivative by the map z is

        g_z = spread(g_pooled) - sum(g_pooled) / N + 2 / N * g_var * (z - mean):

    one pass over the map, plus the pooled values added at their places. Mean, variance and pool
    need no map of their own. Statistics are float32 at least. They are taken of some images at a
    time and then joined.
    """

    @staticmethod
    def forward(ctx: Context, z: Tensor) -> tuple[Tensor, Tensor]:
        shape = (*z.shape[:2], z.shape[2] // 2, z.shape[3] // 2)
        pooled = torch.empty(shape, dtype=z.dtype, device=z.device, memory_format=layout(z))
        places = torch.empty_like(pooled, dtype=torch.int64)
        dtype = torch.promote_types(z.dtype, torch.float32)
        some_images, statistics = parts(z), []
        room = torch.empty_like(z[some_images[0]], dtype=dtype)
        for some in some_images:
            maps = z[some]
            torch.ops.aten.max_pool2d_with_indices.out(
                maps, [2, 2], out=pooled[some], indices=places[some]
            )
            middle = maps.mean(CHANNEL, keepdim=True, dtype=dtype)
            centred = torch.sub(maps, middle, out=room[: len(maps)])
            within = centred.mul_(centred).mean(CHANNEL, keepdim=True)
            statistics.append((len(maps) / len(z), middle, within))
        mean = total(share * middle for share, middle, _ in statistics)
        var = total(share * (within + (middle - mean) ** 2) for share, middle, within in statistics)
        ctx.save_for_backward(z, mean, places)
        return pooled.sub_(mean), var

    @staticmethod
    def backward(ctx: Context, at_pooled: Tensor, at_var: Tensor) -> Tensor:
        return _FromPooled.apply(at_pooled, at_var, *ctx.saved_tensors)


class _FromPooled(torch.autograd.Function):
    """The derivative of :class:`Pooled`, which is linear in ``at_pooled`` and ``at_var``.

    Its own derivatives are written in ordinary operations.
    """

    @staticmethod
    def forward(
        ctx: Context, at_pooled: Tensor, at_var: Tensor, z: Tensor, mean: Tensor, places: Tensor
    ) -> Tensor:
        ctx.save_for_backward(at_var, z, mean, places)
        count = z.numel() // z.shape[1]
        slope = at_var * (2 / count)
        shift = at_pooled.sum(CHANNEL, keepdim=True) / -count - slope * mean
        last = layout(z) == torch.channels_last
        out = torch.empty_like(z, dtype=torch.result_type(z, shift))
        view = (
            out.permute(0, 2, 3, 1).view(len(z), -1, z.shape[1])
            if last
            else out.view(*z.shape[:2], -1)
        )
        for some in parts(z):
            torch.addcmul(shift, z[some], slope, out=out[some])
            at, where = flat(at_pooled[some].to(out.dtype), last), flat(places[some], last)
            view[some].scatter_add_(1 if last else 2, where, at)
        return out

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        at_var, z, mean, places = ctx.saved_tensors
        if torch.is_grad_enabled():  # the caller wants a derivative of this one too
            mean = z.mean(CHANNEL, keepdim=True, dtype=mean.dtype)
        middle, slope = grad.mean(CHANNEL, keepdim=True), at_var * (2 * z.shape[1] / z.numel())
        at_at_var = 2 * ((grad * z).mean(CHANNEL, keepdim=True) - middle * mean)
        at_z = torch.addcmul(-middle * slope, grad, slope)
        return picked(grad, places) - middle, at_at_var, at_z, None, None


class _Sloped(Context, Protocol):
    """The context of a leaky ReLU."""

    slope: float


class ScaledReLU(torch.autograd.Function):
    """The leaky ReLU of shift + z * factor: maps (n, C, H, W), factor and shift (1, C, 1, 1)."""

    @staticmethod
    def forward(ctx: _Sloped, z: Tensor, factor: Tensor, shift: Tensor, slope: float) -> Tensor:
        out = torch.empty_like(z, dtype=torch.result_type(z, factor))
        for some in parts(z):
            F.leaky_relu_(torch.addcmul(shift, z[some], factor, out=out[some]), slope)
        ctx.save_for_backward(z, factor, out)
        ctx.slope = slope
        return out

    @staticmethod
    def backward(ctx: _Sloped, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, factor, out = ctx.saved_tensors
        out = out.detach()  # its signs say where the ReLU is open
        if torch.is_grad_enabled():  # the caller wants a derivative of this one too
            inner = torch.ops.aten.leaky_relu_backward(grad, out, ctx.slope, True)
            at_factor = (inner * z).sum(CHANNEL, keepdim=True)
            return inner * factor, at_factor, inner.sum(CHANNEL, keepdim=True), None
        at_z = torch.empty_like(z)
        at_factor, at_shift = torch.zeros_like(factor), torch.zeros_like(factor)
        some_images = parts(z)
        room = torch.empty_like(out[some_images[0]])
        for some in some_images:
            inner = opened(grad[some], out[some], ctx.slope, room)
            at_shift += inner.sum(CHANNEL, keepdim=True)
            torch.mul(inner, factor, out=at_z[some])
            at_factor += inner.mul_(z[some]).sum(CHANNEL, keepdim=True)
        return at_z, at_factor, at_shift, None
