"""``protonet``: prototypical networks (Snell, Swersky, Zemel, NeurIPS 2017)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cml_bench.data.episodes import Examples
from cml_bench.methods.base import Method, Params
from cml_bench.networks.base import Param
from cml_bench.registry import methods
from cml_bench.shapes import Inputs, Outputs, TaskGroups, TaskParams

_CENTRES = "prototypes"  # (T, way, d), beside psi in the adapted parameters


@methods.register("protonet")
class ProtoNet(Method):
    """A query has the class whose prototype is nearest; nothing descends at test.

    c_k = mean of f_psi(x) over the support examples x of class k                   (equation 1)
    p(y = k | x) = softmax over k of -|f_psi(x) - c_k|^2                            (equation 2)
    L = mean of -log p(y | x) over the queries;  the outer loop trains psi

    There is no inner loop, so inner steps change nothing. The outer gradient passes through the
    prototypes. The network's head is left out: it is no parameter.

    There is no ``protonet+cml``. What phi would read is psi(x), which does not depend on the
    support set. The labels of a task are drawn anew, so phi could learn nothing from psi(x), and
    there is no theta for it to cooperate with. ``anil+cml`` is the control that shows what such a
    co-learner does.

    Choices. f is what the network's head would read, pooled: of Conv4 four blocks with pooling, as
    in the paper, which are 64 numbers at 28x28. A training task has as many classes as a test task;
    the paper trains on Omniglot with 60. No table of the CML paper has this method, and its recipe
    is that of MAML in the released CML code; the paper's, one task a step with Adam 1e-3 that is
    halved every 2,000 tasks, is not ported.
    """

    accepts_colearner = False
    no_colearner = (
        "its features do not depend on which class has which label, so a co-learner on them would"
        " be at chance by construction"
    )
    needs_classes = True
    inner_steps = 0
    second_order = True

    @property
    def params(self) -> dict[str, Param]:
        """Psi."""
        network = self.network
        return {name: p for name, p in network.params.items() if name not in network.head_names}

    def adapts(self, name: str) -> bool:
        """Nothing."""
        return False

    def cannot_adapt(self, head: str, loss: str) -> bool:
        """It can: the prototypes are those of the support set."""
        return False

    def trajectory(
        self,
        groups: TaskGroups,
        support: Examples,
        steps: int,
        *,
        loss: str = "meta",
        create_graph: bool = False,
    ) -> Iterator[Params]:
        """Psi and the prototypes (T, ...); the same after 0, 1, ..., ``steps`` inner steps."""
        with torch.set_grad_enabled(create_graph):
            centres = self._centres(groups, support)
        for _ in range(steps + 1):
            yield {**groups["base"], _CENTRES: centres}

    def _centres(self, groups: TaskGroups, support: Examples) -> Tensor:
        """The prototypes (T, way, d) of examples (T, n, ...)."""
        z = self.network.embedding(self.features(groups, groups["base"], support.x))
        classes = torch.arange(self.network.outputs, device=z.device)
        members = (support.y.unsqueeze(1) == classes[:, None]).to(z.dtype)  # (T, way, n)
        return (members @ z) / members.sum(2, keepdim=True)

    def outputs(
        self, groups: TaskGroups, params: TaskParams, x: Inputs, heads: tuple[str, ...]
    ) -> dict[str, Outputs]:
        """Minus the squared distances (T, n, way) to the prototypes."""
        z, centres = self.network.embedding(self.features(groups, params, x)), params[_CENTRES]
        products = z @ centres.transpose(1, 2)
        of_z, of_centres = z.square().sum(2, keepdim=True), centres.square().sum(2).unsqueeze(1)
        return {"meta": 2 * products - of_z - of_centres}
