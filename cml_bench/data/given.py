"""Checks what a user gives to the Python API. A UserError says what was given and what is wanted.

The command line has its own checks, before it starts. Training does not use this module.
"""

import operator
import reprlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cml_bench.errors import UserError
from cml_bench.spec import MOST_EXAMPLES


def whole(value: Any, named: str, least: int = 1, most: int = MOST_EXAMPLES) -> int:
    """``value`` as an int, if it is a whole number from ``least`` to ``most``."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        shown = " ".join(reprlib.repr(value).split())
        raise UserError(f"{named} must be a whole number from {least:,} to {most:,}, not {shown}.")
    return number


def word(value: Any, named: str) -> str:
    """``value``, if it is a string."""
    if not isinstance(value, str):
        raise UserError(f"{named} must be a word in quotes, not {reprlib.repr(value)}.")
    return value


def tensor(values: Any, named: str) -> Tensor:
    """Finite real numbers as a tensor of their own type, from a tensor, an array or lists."""
    if not isinstance(values, Tensor):
        try:
            values = torch.from_numpy(np.array(values))
        except (TypeError, ValueError, RuntimeError):  # words, objects, rows of unequal length
            raise UserError(
                f"{named} must be a tensor, an array or lists of numbers that form one, not such a "
                f"{type(values).__name__}."
            ) from None
    if values.is_complex():
        raise UserError(f"{named} must be real numbers, not {type_name(values)}.")
    if values.is_floating_point() and not values.isfinite().all():
        raise UserError(
            f"{named} has values that are not finite (NaN or infinite): finite numbers are wanted."
        )
    return values


def type_name(values: Tensor) -> str:
    """The name of a tensor's type: ``float32``, ``uint8``, ..."""
    return str(values.dtype).removeprefix("torch.")


def device(name: Any) -> torch.device:
    """The device of this name, ``cpu``, ``cuda`` or ``cuda:N``, if this machine has it."""
    try:
        chosen = torch.device(name)
    except (RuntimeError, TypeError):
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise UserError(f"unknown device {str(name)!r}: use cpu, cuda or cuda:N.")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"device {str(name)!r} was asked for, but torch sees no CUDA device: use cpu."
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no {name}: torch sees {torch.cuda.device_count()} CUDA devices.")
    return chosen
