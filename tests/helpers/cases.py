"""Methods on small networks, and tasks to try them on, in float64.

The networks' parameters are perturbed. Also here: the error of a command.
"""

import math

import torch

from cml_bench import registry, seeding
from cml_bench.__main__ import main
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.step import MetaStep, adam, expand, leaves
from cml_bench.networks.conv4 import Conv4, Conv4Options
from cml_bench.networks.mlp import MLP, MLPOptions
from tests.helpers import reference, reference_methods
from tests.helpers.specs import rate

CPU = torch.device("cpu")


def random(*shape: int, name: str = "x") -> torch.Tensor:
    raw = seeding.words(seeding.key("test", name, shape), 0, 1, math.prod(shape))
    return torch.from_numpy(seeding.uniform(raw).reshape(shape))


def images(tasks=3, way=3, shot=1, query=2, channels=1, size=16, name="task") -> Task:
    """Tasks of random pictures; each class has an offset of its own."""

    def part(each: int, kind: str) -> Examples:
        y = torch.arange(way).repeat_interleave(each).expand(tasks, -1)
        x = (
            random(tasks, way * each, channels, size, size, name=f"{name} {kind}")
            + 0.1 * y[..., None, None, None]
        )
        return Examples(x, y)

    return Task(part(shot, "support"), part(query, "query"))


def waves(tasks=3, shot=4, query=5, name="wave") -> Task:
    xs, xq = (10 * random(tasks, n, 1, name=f"{name}{n}") - 5 for n in (shot, query))
    return Task(Examples(xs, torch.sin(xs)), Examples(xq, torch.sin(xq)))


class Case:
    """A method on a small network with perturbed parameters.

    ``ref`` is the same network in tests/helpers/reference.py.
    """

    def __init__(
        self,
        name="maml+cml",
        net="conv4",
        path="fast",
        way=3,
        channels=1,
        size=16,
        filters=4,
        activation="relu",
        gamma=0.7,
        depth=None,
        network=None,
        cml=None,
        **options,
    ):
        cls = registry.method(name)
        own = {**cls.network_defaults, **(network or {})}
        if net == "conv4":
            self._images(Conv4Options(filters=filters, **own), channels, size, way, path)
        else:
            self._vectors(MLPOptions(hidden=(7, 7), activation=activation, **own), path)
        self.network.name, self.name = net, name
        extra = (
            {"cml": {"gamma": gamma, "depth": depth, **(cml or {})}} if "co" in cls.heads else {}
        )
        lr = 0.4 if net == "conv4" else 0.05
        for key in {"inner_steps", "first_order"} - cls.Options.model_fields.keys():
            options.pop(key, None)  # there is no inner loop, or it is of first order anyway
        self.options = cls.Options.read({**rate(name, lr), **options, **extra}, name)
        self.method = cls(self.options, self.network, self.kind)
        self.gamma, self.depth = gamma, self.network.colearner_depth if depth is None else depth
        self.groups = leaves(self.method.init(3), CPU, torch.float64)
        self._perturb()

    def _images(self, options: Conv4Options, channels: int, size: int, way: int, path: str) -> None:
        self.kind, self.network = (
            "classification",
            Conv4(options, (channels, size, size), way, path),
        )
        late = tuple(5 + i for i in range(options.extra_blocks))
        self.ref = reference.Conv4(late, options.slope)

    def _vectors(self, options: MLPOptions, path: str) -> None:
        self.kind, self.network = "regression", MLP(options, (1,), 1, path)
        late = tuple(3 + i for i in range(options.extra_blocks))
        smooth = options.activation == "tanh"
        self.ref = (reference.SmoothMLP if smooth else reference.MLP)(late)

    def _perturb(self) -> None:
        """Add random values to all parameters.

        Batch-norm's scales get both signs, because the fast path treats negative ones in another
        way.
        """
        with torch.no_grad():
            for params in self.groups.values():
                for key, value in params.items():
                    value += (
                        0.8
                        * (random(*value.shape, name=key) - 0.5)
                        * (3 if key.startswith("norm") else 0.2)
                    )

    def inner(self) -> dict:
        norm = self.network.norm_names
        return {
            "steps": self.options.inner_steps,
            "lr": self.options.inner_lr,
            "first_order": self.options.first_order,
            "adapts": lambda name: self.options.adapt_norm or name not in norm,
        }

    def engine_gradient(self, task: Task, tasks_at_once: int = 4):
        step = MetaStep(self.method, self.groups, adam(self.groups, 1e-3), tasks_at_once)
        scores = step.gradients(task)
        grads = {
            (g, n): torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for g, params in self.groups.items()
            for n, p in params.items()
        }
        return scores, grads

    def reference_gradient(self, task: Task):
        theta, phi = self.groups["base"], self.groups.get("co")
        return reference.meta_gradient(
            self.ref, theta, phi, task, self.kind, self.gamma, self.depth, **self.inner()
        )

    def received(self, task: Task, tasks_at_once: int = 4, made: type[MetaStep] = MetaStep) -> dict:
        """The gradients that the optimiser gets in one outer step, by group and name.

        Whatever the method does in between, the parameters are put back.
        """
        before = {
            (g, n): p.detach().clone()
            for g, params in self.groups.items()
            for n, p in params.items()
        }
        leaves_ = [p for params in self.groups.values() for p in params.values()]
        made(self.method, self.groups, torch.optim.SGD(leaves_, lr=1.0), tasks_at_once)(task)
        moved = {
            (g, n): p.detach().clone()
            for g, params in self.groups.items()
            for n, p in params.items()
        }
        with torch.no_grad():
            for (g, n), value in before.items():
                self.groups[g][n].copy_(value)
        return {key: before[key] - moved[key] for key in before}

    def wanted(self, task: Task, **more) -> dict:
        """What :meth:`received` must be.

        Computed by the slow loop of tests/helpers/reference_methods.py.
        """
        theta, phi = self.groups["base"], self.groups.get("co", {})
        return reference_methods.outer_gradient(
            self.name,
            self.ref,
            theta,
            phi,
            task,
            self.kind,
            self.gamma,
            self.depth,
            self.options,
            **more,
        )

    def step(self, lr=1e-3, tasks_at_once=4, made: type[MetaStep] = MetaStep) -> MetaStep:
        return made(self.method, self.groups, adam(self.groups, lr), tasks_at_once)


def values(groups: dict) -> dict:
    """The present parameters on a CPU, by group and name."""
    return {(g, n): p.detach().cpu() for g, params in groups.items() for n, p in params.items()}


def follow(groups: dict, by_hand: reference.Adam, grads: dict) -> None:
    """Make one step of Adam as it is written down in reference.py."""
    with torch.no_grad():
        for (g, n), value in by_hand.step(values(groups), grads).items():
            groups[g][n].copy_(value)


def relative(got: dict, want: dict) -> float:
    """The largest difference, each tensor's as a share of its largest entry.

    Biases of convolutions in front of batch-norm are left out: their gradient is rounding noise.
    Where every ReLU of a block is dead, a whole tensor is rounding noise: so a tensor is measured
    against at least a ten-thousandth of the largest entry of all tensors.
    """
    names = [n for n in want if not (n[1].startswith("conv") and ".bias" in n[1])]
    sizes = {n: float(want[n].abs().max()) for n in names}
    least = max(1e-12, 1e-4 * max(sizes.values()))
    return max(float((got[n] - want[n]).abs().max()) / max(sizes[n], least) for n in names)


def said(capsys, *arguments: str) -> str:
    """The one paragraph that a command prints as it ends with exit code 2."""
    assert main(list(arguments)) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def adapted(case: Case, task: Task, steps: int | None = None, loss: str = "meta"):
    """Parameters (T, ...) after the inner loop."""
    steps = case.method.inner_steps if steps is None else steps
    *_, params = case.method.trajectory(
        expand(case.groups, len(task)), task.support, steps, loss=loss
    )
    return params
