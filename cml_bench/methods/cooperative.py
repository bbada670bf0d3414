"""CML around any method that accepts it (Shin, Han, Kim, UAI 2024).

A co-learner phi reads the features psi' of the adapted network. It never adapts and never sees the
support set; its query loss, times gamma, is added to the outer loss (equation 6), and one outer
step updates psi, theta and phi (equation 7). At test it is deleted. With gamma = 0 the trajectory
of psi and theta is that of the method alone, bit for bit: phi has a generator of its own, and a
gradient times zero adds zero.

Choices. Only MAML + CML with Conv4 is released. Around the others phi reads the features of every
adapted state at which the method asks for a query loss, with that loss's weight times gamma; it
takes part neither in the inner loop nor in what the method learns besides (step sizes, batch-norm
rows, ascents), as their files say. Its layers are initialised and rectified like the network's.
"""

import functools

from pydantic import Field
from torch import Tensor

from cml_bench.errors import UserError
from cml_bench.methods.base import Groups, Method, Params, Reading
from cml_bench.networks.base import check_start, initialise
from cml_bench.registry import CML, wraps
from cml_bench.spec import Options, added


class CoLearnerOptions(Options):
    """Keys that a ``+cml`` run has and its baseline has not."""

    gamma: float = Field(
        1.0,
        ge=0,
        description=(
            "weight of the co-learner's loss: 1 for images (released code, appendix A.1; section"
            " 4.2 says 0.5), 0.2 for the sinusoid and for graphs"
        ),
    )
    depth: int | None = Field(
        None,
        ge=0,
        description="hidden layers of the co-learner; none: the paper's (2 convolutions, 1 linear)",
    )
    frozen: bool = added(
        False, description="phi stays at its random start: its gradient is the noise of figure 3a"
    )


@wraps(CML)
@functools.cache
def cooperative(base: type[Method]) -> type[Method]:
    """The class of ``base`` with a co-learner."""
    if not base.accepts_colearner:
        raise UserError(
            f"{base.name}{CML} does not exist: {base.name} does not accept a co-learner."
        )

    class CooperativeOptions(base.Options):
        cml: CoLearnerOptions = Field(
            CoLearnerOptions(), description="the co-learner, which the baseline has not"
        )

    class Cooperative(base):
        """``base`` plus the head ``co``.

        The inner loop may also descend the co-learner's own loss (equation 9, at test): theta has
        no part in that loss, so psi adapts alone.
        """

        Options = CooperativeOptions
        name = base.name + CML
        heads = (*base.heads, "co")
        more_readings = (*base.more_readings, Reading("co_eq9", "best_co", "co", "co"))

        def __init__(self, options, network, kind):
            super().__init__(options, network, kind)
            depth = options.cml.depth
            self.co = network.colearner(network.colearner_depth if depth is None else depth)

        def check_start(self) -> None:
            check_start(self.co.params, f"co-learner of {self.network.name}")
            super().check_start()

        def init(self, seed: int) -> Groups:
            co = initialise(self.co.params, f"co-learner of {self.network.name}", seed)
            return {**super().init(seed), "co": co}

        def trains(self, group: str, name: str) -> bool:
            return super().trains(group, name) and not (group == "co" and self.options.cml.frozen)

        def colearner_params(self, groups: Groups, params: Params) -> Params:
            """phi, which is the same before and after adaptation."""
            return groups["co"]

        def head_weight(self, head: str) -> float:
            return self.options.cml.gamma if head == "co" else super().head_weight(head)

        def outputs(
            self, groups: Groups, params: Params, x: Tensor, heads: tuple[str, ...]
        ) -> dict[str, Tensor]:
            z = self.features(groups, params, x)
            out = (
                {"co": self.co.apply(self.colearner_params(groups, params), z)}
                if "co" in heads
                else {}
            )
            return out if heads == ("co",) else {"meta": self.network.head(params, z), **out}

    Cooperative.__qualname__ = Cooperative.__name__ = f"Cooperative[{base.__name__}]"
    return Cooperative
