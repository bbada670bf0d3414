"""Trainings that differ in nothing but their seed, as one program.

A small network spends its time on starting operations, so several seeds at once take little longer
than one. Each training is an ordinary one, with its own lock, log, checkpoints, record and failure;
what it does between outer steps is its own affair (:meth:`Training.steps`). The outer steps of all
trainings that are at the same step are made here, at once. Parameters, Adam's averages and
meta-batches get an axis over seeds in front, and the compiled program of one seed
(:mod:`cml_bench.engine.compiled`) is batched over it.

A seed's results do not depend on the values of the others. Their last bits may depend on the number
of seeds (``engine.seeds`` in the record) and on the seed's place among them. So number and places
are always those of the job's seeds. Some seeds may be missing at a step: they have ended, or were
finished when the process began, or are further on, since checkpoints are not all of the same step.
Copies of another seed then stand at their places.
"""

import time
from collections.abc import Callable, Hashable, Iterator
from typing import TypeVar

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim.adam import adam

from cml_bench.engine.compiled import PRODUCTS, CompiledStep, Outputs, compiled, constant_free
from cml_bench.engine.step import Adam, check_colearner, clamp
from cml_bench.engine.train import Training
from cml_bench.methods.base import Groups, Method
from cml_bench.spec import RunSpec

Item = TypeVar("Item")


def fits(spec: RunSpec, method: type[Method]) -> bool:
    """Whether a run's outer step is no more than a gradient, a clamp and Adam."""
    return method.meta_step is Method.meta_step and not spec.protocol.gradient_noise


class Together:
    """Outer steps of trainings on the compiled path whose specs are equal but for the seed.

    ``trainings`` by their places among the job's ``seeds``.
    """

    def __init__(self, trainings: dict[int, Training], seeds: int):
        self.trainings, self.seeds = trainings, seeds
        self._programs: dict[Hashable, Callable[..., Outputs] | None] = {}  # by the method's phase
        # The trainings whose parameters and averages are views of the stacks made here.
        self._bound: list[tuple[Training, Adam]] = []
        self._sums: Tensor | None = None  # of losses and scores (kinds, S), since their last pause
        for place, training in trainings.items():
            training.seeds, training.place = seeds, place

    def run(self) -> Iterator[tuple[int, Exception | None]]:
        """Train all to the end. Yields the place of each as it ends, and its error, if any."""
        alive = {place: training.steps() for place, training in self.trainings.items()}
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
                    self.advance({place: self.trainings[place] for place in alive})
            except Exception as error:  # the program's error is the error of all
                yield from ((place, error) for place in alive)
                return

    def advance(self, alive: dict[int, Training]) -> None:
        """Make the earliest outer step that is due, for all trainings that are at it."""
        first = min(training.step for training in alive.values())
        due = {place: training for place, training in alive.items() if training.step == first}
        if not self._advanced(due):
            for training in due.values():
                training.advance()

    def _advanced(self, due: dict[int, Training]) -> bool:
        """Make one outer step of these trainings. False if there is no program for it."""
        start, lead = time.perf_counter(), next(iter(due.values()))
        tasks = {place: training.begin_step() for place, training in due.items()}
        given = self._everywhere(tasks)
        batches = [
            torch.stack(parts)
            for parts in zip(*([*t.support, *t.query] for t in given), strict=True)
        ]
        self._bind(due)
        params = list(self._leaves(self._groups))
        program = self._program(lead, [*params, *batches])
        if program is None:
            self._release()
            return False
        outputs = program(*params, *batches)
        for p, grad in zip(params, outputs, strict=False):
            p.grad = grad.contiguous()  # see CompiledStep.gradients
        if lead.step == 0:
            check_colearner(lead.method, self._groups, lead.spec.title)
        if lead.spec.protocol.clamp:
            clamp(lead.method, self._groups, lead.spec.protocol.clamp)
        self._adam(lead)
        self._count(due, torch.stack([values.sum(1) for values in outputs[len(params) :]]))
        for training in due.values():
            training.end_step(len(given[0]), (time.perf_counter() - start) / len(due))
        return True

    def _everywhere(self, some: dict[int, Item]) -> list[Item]:
        """One item for every place; the first item also stands at the places without one."""
        spare = next(iter(some.values()))
        return [some.get(place, spare) for place in range(self.seeds)]

    @staticmethod
    def _leaves(groups: Groups) -> Iterator[Tensor]:
        return (p for params in groups.values() for p in params.values())

    def _bind(self, due: dict[int, Training]) -> None:
        """Stack parameters and averages as tensors (S, ...), of which each training gets views.

        Nothing changes if these same trainings are bound already.
        """
        wanted = [(training, training.optimizer) for training in due.values()]
        if self._bound == wanted:
            return
        self._bound, self._sums = wanted, None
        lead, optimizer = wanted[0]
        self._trained = {id(p) for chosen in optimizer.param_groups for p in chosen["params"]}
        # By the id of a parameter of the lead: its stack, the two of its averages, Adam's step.
        self._state: dict[int, list[Tensor]] = {}
        self._groups: Groups = {
            group: {name: self._stacked(due, group, name) for name in params}
            for group, params in lead.groups.items()
        }

    def _stacked(self, due: dict[int, Training], group: str, name: str) -> Tensor:
        each = {place: training.groups[group][name] for place, training in due.items()}
        stack = torch.stack([p.detach() for p in self._everywhere(each)])
        for place, p in each.items():
            p.data = stack[place]
        leading = next(iter(each.values()))
        if id(leading) not in self._trained:
            return stack
        states = {place: training.optimizer.state[each[place]] for place, training in due.items()}
        averages = [
            torch.stack(
                [state.get(key, torch.zeros_like(leading)) for state in self._everywhere(states)]
            )
            for key in ("exp_avg", "exp_avg_sq")
        ]
        number = next(iter(states.values())).get("step", torch.zeros(())).clone()
        self._state[id(leading)] = [stack, *averages, number]
        for place, state in states.items():
            state |= {
                "step": number,
                "exp_avg": averages[0][place],
                "exp_avg_sq": averages[1][place],
            }
        return stack

    def _release(self) -> None:
        """Give every training its own tensors again."""
        for training, optimizer in self._bound:
            for p in self._leaves(training.groups):
                p.data = p.data.clone()
            for state in optimizer.state.values():
                state |= {key: value.clone() for key, value in state.items()}
            training.running = None if training.running is None else training.running.clone()
        self._bound = []

    def _adam(self, lead: Training) -> None:
        for group in lead.optimizer.param_groups:
            params, first, second, numbers = zip(
                *(self._state[id(p)] for p in group["params"]), strict=True
            )
            beta1, beta2 = group["betas"]
            adam(
                list(params),
                [p.grad for p in params],
                list(first),
                list(second),
                [],
                list(numbers),
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )

    def _count(self, due: dict[int, Training], sums: Tensor) -> None:
        """Add losses and scores (kinds, S) to the trainings' sums.

        After a pause the sums start anew.
        """
        before = {
            place: training.running
            for place, training in due.items()
            if training.running is not None
        }
        if before and self._sums is not None:
            self._sums += sums
            return
        if before:  # then all have sums, since they pause at the same steps
            sums += torch.stack(self._everywhere(before), 1)
        self._sums = sums
        for place, training in due.items():
            training.running = sums[:, place]

    def _program(self, lead: Training, arguments: list[Tensor]) -> Callable[..., Outputs] | None:
        """The program for arguments (S, ...); None if the graph holds a tensor of one seed."""
        phase = lead.method.phase
        if phase not in self._programs:
            step = lead.meta_step
            assert isinstance(step, CompiledStep)
            with torch.no_grad():
                graph = step.traced([argument[0] for argument in arguments])
                self._programs[phase] = (
                    _over_seeds(graph, arguments) if constant_free(graph) else None
                )
        return self._programs[phase]


def _over_seeds(graph: GraphModule, arguments: list[Tensor]) -> Callable[..., Outputs]:
    """The graph of one seed, batched over seeds and compiled.

    Derivatives are operations of the graph already, so ``vmap`` takes none: where there is
    batch-norm it gets them wrong.
    """
    return compiled(make_fx(torch.vmap(graph), decomposition_table=PRODUCTS)(*arguments), arguments)
