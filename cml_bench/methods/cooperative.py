"""CML around any method that accepts it (Shin, Han, Kim, UAI 2024).

A co-learner phi reads the features psi' of the adapted network. It never adapts and never sees the
support set. Its query loss, times gamma, is added to the outer loss (equation 6), and one outer
step updates psi, theta and phi (equation 7). At test the co-learner is deleted. With gamma = 0 psi
and theta follow the trajectory of the method alone, bit for bit: phi has a random generator of its
own, and a gradient times zero adds zero.

Choices. Only MAML + CML with Conv4 is released. Around another method, phi reads the features of
every adapted state at which the method asks for a query loss, and the co-learner's loss has that
loss's weight times gamma. Phi takes no part in the inner loop, nor in what the method learns
besides (step sizes, batch-norm rows, ascents); the method's file says so. The co-learner's layers
are initialised like the network's and have the same activation.
"""

from typing import Literal

from pydantic import Field

from cml_bench import spec
from cml_bench.errors import UserError
from cml_bench.methods.base import Groups, Method, Reading
from cml_bench.networks.base import Network, check_start, initialise
from cml_bench.registry import CML, wraps
from cml_bench.shapes import Inputs, Outputs, TaskGroups, TaskParams


class CoLearnerOptions(spec.Options):
    """Keys of a ``+cml`` run that its baseline does not have."""

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
    frozen: bool = spec.added(
        False, description="phi stays at its random start; its gradient is the noise of figure 3a"
    )
    norm: Literal["own", "none", "body"] = spec.added(
        "own",
        description=(
            "what normalises phi's maps in Conv4. own: its batch-norms, as released. none: nothing,"
            " their scale and shift stay. body: mean and variance of psi's features. The last two"
            " are controls: they show what phi's own statistics of the queries do"
        ),
    )


class CooperativeOptions(spec.Options):
    """What a co-learner adds to the options of a method."""

    cml: CoLearnerOptions = Field(
        CoLearnerOptions(), description="the co-learner; the baseline has none"
    )


class WithCoLearner(Method):
    """The part of a method with the head ``co``; the other part is a class of :class:`Method`.

    This class stands before the method's own among the bases. The inner loop may also descend the
    co-learner's loss (equation 9, at test). That loss does not depend on theta, so psi adapts
    alone.
    """

    options: CooperativeOptions

    def __init__(self, options: spec.Options, network: Network, kind: str):
        super().__init__(options, network, kind)
        depth = self.options.cml.depth
        depth, norm = network.colearner_depth if depth is None else depth, self.options.cml.norm
        self.co = network.colearner(depth) if norm == "own" else network.control(depth, norm)

    def check_start(self) -> None:
        """As the method's, for phi too."""
        check_start(self.co.params, f"co-learner of {self.network.name}")
        super().check_start()

    def init(self, seed: int) -> Groups:
        """The method's groups, and phi as the group ``co``."""
        co = initialise(self.co.params, f"co-learner of {self.network.name}", seed)
        return {**super().init(seed), "co": co}

    def trains(self, group: str, name: str) -> bool:
        """As the method says; a frozen phi stays."""
        return super().trains(group, name) and not (group == "co" and self.options.cml.frozen)

    def cannot_adapt(self, head: str, loss: str) -> bool:
        """As the method's. The co-learner does not read theta, and its loss does not move theta."""
        if head == "co":
            return self.network.head_names >= set(self.moving(loss))
        return super().cannot_adapt(head, loss)

    def colearner_params(self, groups: TaskGroups, params: TaskParams) -> TaskParams:
        """Phi, which is the same before and after adaptation."""
        return groups["co"]

    def head_weight(self, head: str) -> float:
        """Gamma for the co-learner."""
        return self.options.cml.gamma if head == "co" else super().head_weight(head)

    def outputs(
        self, groups: TaskGroups, params: TaskParams, x: Inputs, heads: tuple[str, ...]
    ) -> dict[str, Outputs]:
        """Outputs (T, n, out) of the heads ``meta`` and ``co``, from the same features."""
        z = self.features(groups, params, x)
        out = {}
        if "co" in heads:
            out["co"] = self.co.apply(self.colearner_params(groups, params), z)
        return out if heads == ("co",) else {"meta": self.network.head(params, z), **out}


@wraps(CML)
def cooperative(base: type[Method]) -> type[Method]:
    """The class of ``base`` with a co-learner: always the same class for the same ``base``."""
    if not base.accepts_colearner:
        reason = f": {base.no_colearner}" if base.no_colearner else ""
        raise UserError(
            f"{base.name}{CML} does not exist: {base.name} does not accept a co-learner{reason}."
        )
    if base not in _made:
        _made[base] = _joined(base)
    return _made[base]


_made: dict[type[Method], type[Method]] = {}


def _joined(base: type[Method]) -> type[Method]:
    options = type(
        "CooperativeOptions", (CooperativeOptions, base.Options), {"__module__": __name__}
    )
    members = {
        "__module__": __name__,
        "__doc__": WithCoLearner.__doc__,
        "Options": options,
        "name": base.name + CML,
        "heads": (*base.heads, "co"),
        "more_readings": (*base.more_readings, Reading("co_eq9", "best_co", "co", "co")),
    }
    joined = type(f"Cooperative[{base.__name__}]", (WithCoLearner, base), members)
    assert issubclass(joined, Method)
    return joined
