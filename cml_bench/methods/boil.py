"""``boil``: body only update in the inner loop (Oh, Yoo, Kim, Yun, ICLR 2021)."""

import torch
from pydantic import Field
from torch import Tensor

from cml_bench.errors import UserError
from cml_bench.methods.base import Groups
from cml_bench.methods.maml import MAML, MAMLOptions
from cml_bench.networks.base import Params
from cml_bench.registry import methods
from cml_bench.spec import added


class BOILOptions(MAMLOptions):
    """Defaults: 4-conv (ResNet-12: ``inner_lr`` 0.3, ``outer_lr`` 6e-4)."""

    head_lr: float = Field(
        0.0, ge=0, description="inner step size of the head: 0 is BOIL, inner_lr would be MAML"
    )
    ortho_init: bool = added(
        False, description="the head's rows start orthonormal (the authors' --ortho-init)"
    )
    outer_fix: bool = added(
        False, description="the outer loop leaves the head as it starts (the authors' --outer-fix)"
    )


@methods.register("boil")
class BOIL(MAML):
    """The inner loop moves psi (batch-norm included) and leaves the head theta, which the outer
    loop trains.

    psi' = psi - alpha * grad_psi CE(psi, theta; S);  theta' = theta;  L = CE(psi', theta; Q).

    Choices. A head step of 0 is left out of the inner loop, where the authors' code multiplies its
    gradient by 0: equal for finite values. Their ``--centering`` is not ported: it changes no
    output (softmax ignores a common shift). The paper's co-learner on BOIL is not released: here
    psi' feeds two heads that both do not adapt, and only theta defines the inner loss.
    """

    Options = BOILOptions

    def check_start(self) -> None:
        """As MAML's; ``ortho_init`` needs a head with no more rows than columns."""
        super().check_start()
        shapes = (self.network.params[name].shape for name in self.network.head_names)
        for shape in shapes if self.options.ortho_init else ():
            if len(shape) == 2:
                _check_rows(shape)

    def init(self, seed: int) -> dict[str, Params]:
        """As MAML's; ``ortho_init`` makes the head's rows orthonormal (Gram-Schmidt, in their
        order).
        """
        groups = super().init(seed)
        if self.options.ortho_init:
            for name in sorted(self.network.head_names):
                if name.endswith(".weight") and groups["base"][name].dim() == 2:
                    groups["base"][name] = _orthonormal(groups["base"][name])
        return groups

    def adapts(self, name: str) -> bool:
        """The body, and the head if it has a step of its own."""
        return super().adapts(name) and (
            name not in self.network.head_names or self.options.head_lr > 0
        )

    def step_size(self, name: str, step: int, groups: Groups) -> float:
        """alpha for the body, ``head_lr`` for the head."""
        return self.options.head_lr if name in self.network.head_names else self.options.inner_lr

    def trains(self, group: str, name: str) -> bool:
        """All; under ``outer_fix`` all but the head."""
        return not (self.options.outer_fix and group == "base" and name in self.network.head_names)


def _orthonormal(weight: Tensor) -> Tensor:  # of shape (n, d)
    """Rows of (n, d), n <= d, orthonormal: those of Gram-Schmidt, up to which sign the first
    component has.
    """
    _check_rows(tuple(weight.shape))
    q, r = torch.linalg.qr(weight.T)
    return (q * torch.sign(torch.diagonal(r))).T.contiguous()


def _check_rows(shape: tuple[int, ...]) -> None:
    if shape[0] > shape[1]:
        raise UserError(
            f"boil: ortho_init needs at least as many features as ways, not {shape[::-1]}."
        )
