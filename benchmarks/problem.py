"""What all implementations of a workload compute: one network, one method, the same tasks."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from cml_bench import registry
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.flops import task_flops
from cml_bench.methods.base import Groups, Method


@dataclass(frozen=True)
class Problem:
    """A meta-step of MAML or MAML+CML on ``tasks`` tasks.

    ``size``: pixels of a side of the images; 0: the task is the sinusoid.
    """

    method: str = "maml"
    size: int = 0
    channels: int = 3
    filters: int = 64
    way: int = 5
    shot: int = 1
    query: int = 15
    tasks: int = 4
    inner_steps: int = 1
    inner_lr: float = 0.5
    gamma: float = 1.0
    seeds: int = 1  # trainings in one program
    device: str = "cpu"

    @property
    def kind(self) -> str:
        """The kind of task, as a data set has it."""
        return "classification" if self.size else "regression"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return (self.channels, self.size, self.size) if self.size else (1,)

    def learner(self, path: str = "plain") -> Method:
        """The engine's method, with its network on the given path."""
        net = registry.networks.get("conv4" if self.size else "mlp")
        options = net.Options(filters=self.filters) if self.size else net.Options()
        network = net(options, self.input_shape, self.way if self.size else 1, path)
        cls = registry.method(self.method)
        cml = {"cml": {"gamma": self.gamma}} if "co" in cls.heads else {}
        options = cls.Options.read(
            {"inner_steps": self.inner_steps, "inner_lr": self.inner_lr, **cml}, self.method
        )
        return cls(options, network, self.kind)

    def start(self, dtype: torch.dtype = torch.float32) -> Groups:
        """The parameters from which every implementation starts.

        Scales and shifts of batch-norm are moved by noise, so that some scales are below 0.
        """
        generator = torch.Generator().manual_seed(1)

        def moved(name: str, p: Tensor) -> Tensor:
            p = p + 0.8 * torch.randn(p.shape, generator=generator) * name.startswith("norm")
            return p.to(self.device, dtype)

        groups = self.learner().init(0)
        return {
            group: {name: moved(name, p) for name, p in params.items()}
            for group, params in groups.items()
        }

    def task(self, number: int, dtype: torch.dtype = torch.float32) -> Task:
        """Meta-batch ``number``: noise with a mean of its own for every class, or sines."""
        here = self._task(number, dtype)
        return Task(*(Examples(*(t.to(self.device) for t in examples)) for examples in here))

    def _task(self, number: int, dtype: torch.dtype) -> Task:
        generator = torch.Generator().manual_seed(number)

        def part(each: int) -> Examples:
            if not self.size:
                x = 10 * torch.rand(self.tasks, each, 1, generator=generator) - 5
                shift = torch.arange(self.tasks).reshape(-1, 1, 1)
                return Examples(x.to(dtype), torch.sin(x + shift).to(dtype))
            y = torch.arange(self.way).repeat_interleave(each).expand(self.tasks, -1)
            x = torch.rand(self.tasks, self.way * each, *self.input_shape, generator=generator)
            return Examples((x + 0.1 * y[..., None, None, None]).to(dtype), y)

        return Task(part(self.shot), part(self.query))

    def flops(self) -> int:
        """FLOPs of one meta-step's convolutions and matrix products, with all derivatives."""
        data = SimpleNamespace(
            input_shape=self.input_shape,
            kind=self.kind,
            outputs=lambda way: way if self.size else 1,
        )
        return (
            self.tasks
            * task_flops(self.learner(), data, self.way if self.size else 1, self.shot, self.query)[
                "training"
            ]
        )


def split(task: Task) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(support x, support y, query x, query y) of one task after another."""
    return list(zip(*task.support, *task.query, strict=True))
