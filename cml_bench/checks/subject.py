"""A method on a network with parameters and tasks to try it on, in float64."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cml_bench import registry
from cml_bench.data.base import DataSet
from cml_bench.data.episodes import Episodes, Task
from cml_bench.engine.step import MetaStep, adam, leaves
from cml_bench.methods.base import Groups, Scores

CPU = torch.device("cpu")
Gradients = dict[tuple[str, str], Tensor]  # (group, name) -> gradient
_WAY, _QUERY = 3, 3  # amm_gnn needs tasks of ten examples


def opened(name: str, folder: Path, options: dict[str, Any] | None = None) -> DataSet:
    """A data set in float64. What it needs is prepared in ``folder``."""
    cls = registry.datasets.get(name)
    data = cls(cls.Options.read(options or {}, f"data set {name}"))
    data.prepare(folder)
    return data.open(folder, CPU, torch.float64)


def way_of(data: DataSet) -> int:
    """How many classes a task has that is tried; 1 where there are none."""
    if data.kind == "regression":
        return 1
    return min([_WAY, *getattr(data, "class_counts", {}).values()])


class Subject:
    """``method`` on ``network`` with tasks of ``data``, which is open.

    Parameters are moved away from their start, so that no normalisation has scale 1 and shift 0.
    """

    def __init__(
        self,
        method: str,
        network: str,
        data: DataSet,
        path: str = "plain",
        network_options: dict[str, Any] | None = None,
        cml: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
    ):
        cls, net = registry.method(method), registry.networks.get(network)
        self.data, self.way = data, way_of(data)
        own = {**cls.network_defaults, **(network_options or {})}
        built = net(
            net.Options.read(own, f"network {network}"),
            data.input_shape,
            data.outputs(self.way),
            path,
        )
        built.bind(data)
        given: dict[str, Any] = {"cml": cml} if cml else {}
        if data.kind == "regression":
            rates = {"inner_lr", "inner_lr_init"} & cls.Options.model_fields.keys()
            given |= dict.fromkeys(rates, 0.05)
        self.method = cls(
            cls.Options.read(given | (options or {}), f"method {method}"), built, data.kind
        )
        self.groups: Groups = leaves(self.method.init(3), CPU, torch.float64)
        self._move()

    def _move(self) -> None:
        """Add numbers to all parameters; scales of normalisations get both signs."""
        generator = torch.Generator().manual_seed(0)
        norms = self.method.network.norm_names
        with torch.no_grad():
            for params in self.groups.values():
                for name, value in params.items():
                    drawn = torch.rand(value.shape, generator=generator, dtype=value.dtype)
                    value += (2.4 if name in norms else 0.16) * (drawn - 0.5)

    def tasks(self, count: int = 3, first: int = 0) -> Task:
        """Training tasks with one example of each class, of a function five."""
        shot, query = (1, _QUERY) if self.data.kind == "classification" else (5, 5)
        return Episodes(self.data, "train", self.way, shot, query, seed=1).batch(first, count)

    def step(self, tasks_at_once: int = 3, lr: float = 1e-3) -> MetaStep:
        """Outer steps of Adam on its parameters."""
        return MetaStep(self.method, self.groups, adam(self.groups, lr), tasks_at_once)

    def gradients(self, task: Task, tasks_at_once: int = 3) -> tuple[Scores, Gradients]:
        """The scores of these tasks, and the outer gradient; 0 where there is none."""
        scores = self.step(tasks_at_once).gradients(task)
        return scores, {
            (group, name): torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for group, params in self.groups.items()
            for name, p in params.items()
        }
