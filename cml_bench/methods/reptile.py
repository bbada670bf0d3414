"""``reptile``: Reptile (Nichol, Achiam, Schulman 2018, arXiv 1803.02999)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cml_bench.data.episodes import Examples, Task
from cml_bench.methods.base import Method, Scores
from cml_bench.registry import methods
from cml_bench.shapes import PerTask, TaskGroups, TaskParams
from cml_bench.spec import Options
from cml_bench.study.protocols import Recipe

_DECAY, _EPS = 0.999, 1e-8  # of Adam, as in the released code


class ReptileOptions(Options):
    """Defaults: k and the batch of the released command for 5-way 5-shot Omniglot."""

    inner_steps: int = Field(5, ge=0, description="k, inner steps")
    inner_lr: float = Field(0.1, ge=0, description="their size; with adam the command has 0.0015")
    inner_batch: int = Field(
        10,
        ge=0,
        description="examples of an inner step, at most: see the method; 0: all, in every step",
    )
    inner_optimizer: Literal["sgd", "adam"] = Field(
        "sgd",
        description=(
            "sgd, as in the paper's comparison of gradients; adam without a mean of gradients"
            " (beta1 0), as in its benchmarks"
        ),
    )
    trained_on: Literal["both", "support"] = Field(
        "both",
        description=(
            "what the inner loop of training descends on: support set and queries together, or the"
            " support set alone"
        ),
    )
    adapt_norm: bool = Field(
        True, description="whether the inner loop moves batch-norm scales and shifts"
    )


@methods.register("reptile")
class Reptile(Method):
    """The start moves towards the parameters that k steps on a task's data arrive at.

    w_0 = w = (psi, theta);  w_{j+1} = w_j - alpha * grad CE(w_j; B_j),  j = 0..k-1  (algorithm 2)
    outer gradient: mean over tasks of w - w_k

    Plain outer steps (``outer_optimizer: sgd``) of size ``outer_lr`` make w + lr * mean(w_k - w);
    the paper also names this difference as a gradient for Adam. B_j are minibatches.
    The n examples of a task are cut into ceil(n / ``inner_batch``) of them, which are used one
    after another, again and again. Each takes of every class alike, as far as that can be. The
    released code shuffles anew for every pass instead; here a step must not depend on a draw of
    its own, since steps are compiled.

    There is no ``reptile+cml``: the outer update is a difference of parameters, not the gradient of
    a query loss, so equation 6 has nothing to which gamma times the co-learner's loss could be
    added, and no weight would be right for all k and alpha.

    Choices. Reptile divides a training task into no support and query set: it takes 10 to 15
    examples of each class, more than at test. So here it trains on both parts, and has the examples
    that the other methods have; ``trained_on: support`` leaves the queries out. At test it adapts
    to the support set, as every method. Its training curve is the query loss at w_k, on queries
    that it may have seen. The preset ``official`` is the released command for 5-way 5-shot
    Omniglot. Two things of that code are not here. Its Adam keeps squares of gradients from task to
    task; here each task begins anew, so that tasks do not depend on their order. And its command
    tests after 100 inner steps on batches of 6: here after k, unless ``evaluation.inner_steps``
    says otherwise.
    """

    Options = ReptileOptions
    options: ReptileOptions
    accepts_colearner = False
    no_colearner = (
        "its outer update is a difference of parameters and not the gradient of a query loss, so"
        " there is no loss to which the co-learner's could be added"
    )
    second_order = False
    gradient_is_exact = False
    recipe = Recipe(
        steps=100_000,
        protocol={
            "meta_batch": 5,
            "outer_optimizer": "sgd",
            "outer_lr": 0.7,
            "outer_lr_min": 0.0,
            "outer_schedule": "linear",
            "epoch_steps": 1,
        },
        options={"inner_optimizer": "adam", "inner_lr": 0.0015},
    )

    def adapts(self, name: str) -> bool:
        """Everything; without ``adapt_norm`` all but batch-norm's scales and shifts."""
        return self.options.adapt_norm or name not in self.network.norm_names

    def inner_batch(self, support: Examples, step: int) -> Examples:
        """The examples (T, n / m, ...) of a step, where m is the number of minibatches.

        The first of each class come first, then the second of each class, and so on.
        """
        count, size = support.y.shape[1], self.options.inner_batch
        parts = -(-count // size) if size else 1
        if parts == 1:
            return support
        if self.kind == "classification":
            support = Examples(*(self._by_class(v).transpose(1, 2).flatten(1, 2) for v in support))
        return Examples(*(values.tensor_split(parts, 1)[step % parts] for values in support))

    def _by_class(self, values: Tensor) -> Tensor:
        """Examples (T, n, ...) that stand class by class as (T, way, n / way, ...)."""
        return values.unflatten(1, (self.network.outputs, -1))

    def _joined(self, one: Tensor, other: Tensor) -> Tensor:
        """Support examples and queries (T, n, ...) together, again class by class."""
        if self.kind != "classification":
            return torch.cat([one, other], 1)
        return torch.cat([self._by_class(one), self._by_class(other)], 2).flatten(1, 2)

    def inner_update(
        self,
        groups: TaskGroups,
        params: TaskParams,
        grads: TaskParams,
        step: int,
        memory: TaskParams,
    ) -> tuple[TaskParams, TaskParams]:
        """A plain step, or one of Adam with beta1 0; its memory is the mean of squares."""
        if self.options.inner_optimizer == "sgd":
            return super().inner_update(groups, params, grads, step, memory)
        squares, moved = {}, {}
        for name, grad in grads.items():
            before: Tensor | float = memory.get(name, 0.0)
            squares[name] = _DECAY * before + (1 - _DECAY) * grad.square()
            root = (squares[name] / (1 - _DECAY ** (step + 1))).sqrt()
            moved[name] = params[name] - self.options.inner_lr * grad / (root + _EPS)
        return moved, squares

    def outer_loss(self, groups: TaskGroups, task: Task) -> tuple[PerTask, Scores]:
        """The query losses (T,) at w_k, with w - w_k as their gradient; and the scores."""
        seen = task.support
        if self.options.trained_on == "both":
            seen = Examples(*(self._joined(*parts) for parts in zip(*task, strict=True)))
        *_, end = self.trajectory(groups, seen, self.inner_steps)
        with torch.no_grad():
            outputs = self.outputs(groups, end, task.query.x, self.heads)
            losses = {head: self.criterion(outputs[head], task.query.y) for head in self.heads}
            scores = {head: self.score(outputs[head], task.query.y) for head in self.heads}
        # The product's gradient is the difference; its value is taken away again.
        way = [
            (start * (start - end[name]).detach()).flatten(1).sum(1)
            for name, start in self.start(groups).items()
        ]
        pull = torch.stack(way).sum(0)
        return losses["meta"] + pull - pull.detach(), Scores(losses, scores)
