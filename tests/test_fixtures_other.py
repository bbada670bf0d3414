"""Ten meta-steps of the released MAML++ and Sharp-MAML codes: equal here in float64."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cml_bench import registry
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.step import MetaStep, adam, clamp, expand
from cml_bench.networks.conv4 import Conv4, Conv4Options
from tests.helpers.released import close, compared

FOLDER = Path(__file__).parent / "fixtures"
CASES = {
    # file: method, its options, the network's options, tasks of a meta-batch
    "mamlpp_A": ("mamlpp", {"inner_steps": 3}, {"slope": 0.01}, 2),
    "sharp_low": ("sharp_maml", {"inner_steps": 2, "level": "low", "rho_low": 0.05}, {}, 4),
    "sharp_both": (
        "sharp_maml",
        {"inner_steps": 2, "level": "both", "rho_low": 0.05, "rho_up": 0.05},
        {},
        4,
    ),
}


def ours(name: str) -> str:
    """The name here of a parameter of the released code."""
    if "learning_rates_dict" in name:
        return ours(name.rsplit(".", 1)[1].replace("-", ".")) + ".inner_lr"
    name = name.removeprefix("classifier.").removeprefix("layer_dict.").removeprefix("features.")
    parts = name.replace("norm_layer", "norm").replace("weights", "weight").split(".")
    if parts[0] == "linear" or len(parts) == 1:
        return f"head.{parts[-1]}"
    number = int(parts[0][-1]) + parts[0].startswith(
        "conv"
    )  # MAML++ counts from 0, Sharp-MAML from 1
    return f"{parts[1]}{number}.{parts[2]}"


def load(arrays, part: str) -> dict[str, torch.Tensor]:
    return {
        ours(k.removeprefix(part)): torch.from_numpy(v)
        for k, v in arrays.items()
        if k.startswith(part)
    }


def batches(tasks: int) -> list[Task]:
    with np.load(FOLDER / "tasks_3x32x32_5w2s3q.npz") as a:
        pixels = {
            k: a[f"{k}_x_u8"].astype(np.float64)[:, :tasks] / 16 for k in ("support", "query")
        }
        labels = {k: a[f"{k}_y"][:, :tasks] for k in pixels}
    return [
        Task(
            *(
                Examples(torch.from_numpy(pixels[k][s]), torch.from_numpy(labels[k][s]))
                for k in pixels
            )
        )
        for s in range(10)
    ]


class Watched(MetaStep):
    """A step that keeps the last mean outer loss, and the gradient that Adam receives."""

    def gradients(self, task):
        outer_loss, total = self.method.outer_loss, []

        def observed(groups, part):
            loss, scores = outer_loss(groups, part)
            total.append(loss.sum().item())
            return loss, scores

        self.method.outer_loss = observed
        scores = super().gradients(task)
        del self.method.outer_loss
        self.loss = sum(total) / len(task)
        return scores

    def __call__(self, task):
        step = self.optimizer.step

        def stepping():
            base = self.groups["base"].items()
            self.received = {
                n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in base
            }
            step()

        self.optimizer.step = stepping
        scores = super().__call__(task)
        self.optimizer.step = step
        return scores


def build(file: str, path: str, arrays, tasks_at_once: int) -> Watched:
    name, options, network_options, _ = CASES[file]
    cls = registry.method(name)
    network = Conv4(Conv4Options(filters=8, **network_options), (3, 32, 32), 5, path)
    method = cls(cls.Options.read(options, name), network, "classification")
    groups = {"base": {k: v.clone().requires_grad_() for k, v in load(arrays, "init/").items()}}
    assert {k: tuple(v.shape) for k, v in groups["base"].items()} == {
        k: p.shape for k, p in method.params.items()
    }
    limit = partial(clamp, method, limit=10.0) if name == "mamlpp" else None
    return Watched(method, groups, adam(groups, 1e-3), tasks_at_once, limit)


@pytest.mark.parametrize(("path", "tasks_at_once"), [("plain", 1), ("fast", 4)])
@pytest.mark.parametrize("file", CASES)
def test_ten_official_meta_steps(file, path, tasks_at_once):
    arrays = dict(np.load(FOLDER / f"{file}.npz"))
    step, tasks = build(file, path, arrays, tasks_at_once), batches(CASES[file][3])
    base, losses, accuracy = step.groups["base"], [], []
    adapting = step.method.trajectory(
        expand(step.groups, len(tasks[0])), tasks[0].support, step.method.inner_steps
    )
    for number, params in enumerate(adapting):
        for name, want in load(arrays, f"adapted1_task0/step{number}/").items():
            assert not compared(("base", name)) or close(params[name][0], want), (number, name)
    for number, task in enumerate(tasks):
        step.method.at_step(number)
        accuracy.append(step(task).score["meta"].mean().item())
        losses.append(step.loss)
        if number == 0:
            for name, want in load(arrays, "grad1/").items():
                assert not compared(("base", name)) or close(step.received[name], want), name
    np.testing.assert_allclose(losses, arrays["outer_loss"], rtol=1e-8)
    np.testing.assert_allclose(accuracy, arrays["query_accuracy"], atol=1e-12)
    for name, want in load(arrays, "final/").items():
        assert not compared(("base", name)) or close(base[name].detach(), want), name
