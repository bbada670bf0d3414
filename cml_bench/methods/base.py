"""What a method is.

Parameters come in groups: ``base`` (psi and theta, kept at test) and, with a co-learner, ``co``
(phi). :meth:`Method.adapt` yields adapted states, one for each point at which a query loss is due,
with the weight of that loss. Each state gives the outputs of every head. The engine does the rest:
batches of tasks, the outer optimiser, validation, selection, records.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cml_bench import spec
from cml_bench.data.episodes import Examples, Task
from cml_bench.errors import UserError
from cml_bench.networks.base import (
    CoLearner,
    Network,
    Param,
    Params,
    check_start,
    initialise,
)
from cml_bench.shapes import (
    Features,
    Inputs,
    Labels,
    Outputs,
    PerTask,
    TaskGroups,
    TaskParams,
)
from cml_bench.study.protocols import RELEASED, Recipe

Groups = dict[str, Params]
Result = TypeVar("Result")


class Adapted(NamedTuple):
    """Parameters after ``step`` inner steps, and the weight of the query loss that is due here."""

    step: int
    weight: float
    params: Params


class Reading(NamedTuple):
    """One more way to test a run."""

    name: str
    model: str  # the stored model: best_meta or best_co
    head: str  # whose outputs are scored
    inner_loss: str  # the head whose support loss the inner loop descends, or a variant of it


class Scores(NamedTuple):
    """Per task (T,) and head: loss, and score (the accuracy; for regression the loss again)."""

    loss: dict[str, PerTask]
    score: dict[str, PerTask]


def cross_entropy(outputs: Outputs, targets: Labels) -> PerTask:
    """Mean over examples: (T, n, way), (T, n) -> (T,)."""
    return (
        F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        .view_as(targets)
        .mean(1)
    )


def mean_squared_error(outputs: Outputs, targets: Outputs) -> PerTask:
    """Mean over examples and output dimensions: (T, n, d), (T, n, d) -> (T,)."""
    return F.mse_loss(outputs, targets, reduction="none").flatten(1).mean(1)


def accuracy(outputs: Outputs, targets: Labels) -> PerTask:
    """Share of examples whose largest output is that of their class: (T,)."""
    right = outputs.argmax(2) == targets
    # A type of 16 bits is too coarse for a mean.
    return right.to(torch.promote_types(outputs.dtype, torch.float32)).mean(1)


def descend(
    param: Float[Tensor, "*shape"], grad: Float[Tensor, "*shape"], size: float | Tensor
) -> Float[Tensor, "*shape"]:
    """``param - size * grad``, in one operation where the step size is a number."""
    return param - size * grad if isinstance(size, Tensor) else torch.sub(param, grad, alpha=size)


CRITERIA = {
    "classification": (cross_entropy, accuracy),
    "regression": (mean_squared_error, mean_squared_error),
}


class Method:
    """Base of all methods that learn an initialisation and adapt it by gradient steps.

    A subclass says which parameters adapt (:meth:`adapts`) and how large an inner step is
    (:meth:`step_size`). Whatever else it differs in has a hook, from :meth:`inner_update`, the
    inner optimiser, to :meth:`outer_loss`. What a hook gets, must give and must leave alone is said
    in its docstring and, in one table, in docs/extending.md.
    """

    Options: type[spec.Options] = spec.Options  # a subclass sets its own class
    options: Any  # of the class Options; a subclass annotates it with that class
    name: str
    version = 1  # part of every run's id: raise it when the algorithm's numbers change
    accepts_colearner = True
    no_colearner = ""  # where it accepts none: why, as the end of a sentence
    learns = True  # a method that does not learn has no network, and overrides evaluate
    heads: tuple[str, ...] = ("meta",)
    co: CoLearner  # where ``co`` is one of the heads
    co_in_inner_loop = False  # whether the inner loop on the loss ``meta`` moves or reads phi
    recipe: Recipe = RELEASED  # its hyper-parameters under the presets official and clean
    more_recipes: dict[str, Recipe] = {}  # other hyper-parameters, each a preset by its name
    network_defaults: dict[str, Any] = {}  # options of the network that belong to the method
    more_readings: tuple[Reading, ...] = ()  # besides those of every method: cml_bench/readings.py
    needs: str | None = None  # what its network must take (see Network.takes); None: anything
    # The outer loss () of one task (T = 1), plain: `check NAME` compares it and its gradient.
    reference: Callable[[TaskGroups, Task], Tensor] | None = None
    needs_classes = False  # whether its tasks must be of classes; else values will do, too
    gradient_is_exact = True  # whether backward gives the slope of the outer loss, where 2nd order
    seed = 0  # of the training; a method's own draws depend on it and on the outer step alone
    total_steps = 0  # outer steps of the whole training, for schedules; 0: nothing is trained
    # Everything of the method that depends on the outer step: see at_step. Within a phase the
    # engine repeats what it has compiled or recorded once. So nothing else may depend on the step:
    # a draw, for example, would be repeated too. Each phase is compiled anew: let there be few.
    phase: Hashable = None

    def __init__(self, options: spec.Options, network: Network, kind: str):
        self.options, self.network, self.kind = options, network, kind
        if self.needs and network.takes != self.needs:
            raise UserError(
                f"{self.name} works on {self.needs}, and {network.name} takes {network.takes}."
            )
        if self.needs_classes and kind != "classification":
            raise UserError(
                f"{self.name} needs classes, and the examples of this data set have values: choose"
                " another data set, see `python -m cml_bench list data`."
            )
        self.criterion, self.score = CRITERIA[kind]

    def check_task(self, count: int) -> None:
        """A UserError if the method cannot use a task of ``count`` examples, support and query."""

    # -- parameters --

    @property
    def params(self) -> dict[str, Param]:
        """The group ``base``: the network's parameters, and what else the method needs at test.

        Names that the network has must keep the network's shapes. All of them are trained, stored
        and counted, so one that no output reads is left out (see ``protonet``).
        """
        return self.network.params

    def check_start(self) -> None:
        """Raise a UserError if the parameters cannot be initialised; nothing is allocated."""
        check_start(self.params, f"network {self.network.name}")

    def init(self, seed: int) -> Groups:
        """Initial parameters, each a function of the seed, the network's name and its own name."""
        return {"base": initialise(self.params, f"network {self.network.name}", seed)}

    def trains(self, group: str, name: str) -> bool:
        """Whether the outer loop moves this parameter."""
        return True

    def adapts(self, name: str) -> bool:
        """Whether the inner loop moves this parameter of the network."""
        return True

    def step_size(self, name: str, step: int, groups: Groups) -> float | Tensor:
        """Inner step size of one parameter at inner step 0, 1, ..."""
        return self.options.inner_lr

    @property
    def inner_steps(self) -> int:
        """Inner steps in training, and at test unless the evaluation says otherwise."""
        return self.options.inner_steps

    @property
    def second_order(self) -> bool:
        """Whether the outer gradient differentiates through the inner gradients."""
        return not self.options.first_order

    # -- inner loop --

    def outputs(
        self, groups: TaskGroups, params: TaskParams, x: Inputs, heads: tuple[str, ...]
    ) -> dict[str, Outputs]:
        """Outputs (T, n, out) of the named heads at adapted parameters.

        ``params`` is a state that :meth:`trajectory` yielded, and holds whatever the method put
        there. The inputs may be any number of examples, so nothing may be kept from another call.
        """
        return {"meta": self.network.head(params, self.features(groups, params, x))}

    def features(self, groups: TaskGroups, params: TaskParams, x: Inputs) -> Features:
        """The features (T, n, ...) that every head reads."""
        return self.network.features(params, x)

    def activations(self, groups: TaskGroups, params: TaskParams, x: Inputs) -> TaskParams:
        """Outputs (T, n, ...) of the layers of psi, by name, for figures."""
        return self.network.activations(params, x)

    def meet(self, groups: TaskGroups, task: Task) -> TaskGroups:
        """The groups, and what the method computes from a task and its queries before it adapts."""
        return groups

    def moving(self, loss: str) -> list[str]:
        """Names of the parameters that the inner loop moves when it descends this loss."""
        fixed = self.network.fixed_names
        return [name for name in self.network.params if self.adapts(name) and name not in fixed]

    def cannot_adapt(self, head: str, loss: str) -> bool:
        """Whether the inner loop on ``loss`` moves nothing that this head reads.

        Its outputs are then the same for every support set.
        """
        return not self.moving(loss)

    def start(self, groups: TaskGroups) -> TaskParams:
        """What the inner loop starts from (T, ...)."""
        return groups["base"]

    def seen(self, params: TaskParams, step: int) -> TaskParams:
        """The parameters as inner step ``step`` and the query pass after it use them."""
        return params

    def support_loss(
        self, groups: TaskGroups, params: TaskParams, support: Examples, loss: str
    ) -> PerTask:
        """What the inner loop descends, per task (T,).

        ``loss`` names a head, or a variant that a reading asks for.
        """
        return self.criterion(self.outputs(groups, params, support.x, (loss,))[loss], support.y)

    def inner_gradients(
        self,
        groups: TaskGroups,
        params: TaskParams,
        names: list[str],
        support: Examples,
        loss: str,
        create_graph: bool,
    ) -> TaskParams:
        """Gradients (T, ...) of the support loss.

        Tasks are independent, so the gradient of the sum over tasks holds that of each task.
        """
        if not names:
            return {}
        value = self.support_loss(groups, params, support, loss).sum()
        grads = torch.autograd.grad(
            value, [params[name] for name in names], create_graph=create_graph, allow_unused=True
        )
        return {name: grad for name, grad in zip(names, grads, strict=True) if grad is not None}

    def trajectory(
        self,
        groups: TaskGroups,
        support: Examples,
        steps: int,
        *,
        loss: str = "meta",
        create_graph: bool = False,
    ) -> Iterator[Params]:
        """Parameters (T, ...) after 0, 1, ..., ``steps`` inner steps: ``steps`` + 1 states.

        A state holds all that :meth:`outputs` reads, and more than parameters if need be. It may
        depend on the support set and the groups alone, and each task's on its own part of them. At
        test ``steps`` is what the evaluation asks for, not what the method trains with.
        ``create_graph``: whether derivatives with respect to the groups are wanted through the
        inner gradients; if not, those are constants. ``loss``: see :meth:`support_loss`.
        """
        params, names = self.start(groups), self.moving(loss)
        memory: TaskParams = {}
        yield self.seen(params, 0)
        with self.network.repeating(support.x):
            for step in range(steps):
                batch = self.inner_batch(support, step)
                grads = self.inner_gradients(
                    groups, self.seen(params, step), names, batch, loss, create_graph
                )
                moved, memory = self.inner_update(groups, params, grads, step, memory)
                params = {**params, **moved}
                yield self.seen(params, step)

    def inner_batch(self, support: Examples, step: int) -> Examples:
        """The examples on whose loss inner step ``step`` descends; here all of the support set."""
        return support

    def inner_update(
        self,
        groups: TaskGroups,
        params: TaskParams,
        grads: TaskParams,
        step: int,
        memory: TaskParams,
    ) -> tuple[TaskParams, TaskParams]:
        """The inner optimiser: the moved parameters (T, ...) after inner step ``step``.

        Beside them: its memory (T, ...) for the next step, which is empty before the first. Here
        w' = w - a v with v' = m v + g, where m is the method's option ``inner_momentum``, if it has
        one. Nothing is changed in place, so the outer gradient passes through the memory as well.
        """
        momentum = getattr(self.options, "inner_momentum", 0.0)
        if momentum:
            grads = memory = {
                name: grad + momentum * memory[name] if name in memory else grad
                for name, grad in grads.items()
            }
        moved = {
            name: descend(params[name], grad, self.step_size(name, step, groups))
            for name, grad in grads.items()
        }
        return moved, memory

    def adapt(self, groups: TaskGroups, support: Examples) -> Iterator[Adapted]:
        """The adapted states at which a query loss is due; here the last one, with weight 1."""
        *_, params = self.trajectory(
            groups, support, self.inner_steps, create_graph=self.second_order
        )
        yield Adapted(self.inner_steps, 1.0, params)

    # -- outer loop --

    def at_step(self, step: int) -> None:
        """Called before outer step ``step``: a method with a schedule sets :attr:`phase` here.

        Steps count from 0 to :attr:`total_steps` - 1. A resumed training begins with a later one,
        so the phase is a function of the step, not of the calls before.
        """

    def for_test(self) -> "Method":
        """The method as it is at test."""
        return self

    def clamps(self, group: str, name: str) -> bool:
        """Whether the protocol's ``clamp`` applies to this parameter's outer gradient."""
        return True

    def head_weight(self, head: str) -> float:
        """Weight of a head's query loss in the outer loss."""
        return 1.0

    def extra_loss(self, groups: TaskGroups, task: Task) -> PerTask | None:
        """A further term (T,) of the outer loss; None: there is none."""
        return None

    def outer_loss(self, groups: TaskGroups, task: Task) -> tuple[PerTask, Scores]:
        """The outer loss (T,), and the scores of the last adapted state.

        The engine takes the gradient of its mean over the meta-batch with respect to ``groups``, so
        the loss of a task may depend on that task alone. A method whose outer gradient is no
        gradient of a loss makes a loss that has it (see ``reptile``), and sets
        ``gradient_is_exact`` to False. The scores have no graph, and one entry for each of
        :attr:`heads`. Without a query loss of the head ``co`` a co-learner never learns.
        """
        groups = self.meet(groups, task)
        total = self.extra_loss(groups, task)
        for state in self.adapt(groups, task.support):
            outputs = self.outputs(groups, state.params, task.query.x, self.heads)
            losses = {head: self.criterion(outputs[head], task.query.y) for head in self.heads}
            for head, loss in losses.items():
                factor = state.weight * self.head_weight(head)
                weighted = loss if factor == 1 else factor * loss
                total = weighted if total is None else total + weighted
        assert total is not None  # there is at least one adapted state
        losses = {head: loss.detach() for head, loss in losses.items()}
        if self.score is self.criterion:
            return total, Scores(losses, losses)
        return total, Scores(
            losses, {h: self.score(outputs[h].detach(), task.query.y) for h in self.heads}
        )

    def evaluate(self, task: Task) -> Scores:
        """Scores of a batch of tasks, by a method that does not learn."""
        raise NotImplementedError

    def meta_step(
        self, closure: Callable[[], Result], groups: Groups, optimizer: torch.optim.Optimizer
    ) -> Result:
        """Make one outer step, and return what ``closure``, which sets the gradients, returns.

        ``closure`` may be called again, at other parameters, and always sees the same tasks. The
        optimiser is the protocol's, Adam or SGD. A method that overrides this is trained seed by
        seed: several seeds in one program know Adam's plain step alone.
        """
        result = closure()
        optimizer.step()
        return result
