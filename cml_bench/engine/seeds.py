"""Trainings that differ in nothing but their seed, as one program.

A small network's step costs what starting its operations costs, so several seeds at once cost little more than one.
Each training is an ordinary one, with its own lock, log, checkpoints, record and failure; all it does between outer
steps is its own (:meth:`Training.steps`). The outer steps of all that are at the same one are made here: parameters,
Adam's averages and meta-batches with an axis over seeds in front, and the compiled program of one seed
(:mod:`cml_bench.engine.compiled`) batched over it.

What a seed gets does not depend on the values of the others, but may depend on their number in the last bits: the
record says it (``engine.seeds``). So the number is that of a job's seeds, whoever has ended before or was finished when
the process began; copies stand at the places of those.
"""

import time
from collections.abc import Callable, Hashable, Iterator

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim.adam import adam

from cml_bench.engine.compiled import PRODUCTS, CompiledStep, Outputs, compiled, constant_free
from cml_bench.engine.step import clamp
from cml_bench.engine.train import Training
from cml_bench.methods.base import Groups, Method
from cml_bench.spec import RunSpec


def fits(spec: RunSpec, method: type[Method]) -> bool:
    """Whether a run's outer step is no more than a gradient, a clamp and Adam."""
    return method.meta_step is Method.meta_step and not spec.protocol.gradient_noise


class Together:
    """Outer steps of trainings on the compiled path whose specs are equal but for the seed, ``seeds`` at once."""

    def __init__(self, trainings: list[Training], seeds: int):
        self.trainings = trainings
        self._places = trainings + trainings[:1] * (seeds - len(trainings))
        self._programs: dict[Hashable, Callable[..., Outputs] | None] = {}  # by the method's phase
        self._optimizers: list[torch.optim.Adam] = []  # those whose state is a view of what is stacked here
        for training in trainings:
            training.seeds = seeds

    def run(self) -> Iterator[tuple[int, Exception | None]]:
        """Train all to the end: the place of each as it ends, and what stopped it."""
        alive = {place: training.steps() for place, training in enumerate(self.trainings)}
        while alive:
            for place, steps in list(alive.items()):
                try:
                    more, problem = next(steps, self) is None, None
                except Exception as error:
                    more, problem = False, error
                if not more:
                    del alive[place]
                    yield place, problem
            try:
                if alive:
                    self.advance([self.trainings[place] for place in alive])
            except Exception as error:  # of the program, so of all of them
                yield from ((place, error) for place in alive)
                return

    def advance(self, alive: list[Training]) -> None:
        """Make an outer step: of all that are at the earliest one, as one program where that is all of them."""
        first = min(training.step for training in alive)
        behind = [training for training in alive if training.step == first]
        if len(behind) < len(alive) or not self._advanced(alive):
            for training in behind:  # after a restart, say: checkpoints were not of the same step
                training.advance()

    def _advanced(self, alive: list[Training]) -> bool:
        """Make one outer step of all, if there is a program for it."""
        start, lead = time.perf_counter(), alive[0]
        tasks = {id(training): training.begin_step() for training in alive}
        spare = tasks[id(lead)]  # stands at the places of those that have ended
        given = [tasks.get(id(training), spare) for training in self._places]
        batches = [torch.stack(parts) for parts in zip(*([*t.support, *t.query] for t in given), strict=True)]
        self._bind()
        params = list(self._leaves(self._groups))
        program = self._program(lead, [*params, *batches])
        if program is None:
            self._release()
            return False
        found = program(*params, *batches)
        for p, grad in zip(params, found, strict=False):
            p.grad = grad
        if lead.spec.protocol.clamp:
            clamp(lead.method, self._groups, lead.spec.protocol.clamp)
        self._adam(lead)
        self._count(lead, torch.stack([values.sum(1) for values in found[len(params) :]]))
        for training in alive:
            training.end_step(len(spare), (time.perf_counter() - start) / len(alive))
        return True

    @staticmethod
    def _leaves(groups: Groups) -> Iterator[Tensor]:
        return (p for params in groups.values() for p in params.values())

    def _bind(self) -> None:
        """Make every training's parameters and averages views of tensors (S, ...), unless they are."""
        optimizers = [training.optimizer for training in self.trainings]
        if self._optimizers == optimizers:
            return
        self._optimizers, self._sums = optimizers, None
        self._groups: Groups = {}
        self._state: dict[int, list[Tensor]] = {}  # by each parameter: its stack, those of its averages, Adam's step
        self._trained = {id(p) for group in optimizers[0].param_groups for p in group["params"]}
        for group, params in self.trainings[0].groups.items():
            self._groups[group] = {name: self._stacked(group, name) for name in params}

    def _stacked(self, group: str, name: str) -> Tensor:
        each = [training.groups[group][name] for training in self._places]
        stack = torch.stack([p.detach() for p in each])
        for p, values in zip(each[: len(self.trainings)], stack, strict=False):
            p.data = values
        if id(each[0]) not in self._trained:
            return stack
        states = [training.optimizer.state[p] for training, p in zip(self._places, each, strict=True)]
        averages = [
            torch.stack([state.get(key, torch.zeros_like(each[0])) for state in states])
            for key in ("exp_avg", "exp_avg_sq")
        ]
        number = states[0].get("step", torch.zeros(())).clone()
        for i in range(len(self.trainings)):
            self._state[id(each[i])] = [stack, *averages, number]
            states[i] |= {"step": number, "exp_avg": averages[0][i], "exp_avg_sq": averages[1][i]}
        return stack

    def _release(self) -> None:
        """Give every training its own tensors again."""
        for training in self.trainings:
            for p in self._leaves(training.groups):
                p.data = p.data.clone()
            for state in training.optimizer.state.values():
                state |= {key: value.clone() for key, value in state.items()}
            training.running = None if training.running is None else training.running.clone()
        self._optimizers = []

    def _adam(self, lead: Training) -> None:
        for group in lead.optimizer.param_groups:
            params, first, second, numbers = zip(*(self._state[id(p)] for p in group["params"]), strict=True)
            beta1, beta2 = group["betas"]
            adam(
                list(params), [p.grad for p in params], list(first), list(second), [], list(numbers), fused=True,
                amsgrad=False, beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"],
                eps=group["eps"], maximize=False,
            )  # fmt: skip

    def _count(self, lead: Training, sums: Tensor) -> None:
        """Add losses and scores (kinds, S) to the trainings' sums, which start anew after each of their pauses."""
        if lead.running is not None and self._sums is not None:
            self._sums += sums
            return
        if lead.running is not None:
            sums += torch.stack([lead.running if t.running is None else t.running for t in self._places], 1)
        self._sums = sums
        for training, values in zip(self.trainings, sums.unbind(1), strict=False):
            training.running = values

    def _program(self, lead: Training, arguments: list[Tensor]) -> Callable[..., Outputs] | None:
        """Of arguments (S, ...); None if there is something of one seed in it."""
        phase = lead.method.phase
        if phase not in self._programs:
            step: CompiledStep = lead.meta_step
            with torch.no_grad():
                graph = step.traced([argument[0] for argument in arguments])
                self._programs[phase] = _over_seeds(graph, arguments) if constant_free(graph) else None
        return self._programs[phase]


def _over_seeds(graph: GraphModule, arguments: list[Tensor]) -> Callable[..., Outputs]:
    """Derivatives are operations of the graph: ``vmap`` takes none, which it gets wrong where batches are normed."""
    return compiled(make_fx(torch.vmap(graph), decomposition_table=PRODUCTS)(*arguments), arguments)
