"""``amm_gnn``: AMM-GNN (Wang et al. 2020) as TLP's code has it; its authors released none."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cml_bench import seeding
from cml_bench.data.episodes import Task
from cml_bench.errors import UserError
from cml_bench.methods._nodes import NodeMethod, NodeOptions, tlp_recipe
from cml_bench.methods.base import Groups
from cml_bench.networks.base import Param
from cml_bench.registry import methods

_TASK = "task"  # a group of what belongs to the tasks at hand


class AMMOptions(NodeOptions):
    """NodeOptions, and the attribute matching."""

    set_size: int = Field(10, ge=1, description="nodes in each of the two random sets of a task")
    scale: float = Field(0.01, ge=0, description="features are multiplied by 1 + scale * alpha")
    regulariser: float = Field(
        0.01, ge=0, description="weight of the cosine terms in the outer loss"
    )


@methods.register("amm_gnn")
class AMMGNN(NodeMethod):
    """First-order MAML on the whole graph's GCN, with features scaled by a factor that the task's
    nodes decide.

    V_1, V_2: random sets of 10 of the task's support and query nodes;  a_i = X[V_i]' w_alpha +
    b_alpha (d,); b_i likewise with beta;  X' = X * (1 + 0.01 (a_1 + a_2) / 2);  inner steps on GCN
    and head as G-Meta's; outer loss: CE(Q) - 0.01 [cos(a_1, a_2) + cos(b_1, b_2)].

    Choices, all TLP's: beta shifts nothing, it only feeds the cosine; the sets hold query nodes, at
    test too; inner gradients are constants, so alpha is trained by the query pass and the cosine
    alone. The sets are drawn from the task's nodes here, so a task has the same ones whatever is
    trained on it. The preset ``official`` is the CML paper's in TLP's loop, with at most 500 tasks:
    see ``gmeta``. The preset ``tlp`` is TLP's own: Adam 1e-2 and inner steps of 0.1; on
    Amazon-Computer TLP's are 0.05, which is left to the configuration.
    """

    Options = AMMOptions
    recipe = tlp_recipe(500)
    more_recipes = {"tlp": tlp_recipe(500, outer_lr=1e-2, inner_lr=0.1)}
    network_defaults = {"readout": "node"}

    @property
    def params(self) -> dict[str, Param]:
        """The network's, and a linear map from the nodes of a set to one number for each of alpha
        and beta.
        """
        bound = 1.0 if self.network.options.init == "fan_out" else self.options.set_size**-0.5
        more = {}
        for name in ("alpha", "beta"):
            more |= {
                f"{name}.weight": Param((self.options.set_size,), bound),
                f"{name}.bias": Param((), bound),
            }
        return {**self.network.params, **more}

    def check_task(self, count: int) -> None:
        """A set is drawn from a task's nodes, none of them twice."""
        if count < self.options.set_size:
            raise UserError(
                f"{self.name}: a task of {count} nodes has no set of {self.options.set_size}: raise"
                " shot, query or way."
            )

    def sets(self, nodes: np.ndarray) -> np.ndarray:
        """The two ordered sets (2, set_size) of a task's nodes (n,), support first."""
        self.check_task(len(nodes))
        size = self.options.set_size
        raw = seeding.words(seeding.key("attribute sets", nodes.tolist()), 0, 2, len(nodes))
        return nodes[seeding.smallest(raw, size)]

    def meet(self, groups: Groups, task: Task) -> Groups:
        """With ``alpha`` and ``beta`` (T, 2, d) of the task and ``scale`` (T, d), the factors of
        the features.
        """
        base, nodes = groups["base"], torch.cat((task.support.x, task.query.x), 1)
        if nodes.is_meta:
            shape = (len(nodes), 2, self.options.set_size, self.network.input_shape[0])
            words = torch.empty(shape, device="meta")
        else:
            sets = [self.sets(one) for one in nodes.cpu().numpy()]
            words = torch.stack(
                [self.network.graph.words(one.ravel()).unflatten(0, one.shape) for one in sets]
            )
        found = {
            name: (
                torch.einsum("tsnd,tn->tsd", words, base[f"{name}.weight"])
                + base[f"{name}.bias"][:, None, None]
            )
            for name in ("alpha", "beta")
        }
        return {
            **groups,
            _TASK: {**found, "scale": 1 + self.options.scale * found["alpha"].mean(1)},
        }

    def extra_loss(self, groups: Groups, task: Task) -> Tensor:
        """Minus the cosines of the two sets' alpha and beta, per task (T,)."""
        pairs = (groups[_TASK][name].unbind(1) for name in ("alpha", "beta"))
        return -self.options.regulariser * sum(F.cosine_similarity(a, b, dim=1) for a, b in pairs)

    def seen_features(self, groups: Groups) -> dict[str, Any]:
        """The factors of the features; constants in an inner step, which is first order."""
        if _TASK not in groups:
            raise UserError(
                f"{self.name} adapts to a task and its queries together: give `x_query` to `adapt`,"
                " or evaluate it on episodes."
            )
        scale = groups[_TASK]["scale"]
        return {"scale": scale if self._inner_step is None else scale.detach()}
