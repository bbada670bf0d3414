"""``metasgd``: Meta-SGD (Li, Zhou, Chen, Li 2017, arXiv 1707.09835)."""

from pydantic import Field
from torch import Tensor

from cml_bench import spec
from cml_bench.methods.base import Groups
from cml_bench.methods.maml import MAML
from cml_bench.networks.base import Param
from cml_bench.registry import methods

_RATE = ".inner_lr"  # suffix of a tensor's learned step sizes


class MetaSGDOptions(spec.Options):
    """Defaults: those of ``maml`` here, as the start of what is learned."""

    inner_steps: int = Field(1, ge=0, description="k, gradient steps on the support set; paper: 1")
    inner_lr_init: float = Field(
        0.5, ge=0, description="where every step size starts: the paper draws its start at random"
    )
    first_order: bool = Field(False, description="treat inner gradients as constants")
    adapt_norm: bool = Field(
        True, description="whether the inner loop moves batch-norm scales and shifts"
    )


@methods.register("metasgd")
class MetaSGD(MAML):
    """MAML with a learned step size for every single parameter (algorithm 1).

    w_{j+1} = w_j - a * grad CE(w_j; S), element by element;  w = (psi, theta), a of w's shape
    L = CE(w_k; Q);  the outer loop trains w and a

    With a co-learner: phi reads psi' as in MAML, and its loss trains the step sizes of psi, too. It
    reaches those of theta through further inner steps alone. Phi has no step sizes, since it does
    not adapt.

    Choices. All step sizes start at one number, so the first outer step has MAML's inner loop. They
    are unbounded and may become negative, as in the paper: a learns the direction of a step as well
    as its length. They are the same for every inner step. The outer loop's clamp, which the paper
    does not have, spares them, as it spares MAML++'s.
    """

    Options = MetaSGDOptions
    options: MetaSGDOptions

    @property
    def params(self) -> dict[str, Param]:
        """The network's, and step sizes of the shape of each parameter that adapts."""
        own = self.network.params
        start = self.options.inner_lr_init
        return own | {
            name + _RATE: Param(own[name].shape, value=start) for name in self.moving("meta")
        }

    def clamps(self, group: str, name: str) -> bool:
        """All but the step sizes."""
        return not name.endswith(_RATE)

    def step_size(self, name: str, step: int, groups: Groups) -> Tensor:
        """The step sizes (T, ...) of a parameter, one for each of its elements."""
        return groups["base"][name + _RATE]
