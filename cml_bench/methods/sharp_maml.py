"""``sharp_maml``: sharpness-aware minimisation in both loops of MAML.

Its source is Abbas, Xiao, Chen, Chen, Chen, ICML 2022.
"""

import copy
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cml_bench.data.episodes import Examples
from cml_bench.methods.base import Groups, Method, Result
from cml_bench.methods.maml import MAML, MAMLOptions
from cml_bench.registry import methods
from cml_bench.shapes import PerTask, TaskGroups, TaskParams
from cml_bench.study.protocols import Recipe

_TINY = 1e-12  # added to the norm, as in the released code


class SharpMAMLOptions(MAMLOptions):
    """Defaults: the 1-shot command in the released README; the 5-shot one is not published."""

    inner_steps: int = Field(5, ge=0, description="k, gradient steps on the support set")
    inner_lr: float = Field(0.1, ge=0, description="alpha, their size")
    adapt_norm: bool = Field(
        False, description="whether the inner loop moves batch-norm scales and shifts"
    )
    level: Literal["low", "up", "both"] = Field(
        "both", description="which loop is sharpness-aware; the CML paper does not say which it ran"
    )
    rho_low: float = Field(5e-4, ge=0, description="radius of the ball in each inner step")
    rho_up: float = Field(
        5e-4, ge=0, description="radius in each outer step; the released code has one rho for both"
    )
    perturb_co: bool = Field(
        False, description="whether the outer ascent moves phi too and its norm includes phi"
    )
    sharp_test_perturb: bool = Field(
        True,
        description=(
            "off: level `both` does not ascend in the inner loop at test, as in its released test"
            " script; the script of `lower` ascends, so `low` always does"
        ),
    )


@methods.register("sharp_maml")
class SharpMAML(MAML):
    """Gradients are taken at the worst point of a small ball around the present one.

    low, each inner step:  g = grad CE(w; S);  eps = rho_low * g / (|g| + 1e-12)
                           w <- w - alpha * grad CE(w + eps; S)
    up, each outer step:   G = grad L(Phi);  E = rho_up * G / (|G| + 1e-12)
                           Adam at Phi with grad L(Phi + E)

    |g| is one norm over all adapted tensors of a task. The outer gradient passes through eps and
    its norm. |G| is one norm over all of (psi, theta), batch-norm included, of the meta-batch's
    mean gradient. Both outer passes see the same tasks. ``up`` and ``both`` report training loss
    and accuracy at Phi + E.

    Choices. Where g is zero, the derivative of its norm is taken as 0. The co-learner phi takes
    Adam's step with the gradient of the second pass. The ascent moves phi only with ``perturb_co``.
    Validation always ascends as training does. The released code stores the model of every epoch
    after the first improvement, so it tests the last one: ``save_last`` of the preset ``official``.
    """

    Options = SharpMAMLOptions
    options: SharpMAMLOptions
    recipe = Recipe(
        steps=60_000,
        protocol={"val_tasks": 400, "val_fresh": True, "save_last": True, "selection": "separate"},
        options={"sharp_test_perturb": False},
    )
    _low_off = False

    @property
    def rho_low(self) -> float:
        """Radius of the ball in the inner loop; 0: the inner loop does not ascend."""
        return 0.0 if self._low_off or self.options.level == "up" else self.options.rho_low

    @property
    def rho_up(self) -> float:
        """Radius of the ball in the outer loop; 0: the outer loop does not ascend."""
        return 0.0 if self.options.level == "low" else self.options.rho_up

    def for_test(self) -> Method:
        """The same method; without its inner ascent if ``sharp_test_perturb`` says so."""
        if self.options.sharp_test_perturb or self.options.level != "both":
            return self
        plain = copy.copy(self)
        plain._low_off = True
        return plain

    def inner_gradients(
        self,
        groups: TaskGroups,
        params: TaskParams,
        names: list[str],
        support: Examples,
        loss: str,
        create_graph: bool,
    ) -> TaskParams:
        """Gradients (T, ...) of the support loss at w + eps."""
        grads = super().inner_gradients(groups, params, names, support, loss, create_graph)
        if not self.rho_low:
            return grads
        norm = torch.linalg.vector_norm(torch.cat([g.flatten(1) for g in grads.values()], 1), dim=1)
        scale = self.rho_low / (norm + _TINY)  # (T,)
        moved = {name: params[name] + _per_task(scale, g) * g for name, g in grads.items()}
        return super().inner_gradients(
            groups, {**params, **moved}, names, support, loss, create_graph
        )

    def meta_step(
        self, closure: Callable[[], Result], groups: Groups, optimizer: torch.optim.Optimizer
    ) -> Result:
        """Ascend by E, take the gradient there, go back, step."""
        if not self.rho_up:
            return super().meta_step(closure, groups, optimizer)
        closure()
        moved = [*groups["base"].values()]
        if self.options.perturb_co:
            moved += groups.get("co", {}).values()
        ascended = [(p, p.grad) for p in moved if p.grad is not None]
        norm = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(grad) for _, grad in ascended])
        )
        scale = self.rho_up / (norm + _TINY)
        with torch.no_grad():
            kept = [p.clone() for p, _ in ascended]
            for p, grad in ascended:
                p.add_(grad * scale)
        result = closure()  # sets every gradient again, phi's too
        with torch.no_grad():
            for (p, _), before in zip(ascended, kept, strict=True):
                p.copy_(before)
        optimizer.step()
        return result


def _per_task(scale: PerTask, like: Float[Tensor, "tasks ..."]) -> Float[Tensor, "tasks ..."]:
    """A number for each task (T,), reshaped to multiply ``like`` (T, ...)."""
    return scale.reshape(-1, *[1] * (like.dim() - 1))
