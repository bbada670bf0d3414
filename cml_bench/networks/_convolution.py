"""Operations on maps (n, C, H, W) whose derivatives, of any order, are operations of the same kind.

torch's own second derivatives of a convolution, a batch's statistics and a max-pool are right and
slow: they swap batch and channels, or mix memory layouts. These keep the layout of the maps that
they get, which is one of torch's two. What needs several passes over a map (values and first
derivatives) makes them a few images at a time, which on a CPU stay in the cache meanwhile, and so
does the room for what lies between the passes: every part uses the same.
"""

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, inf

import torch
import torch.nn.functional as F
from torch import Tensor

_ALL = (0, 2, 3)  # a channel's values
_CACHED = 2**22  # bytes of maps that are made at a time, more or less
# Pixels of a map from which on matrix products beat the library's weight derivative (see _wide):
# never with AVX-512, for which the library has a kernel of its own for maps with their channels
# last.
_WIDE = inf if torch.backends.cpu.get_cpu_capability() == "AVX512" else 10 * 10


class Conv(torch.autograd.Function):
    """3x3 convolution of maps (n, T*C, H, W) with weights (T*F, C, 3, 3), T groups, padded by 1.

    With grad (n, T*F, H, W), <grad, Conv(x, weight)> is linear in each of the three. This,
    :class:`ConvInput` and :class:`ConvWeight` are its derivatives for one of them, so derivatives
    of any order are these again, where torch's own second ones would swap batch and channels.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        return F.conv2d(*_alike(x, weight), padding=1, groups=groups)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        at_x = ConvInput.apply(grad, weight, ctx.groups) if ctx.needs_input_grad[0] else None
        at_weight = ConvWeight.apply(x, grad, ctx.groups) if ctx.needs_input_grad[1] else None
        return at_x, at_weight, None


class ConvInput(torch.autograd.Function):
    """The derivative (n, T*C, H, W) of <grad, :class:`Conv` of x> for x."""

    @staticmethod
    def forward(ctx, grad: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.groups = groups
        grad, weight = _alike(grad, weight)
        shape = (len(grad), groups * weight.shape[1], *grad.shape[2:])
        like = grad  # only its shape is read
        if grad.shape != shape:
            like = torch.empty(
                shape, dtype=grad.dtype, device=grad.device, memory_format=layout(grad)
            )
        return _conv_backward(grad, like, weight, groups)[0]

    @staticmethod
    def backward(ctx, x: Tensor) -> tuple[Tensor | None, ...]:
        grad, weight = ctx.saved_tensors
        at_grad = Conv.apply(x, weight, ctx.groups) if ctx.needs_input_grad[0] else None
        at_weight = ConvWeight.apply(x, grad, ctx.groups) if ctx.needs_input_grad[1] else None
        return at_grad, at_weight, None


class ConvWeight(torch.autograd.Function):
    """The derivative (T*F, C, 3, 3) of <grad, :class:`Conv` of x> for the weights."""

    @staticmethod
    def forward(ctx, x: Tensor, grad: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, grad)
        ctx.groups = groups
        x, grad = _alike(x, grad)
        if _wide(x, groups):
            return _weight_by_rows(x, grad)
        like = x.new_empty(grad.shape[1], x.shape[1] // groups, 3, 3).contiguous(
            memory_format=layout(x)
        )
        return _conv_backward(grad, x, like, groups, at_weight=True)[1]

    @staticmethod
    def backward(ctx, weight: Tensor) -> tuple[Tensor | None, ...]:
        x, grad = ctx.saved_tensors
        at_x = ConvInput.apply(grad, weight, ctx.groups) if ctx.needs_input_grad[0] else None
        at_grad = Conv.apply(x, weight, ctx.groups) if ctx.needs_input_grad[1] else None
        return at_x, at_grad, None


def _conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, groups: int, at_weight: bool = False
) -> tuple:
    one, wanted = [1, 1], [not at_weight, at_weight, False]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, one, one, one, False, [0, 0], groups, wanted
    )


class Pooled(torch.autograd.Function):
    """Max-pool 2 of a map (n, C, H, W), each channel less its mean; and the channels' variances (1,
    C, 1, 1).

    The derivative g_z = spread(g_pooled) - sum(g_pooled)/N + 2/N g_var (z - mean), N = n H W, is
    one pass and the pooled values added at their places: mean, variance and pool have no map of
    their own. Statistics are float32 at least: of some images at a time, then joined.
    """

    @staticmethod
    def forward(ctx, z: Tensor) -> tuple[Tensor, Tensor]:
        shape = (*z.shape[:2], z.shape[2] // 2, z.shape[3] // 2)
        pooled = torch.empty(shape, dtype=z.dtype, device=z.device, memory_format=layout(z))
        places = torch.empty_like(pooled, dtype=torch.int64)
        dtype, found = torch.promote_types(z.dtype, torch.float32), []
        parts = _parts(z)
        room = torch.empty_like(z[parts[0]], dtype=dtype)
        for some in parts:
            maps = z[some]
            torch.ops.aten.max_pool2d_with_indices.out(
                maps, [2, 2], out=pooled[some], indices=places[some]
            )
            middle = maps.mean(_ALL, keepdim=True, dtype=dtype)
            centred = torch.sub(maps, middle, out=room[: len(maps)])
            found.append(
                (len(maps) / len(z), middle, centred.mul_(centred).mean(_ALL, keepdim=True))
            )
        mean = sum(share * middle for share, middle, _ in found)
        var = sum(share * (within + (middle - mean) ** 2) for share, middle, within in found)
        ctx.save_for_backward(z, mean, places)
        return pooled.sub_(mean), var

    @staticmethod
    def backward(ctx, at_pooled: Tensor, at_var: Tensor) -> Tensor:
        return _FromPooled.apply(at_pooled, at_var, *ctx.saved_tensors)


class _FromPooled(torch.autograd.Function):
    """The derivative of :class:`Pooled`, linear in the first two; its own are written in ordinary
    operations.
    """

    @staticmethod
    def forward(
        ctx, at_pooled: Tensor, at_var: Tensor, z: Tensor, mean: Tensor, places: Tensor
    ) -> Tensor:
        ctx.save_for_backward(at_var, z, mean, places)
        count = z.numel() // z.shape[1]
        slope = at_var * (2 / count)
        shift = at_pooled.sum(_ALL, keepdim=True) / -count - slope * mean
        last = layout(z) == torch.channels_last
        out = torch.empty_like(z, dtype=torch.result_type(z, shift))
        view = (
            out.permute(0, 2, 3, 1).view(len(z), -1, z.shape[1])
            if last
            else out.view(*z.shape[:2], -1)
        )
        for some in _parts(z):
            torch.addcmul(shift, z[some], slope, out=out[some])
            at, where = _flat(at_pooled[some].to(out.dtype), last), _flat(places[some], last)
            view[some].scatter_add_(1 if last else 2, where, at)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        at_var, z, mean, places = ctx.saved_tensors
        if torch.is_grad_enabled():
            mean = z.mean(
                _ALL, keepdim=True, dtype=mean.dtype
            )  # a derivative of this one is asked for
        middle, slope = grad.mean(_ALL, keepdim=True), at_var * (2 * z.shape[1] / z.numel())
        at_at_var = 2 * ((grad * z).mean(_ALL, keepdim=True) - middle * mean)
        return (
            _picked(grad, places) - middle,
            at_at_var,
            torch.addcmul(-middle * slope, grad, slope),
            None,
            None,
        )


class ScaledReLU(torch.autograd.Function):
    """The leaky ReLU of shift + z * factor: maps (n, C, H, W), factor and shift (1, C, 1, 1)."""

    @staticmethod
    def forward(ctx, z: Tensor, factor: Tensor, shift: Tensor, slope: float) -> Tensor:
        out = torch.empty_like(z, dtype=torch.result_type(z, factor))
        for some in _parts(z):
            F.leaky_relu_(torch.addcmul(shift, z[some], factor, out=out[some]), slope)
        ctx.save_for_backward(z, factor, out)
        ctx.slope = slope
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, factor, out = ctx.saved_tensors
        out = out.detach()  # it says where the ReLU is open
        if torch.is_grad_enabled():  # a derivative of this one is asked for
            inner = torch.ops.aten.leaky_relu_backward(grad, out, ctx.slope, True)
            return (
                inner * factor,
                (inner * z).sum(_ALL, keepdim=True),
                inner.sum(_ALL, keepdim=True),
                None,
            )
        at_z, at_factor, at_shift = (
            torch.empty_like(z),
            torch.zeros_like(factor),
            torch.zeros_like(factor),
        )
        parts = _parts(z)
        room = torch.empty_like(out[parts[0]])
        for some in parts:
            inner = _opened(grad[some], out[some], ctx.slope, room)
            at_shift += inner.sum(_ALL, keepdim=True)
            torch.mul(inner, factor, out=at_z[some])
            at_factor += inner.mul_(z[some]).sum(_ALL, keepdim=True)
        return at_z, at_factor, at_shift, None


def _flat(x: Tensor, last: bool) -> Tensor:
    """A map with its places in one dimension: (n, HW, C) where channels come last, else (n, C,
    HW).
    """
    return x.permute(0, 2, 3, 1).flatten(1, 2) if last else x.flatten(2)


def _picked(x: Tensor, places: Tensor) -> Tensor:
    """The values of a map (n, C, H, W) at the places (n, C, H', W') of its maxima."""
    last = layout(x) == torch.channels_last
    dim = 1 if last else 2
    found = _flat(x, last).gather(dim, _flat(places, last)).unflatten(dim, places.shape[2:])
    return found.permute(0, 3, 1, 2) if last else found


def patches(x: Tensor) -> tuple[Tensor, Tensor]:
    """Images (T, n, C, H, W) -> (n, T, 9C+1, H*W): their 3x3 patches, and a last row of ones.

    With them the mean (T, 9C+1, 9C+1) of their products. The images are padded with zeros, then
    less each channel's mean over the task's images, so that variances do not drown in it.
    """
    tasks, n, channels, height, width = x.shape
    middle = x.mean((1, 3, 4), keepdim=True)
    found = x.new_empty(n, tasks, 9 * channels + 1, height * width)
    products = x.new_zeros(tasks, 9 * channels + 1, 9 * channels + 1)
    for some in _parts(found):
        around = (F.pad(x[:, some], (1, 1, 1, 1)) - middle).transpose(0, 1)
        columns = found[some, :, :-1].unflatten(3, (height, width)).unflatten(2, (channels, 9))
        for place in range(9):
            i, j = divmod(place, 3)
            columns[:, :, :, place] = around[..., i : i + height, j : j + width]
        found[some, :, -1] = 1
        flat = found[some].flatten(0, 1)
        products += torch.bmm(flat, flat.transpose(1, 2)).unflatten(0, (-1, tasks)).sum(0)
    return found, products / (n * height * width)


class PooledProduct(torch.autograd.Function):
    """The leaky ReLU of max-pool 2 of w . patch: (T, F, K) with (n, T, K, H*W) -> (n, T*F, H//2,
    W//2).

    On a CPU a few images at a time: the maps, four times as large as what is pooled, stay in the
    cache, and no map is kept. Patches have no derivative here. Maps have their channels last.
    Derivatives, of any order, are the same linear map at the places of the maxima,
    :class:`_PickedProduct`, and its adjoint, :class:`_ProductWeight`.
    """

    @staticmethod
    def forward(
        ctx, weight: Tensor, patches: Tensor, size: tuple[int, int], slope: float
    ) -> Tensor:
        tasks = patches.shape[1]
        for maps, some in _products(weight, patches, size):
            if some.start == 0:
                like = maps[..., :-1:2, :-1:2].unflatten(
                    0, (-1, tasks)
                )  # has the shape of what is pooled
                out, places = _folded(len(patches), like), _folded(len(patches), like, _index(size))
                rooms = _one_by_one(like), _one_by_one(like, torch.int64)
            pooled, where = (room[: some.stop - some.start] for room in rooms)
            at = {"out": pooled.flatten(0, 1), "indices": where.flatten(0, 1)}
            torch.ops.aten.max_pool2d_with_indices.out(maps, [2, 2], **at)
            torch.ops.aten.leaky_relu.out(pooled, slope, out=out[some])
            places[some].copy_(where)
        out = out.flatten(1, 2)
        ctx.save_for_backward(out, patches, places)
        ctx.form = (size, slope)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        out, *others = ctx.saved_tensors
        return _ProductWeight.apply(grad, out.detach(), *others, ctx.form), None, None, None


class _ProductWeight(torch.autograd.Function):
    """The derivative (T, F, K) for the weights of :class:`PooledProduct`; its own is
    :class:`_PickedProduct`.
    """

    @staticmethod
    def forward(
        ctx, grad: Tensor, out: Tensor, patches: Tensor, places: Tensor, form: tuple
    ) -> Tensor:
        ctx.save_for_backward(out, patches, places)
        ctx.form, (size, slope), tasks, filters = form, form, *places.shape[1:3]
        grad, out = (v.unflatten(1, (tasks, filters)) for v in (grad, out))
        total, pair, rest = 0, [2, 2], ([0, 0], [1, 1], False)
        parts = _parts(patches, tasks * filters * patches.shape[3])
        rooms = _one_by_one(grad[parts[0]]), _one_by_one(grad[parts[0]], torch.int64)
        maps = grad.new_empty(rooms[0].shape[0] * tasks, *size, filters).permute(0, 3, 1, 2)
        for some in parts:
            opened = _opened(grad[some], out[some], slope, rooms[0]).flatten(0, 1)
            where, spread = _indices(places[some], rooms[1]), maps[: len(opened)]
            back = torch.ops.aten.max_pool2d_with_indices_backward.grad_input
            back(opened, spread, pair, pair, *rest, where, grad_input=spread)
            found = torch.bmm(*_alike(patches[some].flatten(0, 1), _flat(spread, True)))
            exact = torch.promote_types(found.dtype, torch.float32)
            total = total + found.unflatten(0, (-1, tasks)).sum(0, dtype=exact)
        return total.transpose(1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _PickedProduct.apply(grad, *ctx.saved_tensors, ctx.form), None, None, None, None


class _PickedProduct(torch.autograd.Function):
    """The maps w . patch at given places (n, T*F, H', W'), times the ReLU's slope there."""

    @staticmethod
    def forward(
        ctx, weight: Tensor, out: Tensor, patches: Tensor, places: Tensor, form: tuple
    ) -> Tensor:
        ctx.save_for_backward(out, patches, places)
        ctx.form, (size, slope), tasks = form, form, patches.shape[1]
        out = out.unflatten(1, (tasks, -1))
        for maps, some in _products(weight, patches, size):
            where = places[some]
            if some.start == 0:
                room, found = (
                    _one_by_one(where, torch.int64),
                    _folded(len(patches), where, maps.dtype),
                )
            picked = _picked(maps, _indices(where, room)).unflatten(0, (-1, tasks))
            torch.ops.aten.leaky_relu_backward.grad_input(
                picked, out[some], slope, True, grad_input=found[some]
            )
        return found.flatten(1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _ProductWeight.apply(grad, *ctx.saved_tensors, ctx.form), None, None, None, None


def _products(
    weight: Tensor, patches: Tensor, size: tuple[int, int]
) -> Iterator[tuple[Tensor, slice]]:
    """Maps (m*T, F, H, W), channels last, and of which m images."""
    own, room = weight.transpose(1, 2), None
    for some in _parts(patches, weight.shape[0] * weight.shape[1] * patches.shape[3]):
        flat = patches[some].flatten(0, 1)
        repeated = own.expand(len(flat) // len(own), *own.shape).flatten(0, 1)
        flat, repeated = _alike(flat.transpose(1, 2), repeated)
        if room is None:
            room = flat.new_empty(*flat.shape[:2], own.shape[2])
        maps = torch.bmm(flat, repeated, out=room[: len(flat)])
        yield maps.unflatten(1, size).permute(0, 3, 1, 2), some


def _folded(n: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Room (n, T, F, H, W) for n times maps like these (m, T, F, H, W): in memory (n, H, W, T, F),
    a folded map.
    """
    _, tasks, filters, height, width = like.shape
    return like.new_empty(n, height, width, tasks, filters, dtype=dtype or like.dtype).permute(
        0, 3, 4, 1, 2
    )


def _one_by_one(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Room for these maps (m, T, F, H, W): in memory (m, T, H, W, F), m*T maps with their channels
    last.
    """
    m, tasks, filters, height, width = like.shape
    return like.new_empty(m, tasks, height, width, filters, dtype=dtype or like.dtype).permute(
        0, 1, 4, 2, 3
    )


def _opened(grad: Tensor, out: Tensor, slope: float, room: Tensor) -> Tensor:
    """The derivative of a (leaky) ReLU with these outputs, in the first images of the room."""
    return torch.ops.aten.leaky_relu_backward.grad_input(
        grad, out, slope, True, grad_input=room[: len(grad)]
    )


def _indices(places: Tensor, room: Tensor) -> Tensor:
    """Of torch's own type, in the first images of the room: (m, T, F, H, W) -> (m*T, F, H, W),
    channels last.
    """
    return room[: len(places)].copy_(places).flatten(0, 1)


def _index(size: tuple[int, int]) -> torch.dtype:
    """The type that the places in a map are kept in: a quarter of the memory of torch's own."""
    return torch.int16 if size[0] * size[1] <= 2**15 else torch.int32


def _parts(x: Tensor, values: int | None = None) -> list[slice]:
    """All images of x; on a CPU about as many at a time as fit the cache with so many values each
    (or x's own).

    No part is larger than the first.
    """
    n, each = len(x), (values or x[0].numel()) * x.element_size()
    fit = n if x.is_cuda else max(1, _CACHED // each)
    parts = max(
        1, ceil(n / fit - 0.5)
    )  # of like sizes: a single image left over costs more than two
    ends = [-(-i * n // parts) for i in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def _alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """In the smaller of their types, or autocast's: with precision bf16 derivatives are of it, and
    parameters not.
    """
    kind = a.device.type
    dtypes = {a.dtype, b.dtype}
    # Autocast leaves an operation with `out` alone, and numbers of 64 bits.
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind) and torch.float64 not in dtypes:
        dtypes.add(torch.get_autocast_dtype(kind))
    if len(dtypes) == 1:
        return a, b
    dtype = min(dtypes, key=lambda d: d.itemsize)
    return a.to(dtype), b.to(dtype)


def _wide(x: Tensor, groups: int) -> bool:
    """Whether matrix products beat the library's weight derivative: on some CPUs, for large
    maps.
    """
    return (
        groups == 1
        and not x.is_cuda
        and x.shape[2] * x.shape[3] >= _WIDE
        and layout(x) == torch.channels_last
    )


def _weight_by_rows(x: Tensor, grad: Tensor) -> Tensor:
    """(F, C, 3, 3): for each row of the kernel a product of grad with x beside its left and right
    neighbours.

    Parts are added up in float32 at least.
    """
    n, channels, height, width = x.shape
    dtype = torch.promote_types(x.dtype, torch.float32)
    step = max(1, _CACHED // (3 * x[0].numel() * x.element_size()))
    beside = x.new_empty(min(step, n), height, width, 3, channels)
    beside[:, :, 0, 0] = beside[:, :, -1, 2] = 0
    found = x.new_zeros(3, grad.shape[1], 3 * channels, dtype=dtype)
    for first in range(0, n, step):
        inner = x[first : first + step].permute(0, 2, 3, 1)
        at, some = (
            grad[first : first + step].permute(0, 2, 3, 1).flatten(1, 2),
            beside[: len(inner)],
        )
        some[:, :, 1:, 0], some[:, :, :, 1], some[:, :, :-1, 2] = (
            inner[:, :, :-1],
            inner,
            inner[:, :, 1:],
        )
        at, some = at.transpose(1, 2), some.flatten(3).flatten(1, 2)
        found[0] += torch.bmm(at[:, :, width:], some[:, :-width]).sum(0, dtype=dtype)
        found[1] += torch.bmm(at, some).sum(0, dtype=dtype)
        found[2] += torch.bmm(at[:, :, :-width], some[:, width:]).sum(0, dtype=dtype)
    return found.to(x.dtype).unflatten(2, (3, channels)).permute(1, 3, 0, 2)


def layout(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
