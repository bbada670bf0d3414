"""In which arithmetic a run is made: the names that ``precision`` may have, and what torch is told
for each.

========  ==========================  ============================================================
float32   parameters in 32 bits       products in 32 bits too: torch's own default would let a GPU
use TF32 for convolutions tf32      parameters in 32 bits       products of 19-bit numbers on a
GPU's tensor cores bf16      parameters in 32 bits       products of 16-bit numbers
(``torch.autocast``), losses in 32 bits float64   parameters in 64 bits       for tests and for
checks of the others ========  ==========================
============================================================

On a CPU numbers below the smallest normal one (1.2e-38 in 32 bits) count as zero: the gradients of
queries that are classified with certainty are such numbers, and with them a convolution takes many
times as long.
"""

import contextlib
from collections.abc import Iterator

import torch

from cml_bench.errors import UserError


def dtype_of(precision: str) -> torch.dtype:
    """Type of parameters and inputs."""
    return torch.float64 if precision == "float64" else torch.float32


def _flushes() -> bool:
    """Whether this thread takes what is below the smallest normal number for zero: torch does not
    tell.
    """
    return float(torch.full((1,), torch.finfo(torch.float32).tiny) * 0.5) == 0


@contextlib.contextmanager
def computing(precision: str, device: str) -> Iterator[None]:
    """Everything inside is computed in this precision. A UserError where the device has none of the
    kind.
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
        # Casts are not cached: the cache holds those of leaves, and adapted parameters are none.
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            yield
    finally:
        torch.set_flush_denormal(flushed)
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device's memory did not suffice; torch has no type for that
    on a CPU.
    """
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in said or "not enough memory" in said)
    )
