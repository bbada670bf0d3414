"""Types for the contexts of :class:`torch.autograd.Function`, which torch leaves untyped."""

from typing import Protocol

from torch import Tensor


class Context(Protocol):
    """What ``forward`` leaves to ``backward``; a function that leaves more extends this class."""

    needs_input_grad: tuple[bool, ...]

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        """The tensors that were saved, in their order."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Save tensors whose own derivatives may be asked for."""
