"""In which arithmetic a run is made: the names that ``precision`` may have, and what torch is told.

Parameters have 32 bits, with float64 they have 64.

* ``float32``: products in 32 bits too. Torch's default would let a GPU use TF32 for convolutions.
* ``tf32``: products of 19-bit numbers on a GPU's tensor cores.
* ``bf16``: products of 16-bit numbers (``torch.autocast``), losses in 32 bits.
* ``float64``: for tests, and for checks of the others.

On a CPU numbers below the smallest normal one (1.2e-38 in 32 bits) count as zero. The gradients of
queries that are classified with certainty are such numbers, and they would make a convolution
many times as slow.
"""

import contextlib
from collections.abc import Iterator

import torch

from cml_bench.errors import UserError


def dtype_of(precision: str) -> torch.dtype:
    """Type of parameters and inputs."""
    return torch.float64 if precision == "float64" else torch.float32


def _flushes() -> bool:
    """Whether this thread counts numbers below the smallest normal one as zero.

    Torch has no function that tells, so this tries it.
    """
    return float(torch.full((1,), torch.finfo(torch.float32).tiny) * 0.5) == 0


@contextlib.contextmanager
def computing(precision: str, device: str) -> Iterator[None]:
    """A block in which everything is computed in this precision.

    A UserError if the device does not have the precision.
    """
    if precision == "tf32" and not device.startswith("cuda"):
        raise UserError(
            f"precision tf32 exists on CUDA devices, not on {device}: use float32, or a GPU."
        )
    places = (
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]  # set when torch is imported
    )
    before, flushed = [place.fp32_precision for place in places], _flushes()
    for place in places:
        place.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    torch.set_flush_denormal(True)
    kind = device.partition(":")[0]
    try:
        # Torch caches casts of leaves only, and adapted parameters are not leaves.
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            yield
    finally:
        torch.set_flush_denormal(flushed)
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device's memory did not suffice.

    On a CPU torch has no type for that error, so its text decides.
    """
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in said or "not enough memory" in said)
    )
