"""The first block of a network as matrix products with the 3x3 patches of the images.

The patches are made once for a task. The maps, four times as large as what is pooled, are made a
few images at a time and are never kept. Their derivatives, of any order, are matrix products too.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cml_bench.networks._autograd import Context
from cml_bench.networks._maps import alike, flat, opened, parts, picked, total


def patches(x: Tensor) -> tuple[Tensor, Tensor]:
    """The 3x3 patches (n, T, 9C+1, H*W) of images (T, n, C, H, W), with a last row of ones.

    Also the mean (T, 9C+1, 9C+1) of the patches' products. The images are padded with zeros. Then
    each channel's mean over the task's images is subtracted, so that a variance does not drown in
    rounding errors of a large mean.
    """
    tasks, n, channels, height, width = x.shape
    middle = x.mean((1, 3, 4), keepdim=True)
    made = x.new_empty(n, tasks, 9 * channels + 1, height * width)
    products = x.new_zeros(tasks, 9 * channels + 1, 9 * channels + 1)
    for some in parts(made):
        around = (F.pad(x[:, some], (1, 1, 1, 1)) - middle).transpose(0, 1)
        columns = made[some, :, :-1].unflatten(3, (height, width)).unflatten(2, (channels, 9))
        for place in range(9):
            i, j = divmod(place, 3)
            columns[:, :, :, place] = around[..., i : i + height, j : j + width]
        made[some, :, -1] = 1
        rows = made[some].flatten(0, 1)
        products += torch.bmm(rows, rows.transpose(1, 2)).unflatten(0, (-1, tasks)).sum(0)
    return made, products / (n * height * width)


Form = tuple[tuple[int, int], float]  # height and width of the maps, negative slope of the ReLU


class _Formed(Context, Protocol):
    """The context of a product with patches."""

    form: Form


class PooledProduct(torch.autograd.Function):
    """The leaky ReLU of max-pool 2 of the maps w . patch, with channels last.

    Weights (T, F, K) and patches (n, T, K, H*W) give (n, T*F, H//2, W//2). The patches have no
    derivative here. With the places of the maxima fixed, the function is linear up to the ReLU's
    slopes: its derivatives of any order are :class:`_PickedProduct` and that one's adjoint,
    :class:`_ProductWeight`.
    """

    @staticmethod
    def forward(
        ctx: _Formed, weight: Tensor, patches: Tensor, size: tuple[int, int], slope: float
    ) -> Tensor:
        tasks = patches.shape[1]
        for maps, some in _products(weight, patches, size):
            if some.start == 0:
                # ``like`` has the shape of the pooled maps.
                like = maps[..., :-1:2, :-1:2].unflatten(0, (-1, tasks))
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
    def backward(ctx: _Formed, grad: Tensor) -> tuple[Tensor, None, None, None]:
        out, *others = ctx.saved_tensors
        return _ProductWeight.apply(grad, out.detach(), *others, ctx.form), None, None, None


class _ProductWeight(torch.autograd.Function):
    """The derivative (T, F, K) of :class:`PooledProduct` by the weights.

    Its own derivative is :class:`_PickedProduct`.
    """

    @staticmethod
    def forward(
        ctx: _Formed, grad: Tensor, out: Tensor, patches: Tensor, places: Tensor, form: Form
    ) -> Tensor:
        ctx.save_for_backward(out, patches, places)
        ctx.form = form
        return total(_weight_parts(grad, out, patches, places, form)).transpose(1, 2)

    @staticmethod
    def backward(ctx: _Formed, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _PickedProduct.apply(grad, *ctx.saved_tensors, ctx.form), None, None, None, None


def _weight_parts(
    grad: Tensor, out: Tensor, patches: Tensor, places: Tensor, form: Form
) -> Iterator[Tensor]:
    """What each part of the images adds to the weights' derivative (T, K, F), float32 at least."""
    (size, slope), (tasks, filters) = form, places.shape[1:3]
    grad, out = (v.unflatten(1, (tasks, filters)) for v in (grad, out))
    pair, rest = [2, 2], ([0, 0], [1, 1], False)
    some_images = parts(patches, tasks * filters * patches.shape[3])
    rooms = (
        _one_by_one(grad[some_images[0]]),
        _one_by_one(grad[some_images[0]], torch.int64),
    )
    maps = grad.new_empty(rooms[0].shape[0] * tasks, *size, filters).permute(0, 3, 1, 2)
    for some in some_images:
        inner = opened(grad[some], out[some], slope, rooms[0]).flatten(0, 1)
        where, spread = _indices(places[some], rooms[1]), maps[: len(inner)]
        back = torch.ops.aten.max_pool2d_with_indices_backward.grad_input
        back(inner, spread, pair, pair, *rest, where, grad_input=spread)
        product = torch.bmm(*alike(patches[some].flatten(0, 1), flat(spread, True)))
        exact = torch.promote_types(product.dtype, torch.float32)
        yield product.unflatten(0, (-1, tasks)).sum(0, dtype=exact)


class _PickedProduct(torch.autograd.Function):
    """The maps w . patch at given places (n, T*F, H', W'), times the ReLU's slope there."""

    @staticmethod
    def forward(
        ctx: _Formed, weight: Tensor, out: Tensor, patches: Tensor, places: Tensor, form: Form
    ) -> Tensor:
        ctx.save_for_backward(out, patches, places)
        ctx.form, (size, slope), tasks = form, form, patches.shape[1]
        out = out.unflatten(1, (tasks, -1))
        for maps, some in _products(weight, patches, size):
            where = places[some]
            if some.start == 0:
                room = _one_by_one(where, torch.int64)
                values = _folded(len(patches), where, maps.dtype)
            inner = picked(maps, _indices(where, room)).unflatten(0, (-1, tasks))
            torch.ops.aten.leaky_relu_backward.grad_input(
                inner, out[some], slope, True, grad_input=values[some]
            )
        return values.flatten(1, 2)

    @staticmethod
    def backward(ctx: _Formed, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _ProductWeight.apply(grad, *ctx.saved_tensors, ctx.form), None, None, None, None


def _products(
    weight: Tensor, patches: Tensor, size: tuple[int, int]
) -> Iterator[tuple[Tensor, slice]]:
    """Maps w . patch (m*T, F, H, W) with channels last, and which m images they belong to.

    The next maps overwrite the ones before.
    """
    own, room = weight.transpose(1, 2), None
    for some in parts(patches, weight.shape[0] * weight.shape[1] * patches.shape[3]):
        columns = patches[some].flatten(0, 1)
        repeated = own.expand(len(columns) // len(own), *own.shape).flatten(0, 1)
        columns, repeated = alike(columns.transpose(1, 2), repeated)
        if room is None:
            room = columns.new_empty(*columns.shape[:2], own.shape[2])
        maps = torch.bmm(columns, repeated, out=room[: len(columns)])
        yield maps.unflatten(1, size).permute(0, 3, 1, 2), some


def _folded(n: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Room (n, T, F, H, W) for n images, shaped like the maps ``like`` (m, T, F, H, W).

    In memory it is (n, H, W, T, F), a folded map with channels last.
    """
    _, tasks, filters, height, width = like.shape
    return like.new_empty(n, height, width, tasks, filters, dtype=dtype or like.dtype).permute(
        0, 3, 4, 1, 2
    )


def _one_by_one(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Room for maps like ``like`` (m, T, F, H, W).

    In memory it is (m, T, H, W, F): m*T maps with channels last.
    """
    m, tasks, filters, height, width = like.shape
    return like.new_empty(m, tasks, height, width, filters, dtype=dtype or like.dtype).permute(
        0, 1, 4, 2, 3
    )


def _indices(places: Tensor, room: Tensor) -> Tensor:
    """Places (m, T, F, H, W) as (m*T, F, H, W) in torch's own type of indices, channels last.

    They are written into the first images of ``room``.
    """
    return room[: len(places)].copy_(places).flatten(0, 1)


def _index(size: tuple[int, int]) -> torch.dtype:
    """The type that keeps places in a map of this size; torch's own takes 64 bits."""
    return torch.int16 if size[0] * size[1] <= 2**15 else torch.int32
