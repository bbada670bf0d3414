"""Deliberate mistakes in methods, for the tests that must notice them.

Each is a function of a MonkeyPatch.
"""

import itertools

import torch

from cml_bench import registry
from cml_bench.data.episodes import Examples
from cml_bench.engine import readings, train
from cml_bench.engine.step import MetaStep
from cml_bench.methods.base import Adapted, Method
from cml_bench.methods.maml import MAML


def no_adaptation_at_test(patch) -> None:
    original = readings.evaluate_all

    def evaluate_all(method, *args, **kwargs):
        with_trajectory = method.trajectory
        method.trajectory = lambda groups, support, steps, **_: itertools.repeat(
            groups["base"], steps + 1
        )
        try:
            return original(method, *args, **kwargs)
        finally:
            method.trajectory = with_trajectory

    patch.setattr(readings, "evaluate_all", evaluate_all)


def query_loss_at_unadapted_weights(patch) -> None:
    def adapt(self, groups, support):
        yield Adapted(0, 1.0, groups["base"])

    patch.setattr(Method, "adapt", adapt)


def outer_step_zero(patch) -> None:
    original = train.optimizer
    still = {"outer_lr": 0.0}
    patch.setattr(
        train,
        "optimizer",
        lambda groups, p, *rest: original(groups, p.model_copy(update=still), *rest),
    )


def support_labels_shuffled(patch) -> None:
    original, generator = Method.inner_gradients, torch.Generator().manual_seed(0)

    def inner_gradients(self, groups, params, names, support, loss, create_graph):
        order = torch.randperm(support.y.shape[1], generator=generator)
        return original(
            self,
            groups,
            params,
            names,
            Examples(support.x, support.y[:, order]),
            loss,
            create_graph,
        )

    patch.setattr(Method, "inner_gradients", inner_gradients)


def inner_step_a_tenth(patch) -> None:
    patch.setattr(MAML, "step_size", lambda self, name, step, groups: 0.1 * self.options.inner_lr)


def one_convolution_frozen(patch, number: int = 4) -> None:
    """The last convolution stays at its random start in both loops.

    In the gate's 150 steps the first two convolutions do as well random as trained (57.7 and 58.1
    against 57.5 %), so it must be the last one.
    """
    frozen, adapts, gradients = f"conv{number}.", MAML.adapts, MetaStep.gradients

    def no_gradients(self, task):
        scores = gradients(self, task)
        for name, param in self.groups["base"].items():
            if name.startswith(frozen):
                param.grad = None
        return scores

    patch.setattr(
        MAML, "adapts", lambda self, name: adapts(self, name) and not name.startswith(frozen)
    )
    patch.setattr(MetaStep, "gradients", no_gradients)


# Mistakes that accuracy shows, each with the gate's experiment on which it is tried.
SEEN_BY_THE_GATE = {
    no_adaptation_at_test: "sinusoid",
    query_loss_at_unadapted_weights: "sinusoid",
    outer_step_zero: "sinusoid",
    support_labels_shuffled: "sinusoid",
    inner_step_a_tenth: "sinusoid",
    one_convolution_frozen: "glyphs",
}


def first_order(patch) -> None:
    patch.setattr(Method, "second_order", property(lambda self: False))


def gamma_halved(patch) -> None:
    cls = registry.method("maml+cml")
    original = cls.head_weight
    patch.setattr(
        cls, "head_weight", lambda self, head: original(self, head) * (0.5 if head == "co" else 1.0)
    )


def colearner_adapts_too(patch) -> None:
    """The inner loop also descends the co-learner's support loss, for psi and phi alike."""
    cls = registry.method("maml+cml")

    def trajectory(self, groups, support, steps, *, loss="meta", create_graph=False):
        path = Method.trajectory(self, groups, support, steps, loss=loss, create_graph=create_graph)
        for params in path:
            yield params
            value = self.criterion(
                self.outputs(groups, params, support.x, ("co",))["co"], support.y
            ).sum()
            names = list(groups["co"])
            grads = torch.autograd.grad(
                value, [groups["co"][n] for n in names], create_graph=create_graph
            )
            groups["co"] = {
                n: groups["co"][n] - self.options.inner_lr * g
                for n, g in zip(names, grads, strict=True)
            }

    patch.setattr(cls, "trajectory", trajectory)


def norm_not_adapted(patch) -> None:
    patch.setattr(MAML, "adapts", lambda self, name: name not in self.network.norm_names)


def sum_over_tasks(patch) -> None:
    """The outer loss is a sum over tasks instead of a mean.

    Adam hides a constant factor but for its epsilon, so the trace has losses after plain gradient
    steps.
    """
    original = MetaStep.gradients

    def gradients(self, task):
        scores = original(self, task)
        for params in self.groups.values():
            for param in params.values():
                if param.grad is not None:
                    param.grad *= len(task)
        return scores

    patch.setattr(MetaStep, "gradients", gradients)


SEEN_BY_TRACES = [first_order, gamma_halved, colearner_adapts_too, norm_not_adapted, sum_over_tasks]
