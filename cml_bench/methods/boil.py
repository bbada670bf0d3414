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
        0.0, ge=0, description="inner step size of the head; 0 is BOIL, inner_lr is MAML"
    )
    ortho_init: bool = added(
        False, description="the head's rows start orthonormal (the authors' --ortho-init)"
    )
    outer_fix: bool = added(
        False, description="the outer loop leaves the head as it starts (the authors' --outer-fix)"
    )


@methods.register("boil")
class BOIL(MAML):
    """The inner loop moves psi (batch-norm included); only the outer loop moves the head theta.

    psi' = psi - alpha * grad_psi CE(psi, theta; S);  theta' = theta;  L = CE(psi', theta; Q).

    Choices. With a head step of 0 the inner loop leaves the head out. The authors' code multiplies
    the head's gradient by 0, which is equal for finite values. Their ``--centering`` is not ported:
    it changes no output, because softmax ignores a common shift. The paper's co-learner on BOIL is
    not released. Here psi' feeds two heads that do not adapt, and theta alone defines the inner
    loss.
    """

    Options = BOILOptions
    options: BOILOptions

    def check_start(self) -> None:
        """As MAML's; ``ortho_init`` needs a head with no more rows than columns."""
        super().check_start()
        shapes = (self.network.params[name].shape for name in self.network.head_names)
        for shape in shapes if self.options.ortho_init else ():
            if len(shape) == 2:
                _check_rows(shape)

    def init(self, seed: int) -> dict[str, Params]:
        """As MAML's; ``ortho_init`` makes the head's rows orthonormal (Gram-Schmidt in order)."""
        groups = super().init(seed)
        if self.options.ortho_init:
            for name in sorted(self.network.head_names):
                if name.endswith(".weight") and groups["base"][name].dim() == 2:
                    groups["base"][name] = _orthonormal(groups["base"][name])
        return groups

    def adapts(self, name: str) -> bool:
        """The body, and the head if it has a step of its own; nothing by a step of 0."""
        return super().adapts(name) and self.step_size(name, 0, {}) > 0

    def step_size(self, name: str, step: int, groups: Groups) -> float:
        """alpha for the body, ``head_lr`` for the head."""
        return self.options.head_lr if name in self.network.head_names else self.options.inner_lr

    def trains(self, group: str, name: str) -> bool:
        """Every parameter; with ``outer_fix`` every one but the head's."""
        return not (self.options.outer_fix and group == "base" and name in self.network.head_names)


def _orthonormal(weight: Tensor) -> Tensor:
    """The rows (n, d), n <= d, made orthonormal as by Gram-Schmidt.

    The signs are those of Gram-Schmidt, too: QR's are arbitrary, and R's diagonal tells them.
    """
    _check_rows(tuple(weight.shape))
    q, r = torch.linalg.qr(weight.T)
    return (q * torch.sign(torch.diagonal(r))).T.contiguous()


def _check_rows(shape: tuple[int, ...]) -> None:
    """A UserError for more rows than columns: they cannot be orthonormal."""
    if shape[0] > shape[1]:
        raise UserError(
            f"boil: ortho_init needs at least as many features as ways, not {shape[::-1]}."
        )
