"""One outer step, for all tasks of a meta-batch.

Several tasks at a time (``tasks_at_once``) go through the network as one program, and the gradient
of the mean over the meta-batch accumulates over these parts. Nothing here waits for the device.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from cml_bench import seeding
from cml_bench.data.episodes import Task
from cml_bench.errors import UserError
from cml_bench.methods.base import Groups, Method, Scores
from cml_bench.registry import CML
from cml_bench.spec import Protocol


def expand(groups: Groups, tasks: int) -> Groups:
    """A view of every parameter with a leading task axis (T, ...)."""
    return {
        group: {name: p.expand(tasks, *p.shape) for name, p in params.items()}
        for group, params in groups.items()
    }


def leaves(groups: Groups, device: torch.device, dtype: torch.dtype) -> Groups:
    """Copies on a device, with a type, that collect gradients."""
    return {
        group: {
            name: p.detach().to(device, dtype, copy=True).requires_grad_()
            for name, p in params.items()
        }
        for group, params in groups.items()
    }


def snapshot(groups: Groups) -> Groups:
    """Detached copies on the CPU."""
    return {
        g: {name: p.detach().to("cpu", copy=True) for name, p in params.items()}
        for g, params in groups.items()
    }


class MetaStep:
    """``step(task)`` makes one outer step of ``method`` on the leaf tensors ``groups``.

    ``adjust``, if given, changes the gradients before the method sees them.
    """

    def __init__(
        self,
        method: Method,
        groups: Groups,
        optimizer: torch.optim.Optimizer,
        tasks_at_once: int,
        adjust: Callable[[Groups], None] | None = None,
    ):
        self.method, self.groups, self.optimizer, self.tasks_at_once = (
            method,
            groups,
            optimizer,
            tasks_at_once,
        )
        self.adjust = adjust

    def gradients(self, task: Task) -> Scores:
        """Set the gradient of the mean outer loss over the T tasks; returns their scores (T,)."""
        self.forget_gradients()
        parts = []
        for first in range(0, len(task), self.tasks_at_once):
            part = task.part(first, first + self.tasks_at_once)
            loss, scores = self.method.outer_loss(expand(self.groups, len(part)), part)
            (loss.sum() / len(task)).backward()
            parts.append(scores)
        return join_scores(parts)

    def forget_gradients(self) -> None:
        """Clear the gradients of all parameters.

        Those that the optimiser leaves alone are cleared, too: otherwise they would add up.
        """
        for params in self.groups.values():
            for p in params.values():
                p.grad = None

    def __call__(self, task: Task) -> Scores:
        def closure() -> Scores:
            scores = self.gradients(task)
            if self.adjust is not None:
                self.adjust(self.groups)
            return scores

        return self.method.meta_step(closure, self.groups, self.optimizer)


def join_scores(parts: list[Scores]) -> Scores:
    """The scores of all parts, concatenated over tasks."""
    if len(parts) == 1:
        return parts[0]
    return Scores(
        *({h: torch.cat([part[i][h] for part in parts]) for h in parts[0][i]} for i in (0, 1))
    )


class Adam(torch.optim.Adam):
    """PyTorch's Adam without the marks that it bears for ``torch.compile``.

    Each mark loads the compiler when its method is first called, which is a large part of a
    training's start. Nothing here compiles an optimiser.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


def adam(
    groups: Groups,
    lr: float,
    trains: Callable[[str, str], bool] = lambda group, name: True,
    weight_decay: float = 0.0,
) -> Adam:
    """Adam as the released code uses it: betas (0.9, 0.999), eps 1e-8; one set for each group.

    For ``trains`` and ``weight_decay`` see :func:`optimizer`.
    """
    return Adam(_trained(groups, trains), lr=lr, weight_decay=weight_decay, fused=True)


def optimizer(
    groups: Groups, protocol: Protocol, trains: Callable[[str, str], bool]
) -> torch.optim.Optimizer:
    """The protocol's outer optimiser, with one set of parameters for each group.

    It gets the parameters for which ``trains(group, name)`` is true. Weight decay is coupled: it is
    added to the gradient. Sgd is torch's: v = momentum * v + g; w = w - lr * v.
    """
    if protocol.outer_optimizer == "adam":
        return adam(groups, protocol.outer_lr, trains, protocol.weight_decay)
    return torch.optim.SGD(
        _trained(groups, trains),
        lr=protocol.outer_lr,
        momentum=protocol.outer_momentum,
        weight_decay=protocol.weight_decay,
        fused=True,
    )


def _trained(groups: Groups, trains: Callable[[str, str], bool]) -> list[dict[str, Any]]:
    chosen = (
        [p for name, p in params.items() if trains(group, name)] for group, params in groups.items()
    )
    return [{"params": params} for params in chosen if params]


def clamp(method: Method, groups: Groups, limit: float) -> None:
    """Clamp outer gradients to +-``limit`` by value, but for parameters that the method exempts."""
    for group, params in groups.items():
        for name, p in params.items():
            if p.grad is not None and method.clamps(group, name):
                p.grad.clamp_(-limit, limit)


def check_colearner(method: Method, groups: Groups, title: str) -> None:
    """A UserError if the first outer step left phi, which is to learn, without any gradient.

    Such a co-learner would stay as it was drawn, and "+0.00" would be printed for it. A frozen one,
    and one of weight 0, are meant to stay.
    """
    phi = groups.get("co", {})
    grads = [p.grad for name, p in phi.items() if method.trains("co", name)]
    if not grads or not method.head_weight("co"):
        return
    # A tensor of the device "meta" has no values: a program is only looked at there.
    if not any(g is not None and (g.is_meta or bool((g != 0).any())) for g in grads):
        plain = method.name.removesuffix(CML)
        raise UserError(
            f"{title}: the co-learner got no gradient in the first outer step, so it would"
            f" never learn: the outer loss of {plain} holds no query loss of its own. Train {plain}"
            " without a co-learner, or set options.cml.frozen, or options.cml.gamma to 0."
        )


def add_noise(method: Method, groups: Groups, size: float, seed: int, step: int) -> None:
    """Add Gaussian noise to the gradient of each tensor of psi.

    The noise of a tensor has ``size`` times the norm of its gradient. Its direction is a function
    of (seed, step, name), the same for every method.
    """
    for name, p in groups["base"].items():
        if p.grad is None or name not in method.network.params or name in method.network.head_names:
            continue
        word = int(seeding.words(seeding.key("gradient noise", seed, name), step, 1, 1).flat[0])
        generator = torch.Generator(p.device).manual_seed(word % 2**63)
        noise = torch.randn(p.shape, generator=generator, device=p.device, dtype=p.dtype)
        p.grad.add_(
            noise * (size * torch.linalg.vector_norm(p.grad) / torch.linalg.vector_norm(noise))
        )
