"""``anil``: almost no inner loop (Raghu, Raghu, Bengio, Vinyals, ICLR 2020)."""

from collections.abc import Iterator

import torch
from pydantic import Field

from cml_bench.data.episodes import Examples
from cml_bench.methods.base import Method, Params
from cml_bench.registry import methods
from cml_bench.shapes import PerTask, TaskGroups, TaskParams
from cml_bench.spec import Options


class ANILOptions(Options):
    """Defaults: those of ``maml`` here, so that the two differ in what adapts alone."""

    inner_steps: int = Field(1, ge=0, description="k, gradient steps of the head")
    inner_lr: float = Field(0.5, ge=0, description="alpha, their size")
    first_order: bool = Field(False, description="treat inner gradients as constants")


@methods.register("anil")
class ANIL(Method):
    """MAML whose inner loop moves the head theta alone, in training and at test (section 4).

    theta_{j+1} = theta_j - alpha * grad_theta CE(psi, theta_j; S);  psi' = psi
    L = CE(psi, theta_k; Q)

    The features of the support set do not change in the inner loop, so they are computed once.

    With a co-learner: phi reads psi, which does not adapt. So the co-learner's gradient reaches psi
    straight and not through the inner loop, and phi never learns of the support set which class has
    which label. Labels are drawn anew for each task, so phi is at chance by construction, and so is
    every reading of it: rows of CML† say that and are left out. What ``anil+cml`` trains is
    equation 6 as it stands. It is a control: whatever it gains over ``anil`` is no second opinion
    of the co-learner, but the noise of its gradient.

    Choices. The batch-norms of psi keep their scales and shifts in the inner loop. Their statistics
    are those of the batch, as everywhere here. The paper's inner steps and sizes are MAML's.
    """

    Options = ANILOptions
    options: ANILOptions

    def adapts(self, name: str) -> bool:
        """The head alone."""
        return name in self.network.head_names

    def trajectory(
        self,
        groups: TaskGroups,
        support: Examples,
        steps: int,
        *,
        loss: str = "meta",
        create_graph: bool = False,
    ) -> Iterator[Params]:
        """As any method's, on the features of the support set (T, n, ...) instead of its inputs."""
        with torch.set_grad_enabled(create_graph):
            features = self.features(groups, self.start(groups), support.x)
        seen = Examples(features, support.y)
        return super().trajectory(groups, seen, steps, loss=loss, create_graph=create_graph)

    def support_loss(
        self, groups: TaskGroups, params: TaskParams, support: Examples, loss: str
    ) -> PerTask:
        """The head's loss (T,) on features: see :meth:`trajectory`.

        The head adapts by its own loss alone, since no other reads it.
        """
        return self.criterion(self.network.head(params, support.x), support.y)
