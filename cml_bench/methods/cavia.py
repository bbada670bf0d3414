"""``cavia``: fast context adaptation (Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson, ICML 2019)."""

import torch
from pydantic import Field

from cml_bench import spec
from cml_bench.errors import UserError
from cml_bench.methods.base import Method
from cml_bench.networks.base import Network, Param
from cml_bench.registry import methods
from cml_bench.shapes import TaskGroups, TaskParams
from cml_bench.study.protocols import Recipe

_CONTEXT, _FILM = "context", "film"  # the first adapts, the second is learned


class CAVIAOptions(spec.Options):
    """Defaults: those of the released code for MiniImagenet."""

    inner_steps: int = Field(2, ge=0, description="k, gradient steps of the context")
    inner_lr: float = Field(1.0, ge=0, description="alpha, their size")
    first_order: bool = Field(False, description="treat inner gradients as constants")
    context: int = Field(100, ge=1, le=10_000, description="numbers of a task's context")
    layer: int = Field(
        3, ge=1, description="which normalisation of psi the context modulates, from the inputs on"
    )


@methods.register("cavia")
class CAVIA(Method):
    """A context c of a task adapts, and psi and theta stay (algorithm 1).

    c_0 = 0;  c_{j+1} = c_j - alpha * grad_c CE(psi, theta, c_j; S);  L = CE(psi, theta, c_k; Q)
    where there are normalisations: (gamma, beta) = A c + b;  z -> gamma * z + beta  behind one
    where there are none: the network's inputs are (x, c)

    The outer loop trains psi, theta, A and b. The start of c is not learned, since b does the same.
    Gamma times a normalisation's scale and shift, plus beta, are scales and shifts again, so any
    network with normalisations can be modulated. Of a network without them, a further input is a
    shift of its first biases by A c.

    With a co-learner: phi reads features that c has modulated, so it is told of the support set, as
    behind MAML. Its loss trains psi, A and b straight and through the inner loop, but no context.

    Choices. This file and not iMAML's: a context adapts by the engine's own inner loop, with exact
    gradients on every path. iMAML's outer gradient solves a linear system for each task with some
    number of conjugate-gradient steps, and is exact only where its inner loop has converged. The
    released code modulates behind max-pooling, and here z is in front of it: the same for gamma of
    0 or more, since max-pooling then commutes. About half of them begin below 0, so it is not the
    released network there. A and b start as there (A by Kaiming, b by torch's
    default); the rest of the network starts as the study says. The preset ``official`` is that
    code's recipe for 1 shot; its learning rate, times 0.9 every 5,000 steps, stays constant here.
    """

    Options = CAVIAOptions
    options: CAVIAOptions
    recipe = Recipe(
        steps=60_000, protocol={"meta_batch": 16, "clamp": 10.0}, network={"filters": 32}
    )

    def __init__(self, options: spec.Options, network: Network, kind: str):
        super().__init__(options, network, kind)
        names = [name for name in network.params if name not in network.head_names]
        scales = [n for n in names if n in network.norm_names and n.endswith(".weight")]
        if scales and self.options.layer > len(scales):
            raise UserError(
                f"{self.name}: {network.name} has {len(scales)} normalisations, and layer is"
                f" {self.options.layer}: lower it."
            )
        self.modulated = scales[self.options.layer - 1] if scales else ""
        self.shifted = (
            self.modulated.removesuffix("weight") + "bias"
            if scales
            else next((name for name in names if name.endswith(".bias")), "")
        )
        if not self.shifted:
            raise UserError(
                f"{self.name}: {network.name} has neither a normalisation nor a bias in front of"
                " its head for a context to modulate: choose another network."
            )

    @property
    def params(self) -> dict[str, Param]:
        """The network's, and the linear map from a context to scales and shifts, or to shifts."""
        own, size = dict(self.network.params), self.options.context
        (width,) = own[self.shifted].shape
        if not self.modulated:
            inputs = size + self.network.input_shape[0]
            return own | {f"{_FILM}.weight": Param((width, size), bound=inputs**-0.5)}
        return own | {
            f"{_FILM}.weight": Param((2 * width, size), bound=(3 / size) ** 0.5),
            f"{_FILM}.bias": Param((2 * width,), bound=size**-0.5),
        }

    def adapts(self, name: str) -> bool:
        """No parameter of the network."""
        return False

    def moving(self, loss: str) -> list[str]:
        """The context."""
        return [_CONTEXT]

    def start(self, groups: TaskGroups) -> TaskParams:
        """The parameters, and a context of zeros (T, size)."""
        film = groups["base"][f"{_FILM}.weight"]
        zeros = film.new_zeros(film.shape[0], self.options.context).requires_grad_()
        return {**groups["base"], _CONTEXT: zeros}

    def seen(self, params: TaskParams, step: int) -> TaskParams:
        """The parameters with modulated scales and shifts, or with shifted biases."""
        shift = torch.einsum("toc,tc->to", params[f"{_FILM}.weight"], params[_CONTEXT])
        if not self.modulated:
            return {**params, self.shifted: params[self.shifted] + shift}
        gamma, beta = (shift + params[f"{_FILM}.bias"]).chunk(2, 1)
        return {
            **params,
            self.modulated: gamma * params[self.modulated],
            self.shifted: gamma * params[self.shifted] + beta,
        }
