"""What the methods for few-shot node classification share: first order, and a dropout in the inner
loop.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import Field
from torch import Tensor

from cml_bench import seeding
from cml_bench.data.episodes import Examples
from cml_bench.methods.base import Adapted, Groups, Method, Params
from cml_bench.networks._sparse import Dropout
from cml_bench.spec import Options
from cml_bench.study.protocols import Recipe


class NodeOptions(Options):
    """Defaults: the settings printed in the CML paper (section 4.3), which it says it ran in TLP's
    code.
    """

    inner_steps: int = Field(20, ge=0, description="k, gradient steps on the support set")
    inner_lr: float = Field(0.05, ge=0, description="their size")
    dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of hidden values dropped in the inner loop of training tasks (TLP)",
    )


def tlp_recipe(steps: int, outer_lr: float = 1e-3, **options: float) -> Recipe:
    """TLP's loop, with the CML paper's learning rate: one task a step, 20 new validation tasks
    every 10 steps.
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
    """Adapts all of psi and theta, first order, dropping hidden values on the support passes of
    training tasks.

    A mask is a function of the training seed, the outer step, the task's support nodes and the
    inner step: the same with and without a co-learner, after a resume, and however tasks are split
    into parts. Query passes, validation and test drop nothing.
    """

    needs = "nodes"
    second_order = False
    _outer_step = 0
    _inner_step: int | None = None  # while a training task's inner loop runs

    def at_step(self, step: int) -> None:
        """For the masks."""
        self._outer_step = step

    def adapt(self, groups: Groups, support: Examples) -> Iterator[Adapted]:
        """As any method's.

        Support passes are made while the next state is asked for, query passes in between.
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
        groups: Groups,
        params: Params,
        names: list[str],
        support: Examples,
        loss: str,
        create_graph: bool,
    ) -> dict[str, Tensor]:
        """Those of the next inner step, with its masks in training."""
        if loss == "meta" and self.network.path != "plain" and not support.x.is_meta:
            x, y = support
            found = self.network.gradients(
                params, x, y, self._dropout(x), **self.seen_features(groups)
            )
            grads = {name: found[name] for name in names}
        else:
            grads = super().inner_gradients(groups, params, names, support, loss, create_graph)
        if self._inner_step is not None:
            self._inner_step += 1
        return grads

    def features(self, groups: Groups, params: Params, x: Tensor) -> Tensor:
        """Embeddings (T, n, hidden) of nodes (T, n)."""
        return self.network.features(params, x, self._dropout(x), **self.seen_features(groups))

    def activations(self, groups: Groups, params: Params, x: Tensor) -> dict[str, Tensor]:
        """The embeddings."""
        return {"features": self.features(groups, params, x)}

    def _dropout(self, x: Tensor) -> Dropout | None:
        """Of the support pass at hand; none in other passes."""
        if self._inner_step is None or not self.options.dropout or x.is_meta:
            return None
        parts = ("dropout", self.seed, self._outer_step, self._inner_step)
        return Dropout(
            self.options.dropout, tuple(seeding.key(*parts, nodes) for nodes in x.tolist())
        )

    def seen_features(self, groups: Groups) -> dict[str, Any]:
        """What the network must know of the task besides the nodes."""
        return {}
