"""``amm_gnn``: AMM-GNN (Wang et al. 2020) as TLP's code has it; its authors released no code."""

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cml_bench import seeding
from cml_bench.data.episodes import Task
from cml_bench.errors import UserError
from cml_bench.methods._nodes import NodeMethod, NodeOptions, tlp_recipe
from cml_bench.networks.base import Param
from cml_bench.registry import methods
from cml_bench.shapes import PerTask, TaskGroups, TaskParams

_TASK = "task"  # the group of what is computed for the present tasks


class AMMOptions(NodeOptions):
    """NodeOptions, and the attribute matching."""

    set_size: int = Field(10, ge=1, description="nodes in each of the two random sets of a task")
    scale: float = Field(0.01, ge=0, description="features are multiplied by 1 + scale * alpha")
    regulariser: float = Field(
        0.01, ge=0, description="weight of the cosine terms in the outer loss"
    )


@methods.register("amm_gnn")
class AMMGNN(NodeMethod):
    """First-order MAML on the whole graph's GCN; the task's nodes decide how features are scaled.

    V_1, V_2: random sets of 10 of the task's support and query nodes
    a_i = X[V_i]' w_alpha + b_alpha (d,);  b_i likewise with beta
    X' = X * (1 + 0.01 (a_1 + a_2) / 2)
    inner steps on GCN and head as G-Meta's
    outer loss: CE(Q) - 0.01 [cos(a_1, a_2) + cos(b_1, b_2)]

    Choices, all TLP's. Beta shifts no feature; it is used in the cosine alone. The sets hold query
    nodes, at test too. Inner gradients are constants, so alpha is trained by the query pass and the
    cosine alone. Here the sets are a function of the task's nodes, so every run sees the same sets
    for a task. The preset ``official`` is the CML paper's in TLP's loop (see ``gmeta``), with at
    most 500 tasks. The preset ``tlp`` is TLP's own: Adam 1e-2 and inner steps of 0.1. On
    Amazon-Computer TLP takes inner steps of 0.05, which a configuration must set.
    """

    Options = AMMOptions
    options: AMMOptions
    recipe = tlp_recipe(500)
    more_recipes = {"tlp": tlp_recipe(500, outer_lr=1e-2, inner_lr=0.1)}
    network_defaults = {"readout": "node"}

    @property
    def params(self) -> dict[str, Param]:
        """The network's, and two linear maps (alpha, beta) from a set's nodes to one number."""
        bound = self.network.bound(self.options.set_size, 1)
        more: dict[str, Param] = {}
        for name in ("alpha", "beta"):
            more |= {
                f"{name}.weight": Param((self.options.set_size,), bound),
                f"{name}.bias": Param((), bound),
            }
        return {**self.network.params, **more}

    def check_task(self, count: int) -> None:
        """A UserError for a task with fewer nodes than a set."""
        if count < self.options.set_size:
            raise UserError(
                f"{self.name}: a task of {count} nodes has no set of {self.options.set_size}: raise"
                " shot, query or way."
            )

    def sets(self, nodes: np.ndarray) -> np.ndarray:
        """The two ordered sets (2, set_size) of a task's nodes (n,).

        ``nodes``: support nodes first. No node is drawn twice into a set.
        """
        self.check_task(len(nodes))
        size = self.options.set_size
        raw = seeding.words(seeding.key("attribute sets", nodes.tolist()), 0, 2, len(nodes))
        return nodes[seeding.smallest(raw, size)]

    def meet(self, groups: TaskGroups, task: Task) -> TaskGroups:
        """The groups, and one more of what the task's nodes decide.

        It holds ``alpha`` and ``beta`` (T, 2, d), and the factors ``scale`` (T, d) of features.
        """
        base, nodes = groups["base"], torch.cat((task.support.x, task.query.x), 1)
        if nodes.is_meta:
            shape = (len(nodes), 2, self.options.set_size, self.network.input_shape[0])
            features = torch.empty(shape, device="meta")
        else:
            sets = [self.sets(one) for one in nodes.cpu().numpy()]
            features = torch.stack(
                [
                    self.network.graph.dense_features(one.ravel()).unflatten(0, one.shape)
                    for one in sets
                ]
            )
        maps = {
            name: (
                torch.einsum("tsnd,tn->tsd", features, base[f"{name}.weight"])
                + base[f"{name}.bias"][:, None, None]
            )
            for name in ("alpha", "beta")
        }
        scale = 1 + self.options.scale * maps["alpha"].mean(1)
        return {**groups, _TASK: {**maps, "scale": scale}}

    def extra_loss(self, groups: TaskGroups, task: Task) -> PerTask:
        """Minus the cosines between the two sets' alphas and betas, per task (T,)."""
        pairs = (groups[_TASK][name].unbind(1) for name in ("alpha", "beta"))
        cosines = sum(F.cosine_similarity(a, b, dim=1) for a, b in pairs)
        assert isinstance(cosines, Tensor)
        return -self.options.regulariser * cosines

    def seen_features(self, groups: TaskGroups) -> TaskParams:
        """The factors of the features; in an inner step they are constants (first order)."""
        if _TASK not in groups:
            raise UserError(
                f"{self.name} adapts to a task and its queries together: give `x_query` to `adapt`,"
                " or evaluate it on episodes."
            )
        scale = groups[_TASK]["scale"]
        return {"scale": scale if self._inner_step is None else scale.detach()}
