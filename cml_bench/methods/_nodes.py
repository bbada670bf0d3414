"""What the methods for few-shot node classification share.

They are first order and drop hidden values in the inner loop.
"""

from collections.abc import Iterator

from pydantic import Field

from cml_bench import seeding
from cml_bench.data.episodes import Examples
from cml_bench.methods.base import Adapted, Method
from cml_bench.networks._node_network import NodeNetwork
from cml_bench.networks._sparse import Dropout
from cml_bench.shapes import Features, Inputs, TaskGroups, TaskParams
from cml_bench.spec import Options
from cml_bench.study.protocols import Recipe


class NodeOptions(Options):
    """Defaults: the settings in the CML paper (section 4.3), which says that it ran TLP's code."""

    inner_steps: int = Field(20, ge=0, description="k, gradient steps on the support set")
    inner_lr: float = Field(0.05, ge=0, description="their size")
    dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of hidden values dropped in the inner loop of training tasks (TLP)",
    )


def tlp_recipe(steps: int, outer_lr: float = 1e-3, **options: float) -> Recipe:
    """TLP's loop with the CML paper's learning rate.

    An outer step has one task. Every 10 steps there are 20 new validation tasks.
    """
    protocol = {
        "meta_batch": 1,
        "outer_lr": outer_lr,
        "weight_decay": 5e-4,
        "patience": 10,
        "val_every": 10,
        "val_tasks": 20,
        "val_fresh": True,
    }
    return Recipe(steps=steps, protocol=protocol, options=options)


class NodeMethod(Method):
    """Adapts all of psi and theta, first order; support passes of training tasks drop values.

    A mask is a function of the training seed, the outer step, the task's support nodes and the
    inner step. So it is the same with and without a co-learner, after a resume, and for any split
    of the tasks into parts. Query passes, validation and test drop nothing.
    """

    network: NodeNetwork
    options: NodeOptions

    needs = "nodes"
    second_order = False
    _outer_step = 0
    _inner_step: int | None = None  # while a training task's inner loop runs

    def at_step(self, step: int) -> None:
        """Remember the step, which the masks depend on."""
        self._outer_step = step

    def adapt(self, groups: TaskGroups, support: Examples) -> Iterator[Adapted]:
        """The adapted states of any method; meanwhile the inner steps are counted.

        Support passes run while the next state is being made. Query passes run after a state is
        given and before the next one is asked for, and then no inner step is set.
        """
        states = super().adapt(groups, support)
        step = 0
        while True:
            self._inner_step = step
            try:
                state = next(states, None)
                step = self._inner_step
            finally:
                self._inner_step = None
            if state is None:
                return
            yield state

    def inner_gradients(
        self,
        groups: TaskGroups,
        params: TaskParams,
        names: list[str],
        support: Examples,
        loss: str,
        create_graph: bool,
    ) -> TaskParams:
        """Gradients (T, ...) of the support loss; in training with the masks of the inner step."""
        if loss == "meta" and self.network.path != "plain" and not support.x.is_meta:
            x, y = support
            every = self.network.gradients(
                params, x, y, self._dropout(x), **self.seen_features(groups)
            )
            grads = {name: every[name] for name in names}
        else:
            grads = super().inner_gradients(groups, params, names, support, loss, create_graph)
        if self._inner_step is not None:
            self._inner_step += 1
        return grads

    def features(self, groups: TaskGroups, params: TaskParams, x: Inputs) -> Features:
        """Embeddings (T, n, hidden) of nodes (T, n)."""
        return self.network.features(params, x, self._dropout(x), **self.seen_features(groups))

    def activations(self, groups: TaskGroups, params: TaskParams, x: Inputs) -> TaskParams:
        """The embeddings alone."""
        return {"features": self.features(groups, params, x)}

    def _dropout(self, x: Inputs) -> Dropout | None:
        """The masks of the present support pass; None in other passes."""
        if self._inner_step is None or not self.options.dropout or x.is_meta:
            return None
        parts = ("dropout", self.seed, self._outer_step, self._inner_step)
        return Dropout(
            self.options.dropout, tuple(seeding.key(*parts, nodes) for nodes in x.tolist())
        )

    def seen_features(self, groups: TaskGroups) -> TaskParams:
        """Further arguments of the network: what it must know of the task besides the nodes."""
        return {}
