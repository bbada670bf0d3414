"""What the fast operations on maps (n, C, H, W) share: memory layout, parts, places of maxima.

An operation keeps the memory layout of the maps that it gets: one of torch's two, channels first
or channels last. An operation that passes over a map several times takes a few images at a time,
because on a CPU these stay in the cache between the passes. All parts use the same scratch memory.
"""

from collections.abc import Iterable
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor

CHANNEL = (0, 2, 3)  # the dimensions over which the statistics of a channel are taken
_CACHED = 2**22  # bytes of maps that are worked on at a time, about as many as a cache holds


def layout(x: Tensor) -> torch.memory_format:
    """The memory format of a map (n, C, H, W): channels last or contiguous."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def images_at_once(size: int) -> int:
    """How many images of ``size`` bytes each fit the cache of a CPU; at least one."""
    return max(1, _CACHED // size)


def parts(x: Tensor, values: int | None = None) -> list[slice]:
    """The images of ``x`` (n, ...) in parts; no part is larger than the first.

    On a CPU a part has about as many images as fit the cache. ``values``: how many values an image
    has in the computation; None: as many as in ``x``. On a GPU there is one part.
    """
    n, size = len(x), (values or x[0].numel()) * x.element_size()
    fit = n if x.is_cuda else images_at_once(size)
    # The parts are of similar size: a single image left over costs more than two.
    number = max(1, ceil(n / fit - 0.5))
    ends = [-(-i * n // number) for i in range(number + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def total(values: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor."""
    result = sum(values)
    assert isinstance(result, Tensor)
    return result


def alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors in one type: the smallest of their types and autocast's.

    With precision bf16 derivatives have autocast's type, and parameters are float32.
    """
    kind = a.device.type
    dtypes = {a.dtype, b.dtype}
    # Autocast does not act on an operation with ``out``, nor on numbers of 64 bits.
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind) and torch.float64 not in dtypes:
        dtypes.add(torch.get_autocast_dtype(kind))
    if len(dtypes) == 1:
        return a, b
    dtype = min(dtypes, key=lambda d: d.itemsize)
    return a.to(dtype), b.to(dtype)


def flat(x: Tensor, last: bool) -> Tensor:
    """A map (n, C, H, W) with its places in one dimension.

    ``last``: whether the channels come last; then (n, HW, C), else (n, C, HW).
    """
    return x.permute(0, 2, 3, 1).flatten(1, 2) if last else x.flatten(2)


def picked(x: Tensor, places: Tensor) -> Tensor:
    """The values of a map (n, C, H, W) at the places (n, C, H', W') of its maxima."""
    last = layout(x) == torch.channels_last
    dim = 1 if last else 2
    values = flat(x, last).gather(dim, flat(places, last)).unflatten(dim, places.shape[2:])
    return values.permute(0, 3, 1, 2) if last else values


def opened(grad: Tensor, out: Tensor, slope: float, room: Tensor) -> Tensor:
    """The derivative of a (leaky) ReLU with outputs ``out``, in the first images of ``room``."""
    return torch.ops.aten.leaky_relu_backward.grad_input(
        grad, out, slope, True, grad_input=room[: len(grad)]
    )
