"""The same meta-step by learn2learn, higher and torchopt themselves, as in their MAML examples.

This runs in the peers' environment. Making the class of a missing library is an ImportError.
"""

import torch
from torch import Tensor

from benchmarks.problem import Problem, split
from benchmarks.restated import LearnToLearn, Peer
from cml_bench.data.episodes import Task


class LearnToLearnPackage(LearnToLearn):
    """``learn2learn.algorithms.MAML`` instead of what is restated from it."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        import learn2learn

        super().__init__(problem, dtype)
        self.maml = learn2learn.algorithms.MAML(self.net, lr=problem.inner_lr, first_order=False)

    def adapted(self, x: Tensor, y: Tensor, create_graph: bool):
        """The library's copy of the network after the inner loop."""
        learner = self.maml.clone(first_order=not create_graph)
        for _ in range(self.problem.inner_steps):
            learner.adapt(self.criterion(learner(x)[0], y))
        return learner


class Higher(Peer):
    """``higher.innerloop_ctx``: one backward per task."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        import higher

        super().__init__(problem, dtype)
        self.loop = higher.innerloop_ctx
        self.inner = torch.optim.SGD(self.net.parameters(), lr=problem.inner_lr)

    def _adapt(self, net, optimizer, x: Tensor, y: Tensor) -> None:
        for _ in range(self.problem.inner_steps):
            optimizer.step(self.criterion(net(x)[0], y))

    def gradients(self, task: Task) -> None:
        for x, y, x_query, y_query in split(task):
            with self.loop(self.net, self.inner, copy_initial_weights=False) as (net, optimizer):
                self._adapt(net, optimizer, x, y)
                (self.query_loss(*net(x_query), y_query) / len(task)).backward()

    def evaluate(self, task: Task) -> list[float]:
        scores = []
        for x, y, x_query, y_query in split(task):
            with self.loop(self.net, self.inner, track_higher_grads=False) as (net, optimizer):
                self._adapt(net, optimizer, x, y)
                with torch.no_grad():
                    scores.append(self.score(net(x_query)[0], y_query))
        return scores


class TorchOpt(Peer):
    """``torchopt.MetaSGD``: the losses of the meta-batch averaged, one backward."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        import torchopt

        super().__init__(problem, dtype)
        self.torchopt = torchopt
        self.inner = torchopt.MetaSGD(self.net, lr=problem.inner_lr)

    def gradients(self, task: Task) -> None:
        extract, recover = self.torchopt.extract_state_dict, self.torchopt.recover_state_dict
        weights = extract(self.net, by="reference", detach_buffers=True)
        state = extract(self.inner, by="reference")
        losses = []
        for x, y, x_query, y_query in split(task):
            for _ in range(self.problem.inner_steps):
                self.inner.step(self.criterion(self.net(x)[0], y))
            losses.append(self.query_loss(*self.net(x_query), y_query))
            recover(self.net, weights)
            recover(self.inner, state)
        torch.stack(losses).mean().backward()
