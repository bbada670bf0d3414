"""``cl``: collaborative learning as the CML paper compares with it (section 4.4, Table 4).

The idea is that of Song and Chai (2018).
"""

from pydantic import Field
from torch import Tensor

from cml_bench.data.episodes import Examples
from cml_bench.methods.base import Groups, Reading
from cml_bench.methods.cooperative import CooperativeOptions, WithCoLearner
from cml_bench.methods.maml import MAML, MAMLOptions
from cml_bench.readings import CO_UNADAPTED
from cml_bench.registry import methods
from cml_bench.shapes import Inputs, Outputs, PerTask, TaskGroups, TaskParams

_CO = "co/"  # prefix of phi's names among the adapted parameters


class CLOptions(CooperativeOptions, MAMLOptions):
    """MAML's and the co-learner's, and what the second branch does in the inner loop."""

    inner_gamma: float = Field(
        1.0,
        ge=0,
        description=(
            "weight of the co-learner's support loss in the inner loop. The paper does not state"
            " it: as gamma"
        ),
    )
    co_inner_lr: float | None = Field(
        None,
        ge=0,
        description="inner step size of phi; none: inner_lr. 0 with inner_gamma 0 is CML",
    )


@methods.register("cl")
class CL(WithCoLearner, MAML):
    """Two branches on one body that both adapt; CML's co-learner takes no part in the inner loop.

    inner: (psi, theta, phi)' = (psi, theta, phi) - alpha * grad [CE_meta + inner_gamma * CE_co](S)
    outer: CE_meta(Q) + gamma * CE_co(Q) at (psi, theta, phi)'

    Readings:
    ``both``: row CL (203K at test), averaged logits; the paper does not say how to join branches;
    ``meta``: row CL* (121,093);
    ``co``: row CL+ (195,205);
    ``co_unadapted``: row CL+ without adaptation, if nothing adapts;
    ``co_fixed``: the same row, if psi and theta adapt by the same inner loss and phi does not.
    The paper does not say which of the last two its row is. It reports chance, which fits
    ``co_unadapted`` alone: in configs/omniglot_study.yaml ``co_fixed`` is far above chance.

    Choices. The inner loss is the plain sum of both branches' losses (``inner_gamma`` 1, as gamma).
    The soft targets and the gradient rescaling of Song and Chai are not in the CML paper's text and
    not here. At test every reading but the last two adapts as in training.
    """

    Options = CLOptions
    options: CLOptions
    heads = (*MAML.heads, "co")
    accepts_colearner = False
    no_colearner = "it has one already, which adapts"
    co_in_inner_loop = True
    more_readings = (
        Reading("both", "best_meta", "both", "meta"),
        Reading("co_fixed", "best_meta", "co", "fixed"),
        Reading(CO_UNADAPTED, "best_meta", "co", "none"),
    )

    def start(self, groups: TaskGroups) -> TaskParams:
        """psi, theta and phi."""
        return {**groups["base"], **{_CO + name: value for name, value in groups["co"].items()}}

    def colearner_params(self, groups: TaskGroups, params: TaskParams) -> TaskParams:
        """Phi as it is in ``params``."""
        return {name: params[_CO + name] for name in groups["co"]}

    def moving(self, loss: str) -> list[str]:
        """Everything; ``fixed``: all but phi; ``none``: nothing."""
        if loss == "none":
            return []
        base = super().moving(loss)
        if loss == "fixed" or self.options.co_inner_lr == 0:
            return base
        adapted = (
            name
            for name in self.co.params
            if self.options.adapt_norm or not name.startswith("norm")
        )
        return base + [_CO + name for name in adapted]

    def step_size(self, name: str, step: int, groups: Groups) -> float | Tensor:
        """alpha; phi may have a step size of its own."""
        own = self.options.co_inner_lr
        if name.startswith(_CO) and own is not None:
            return own
        return super().step_size(name, step, groups)

    def support_loss(
        self, groups: TaskGroups, params: TaskParams, support: Examples, loss: str
    ) -> PerTask:
        """The losses (T,) of both branches, added."""
        weight = self.options.inner_gamma
        if not weight:
            return super().support_loss(groups, params, support, "meta")
        outputs = self.outputs(groups, params, support.x, ("meta", "co"))
        co = self.criterion(outputs["co"], support.y)
        return self.criterion(outputs["meta"], support.y) + (co if weight == 1 else weight * co)

    def outputs(
        self, groups: TaskGroups, params: TaskParams, x: Inputs, heads: tuple[str, ...]
    ) -> dict[str, Outputs]:
        """As CML's; ``both`` is the mean of the two heads' outputs."""
        if "both" not in heads:
            return super().outputs(groups, params, x, heads)
        out = super().outputs(groups, params, x, ("meta", "co"))
        return {**out, "both": (out["meta"] + out["co"]) / 2}
