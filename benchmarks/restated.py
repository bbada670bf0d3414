"""The ways of stepping that the engine is compared with, written anew from their description.

``LearnToLearn`` is learn2learn's. The module tree is copied with clones as parameters, the copy
takes inner steps by ``torch.autograd.grad(create_graph=True)``, and every task has its own
``backward``, as in learn2learn's examples.

``Official`` is that of the released CML code, which is torchmeta's. Parameters are an ordered
dictionary in which each layer searches for its own. The losses of the meta-batch are added up, and
there is one ``backward`` at the end.

``PlainLoop`` is tests/helpers/reference.py: one gradient of the whole meta-batch.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import modules
from benchmarks.problem import Problem, split
from cml_bench.data.episodes import Task
from tests.helpers import reference

Named = dict[tuple[str, str], Tensor]


class Peer:
    """What scripts for other libraries have in common: two modules, Adam and a loss.

    They read the accuracy of every task.
    """

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        self.problem = problem
        self.net, self.co = (m and m.to(problem.device) for m in modules.build(problem, dtype))
        self.leaves: Named = {("base", name): p for name, p in self.net.named_parameters()}
        if self.co is not None:
            self.leaves |= {("co", name): p for name, p in self.co.named_parameters()}
        self.optimizer = torch.optim.Adam(list(self.leaves.values()), lr=1e-3)
        self.criterion = F.cross_entropy if problem.size else F.mse_loss

    def step(self, task: Task) -> None:
        """One outer step."""
        self.optimizer.zero_grad()
        self.gradients(task)
        self.optimizer.step()

    def gradients(self, task: Task) -> None:
        """Set the gradients of ``leaves`` to those of the mean over tasks."""
        raise NotImplementedError

    def evaluate(self, task: Task) -> list[float]:
        """Scores of the tasks after adaptation, without a second-order graph."""
        raise NotImplementedError

    def query_loss(self, outputs: Tensor, features: Tensor, y: Tensor) -> Tensor:
        """The meta-learner's loss plus gamma times the co-learner's."""
        loss = self.criterion(outputs, y)
        self.score(outputs, y)
        if self.co is None:
            return loss
        return loss + self.problem.gamma * self.criterion(self.co(features), y)

    def score(self, outputs: Tensor, y: Tensor) -> float:
        """Accuracy, or the squared error."""
        with torch.no_grad():
            return (
                (outputs.argmax(1) == y).float().mean()
                if self.problem.size
                else F.mse_loss(outputs, y)
            ).item()


def cloned(module: nn.Module, seen: dict[int, Tensor]) -> nn.Module:
    """The tree of modules with clones as parameters, through which gradients reach the originals.

    ``seen``: clones by the address of their originals, so that shared parameters stay shared.
    """
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__)
    for kind in ("_parameters", "_buffers", "_modules"):
        twin.__dict__[kind] = dict(module.__dict__[kind])
    for tensors in (twin._parameters, twin._buffers):
        for name, p in tensors.items():
            if p is not None and p.requires_grad:
                if p.data_ptr() not in seen:
                    seen[p.data_ptr()] = p.clone()
                tensors[name] = seen[p.data_ptr()]
    for name, child in twin._modules.items():
        if child is not None:
            twin._modules[name] = cloned(child, seen)
    return twin


def move(module: nn.Module, seen: dict[int, Tensor]) -> None:
    """Add its ``update`` to every parameter of the tree that has one.

    ``seen``: sums by the ``id`` of the parameter, so that shared parameters stay shared.
    """
    for tensors in (module._parameters, module._buffers):
        for name, p in tensors.items():
            if p is None or getattr(p, "update", None) is None:
                continue
            if id(p) not in seen:
                seen[id(p)] = p + p.update
            tensors[name] = seen[id(p)]
    for child in module._modules.values():
        move(child, seen)


class Learner(nn.Module):
    """A module around the copy that adapts."""

    def __init__(self, net: nn.Module, size: float, create_graph: bool):
        super().__init__()
        self.net, self.size, self.create_graph = net, size, create_graph

    def forward(self, *args):
        return self.net(*args)

    def adapt(self, loss: Tensor) -> None:
        """One inner step."""
        params = list(self.net.parameters())
        kept = {"retain_graph": self.create_graph, "create_graph": self.create_graph}
        grads = torch.autograd.grad(loss, params, allow_unused=False, **kept)
        for p, grad in zip(params, grads, strict=True):
            p.update = -self.size * grad
        move(self.net, {})


class LearnToLearn(Peer):
    """learn2learn's way: see the module's text."""

    def adapted(self, x: Tensor, y: Tensor, create_graph: bool) -> nn.Module:
        """A copy of the network after the inner loop."""
        learner = Learner(cloned(self.net, {}), self.problem.inner_lr, create_graph)
        for _ in range(self.problem.inner_steps):
            learner.adapt(self.criterion(learner(x)[0], y))
        return learner

    def gradients(self, task: Task) -> None:
        for x, y, x_query, y_query in split(task):
            net = self.adapted(x, y, create_graph=True)
            self.query_loss(*net(x_query), y_query).backward()
        for p in self.leaves.values():
            p.grad.mul_(1 / len(task))

    def evaluate(self, task: Task) -> list[float]:
        scores = []
        for x, y, x_query, y_query in split(task):
            net = self.adapted(x, y, create_graph=False)
            with torch.no_grad():
                scores.append(self.score(net(x_query)[0], y_query))
        return scores


class Official(Peer):
    """The released CML code's way: see the module's text."""

    def adapted(self, x: Tensor, y: Tensor) -> OrderedDict:
        """Parameters after the inner loop."""
        params = OrderedDict(self.net.named_parameters())
        for _ in range(self.problem.inner_steps):
            loss = self.criterion(modules.functional(self.problem, x, params)[0], y)
            grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = OrderedDict(
                (name, p - self.problem.inner_lr * g)
                for (name, p), g in zip(params.items(), grads, strict=True)
            )
        return params

    def gradients(self, task: Task) -> None:
        total = torch.zeros((), dtype=task.support.x.dtype)
        for x, y, x_query, y_query in split(task):
            params = self.adapted(x, y)
            total = total + self.query_loss(
                *modules.functional(self.problem, x_query, params), y_query
            )
        (total / len(task)).backward()

    def evaluate(self, task: Task) -> list[float]:
        """As released, with a second-order graph that is not needed."""
        return [
            self.score(modules.functional(self.problem, x_query, self.adapted(x, y))[0], y_query)
            for x, y, x_query, y_query in split(task)
        ]


class PlainLoop(Peer):
    """The plain reference of the tests: one gradient of the whole meta-batch."""

    def gradients(self, task: Task) -> None:
        problem, net = self.problem, reference.Conv4() if self.problem.size else reference.MLP()
        base, co = (
            {n: p for (g, n), p in self.leaves.items() if g == group} for group in ("base", "co")
        )
        depth = 2 if problem.size else 1
        _, grads = reference.meta_gradient(
            net,
            base,
            co,
            task,
            problem.kind,
            problem.gamma,
            depth,
            steps=problem.inner_steps,
            lr=problem.inner_lr,
        )
        for key, grad in grads.items():
            self.leaves[key].grad = grad
