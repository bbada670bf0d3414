"""Ten steps of the released codes, recorded in tests/fixtures, and the same steps here."""

from pathlib import Path

import numpy as np
import torch

from cml_bench import registry
from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.step import MetaStep, adam, expand
from cml_bench.networks.conv4 import Conv4, Conv4Options

FOLDER = Path(__file__).parent.parent / "fixtures"
FILES = {"maml": "cml_maml", "maml+cml": "cml_gamma1", "boil": "boil"}


def ours(name: str) -> tuple[str, str]:
    """The released code's parameter name as (group, name) here."""
    module, *rest = name.split(".")
    if module in ("meta_learner", "classifier", "fixed_cls"):
        return ("co" if module == "fixed_cls" else "base", f"head.{rest[-1]}")
    if module == "features":  # the name in the BOIL code
        module, rest = f"conv{int(rest[0]) + 1}", rest[1:]
    layer = {"0": "conv", "1": "norm"}[rest[0]]
    return ("co" if module.startswith("fixed") else "base", f"{layer}{module[-1]}.{rest[1]}")


def load(file: str, part: str) -> dict[tuple[str, str], torch.Tensor]:
    with np.load(FOLDER / f"{file}.npz") as arrays:
        return {
            ours(k.removeprefix(part)): torch.from_numpy(arrays[k])
            for k in arrays.files
            if k.startswith(part)
        }


def batches() -> list[Task]:
    with np.load(FOLDER / "tasks_32.npz") as a:
        pixels = {
            k: (2 * a[f"{k}_codes"].astype(np.float64) + 1) / 64 for k in ("support", "query")
        }
        return [
            Task(
                *(
                    Examples(torch.from_numpy(pixels[k][s]), torch.from_numpy(a[f"{k}_targets"][s]))
                    for k in pixels
                )
            )
            for s in range(10)
        ]


def there(task: Task, device: str) -> Task:
    return Task(*(Examples(*(t.to(device) for t in part)) for part in task))


def adapted_values(method, groups: dict, task: Task) -> dict[str, torch.Tensor]:
    """The parameters after one inner step.

    No graph outlives this call: a step cannot be recorded on a GPU while a graph holds its leaves.
    """
    *_, adapted = method.trajectory(expand(groups, len(task)), task.support, 1)
    return {name: value.detach() for name, value in adapted.items()}


def scalar(file: str, key: str) -> np.ndarray:
    with np.load(FOLDER / f"{file}.npz") as arrays:
        return arrays[key]


def build(
    name: str,
    path: str,
    initial: dict,
    tasks_at_once: int,
    made: type[MetaStep] = MetaStep,
    device="cpu",
):
    cls = registry.method(name)
    network = Conv4(Conv4Options(filters=8), (3, 32, 32), 5, path)
    method = cls(cls.Options.read({"inner_lr": 0.5}, name), network, "classification")
    groups: dict = {"base": {}, **({"co": {}} if "co" in method.heads else {})}
    for (group, key), value in initial.items():
        groups[group][key] = value.clone().to(device).requires_grad_()
    assert {k: v.shape for k, v in groups["base"].items()} == {
        k: p.shape for k, p in network.params.items()
    }
    return method, groups, made(method, groups, adam(groups, 1e-3), tasks_at_once)


def close(got: torch.Tensor, want: torch.Tensor) -> bool:
    """Whether two tensors agree to 1e-8 of the largest entry."""
    return bool((got.cpu() - want).abs().max() <= 1e-8 * want.abs().max())


def compared(name: tuple[str, str]) -> bool:
    """Whether a parameter is compared.

    Left out are the biases in front of batch-norm, whose gradient is rounding noise, and their
    learned step sizes.
    """
    return not (name[1].startswith("conv") and ".bias" in name[1])


def ten_steps(name, path, tasks_at_once, made=MetaStep, device="cpu"):
    """Losses, accuracies, the first adapted parameters and gradient, and the final parameters."""
    file = FILES[name]
    method, groups, step = build(name, path, load(file, "init/"), tasks_at_once, made, device)
    losses: dict[str, list[float]] = {head: [] for head in method.heads}
    right: dict[str, list[float]] = {head: [] for head in method.heads}
    for number, task in enumerate(there(task, device) for task in batches()):
        if number == 0:
            adapted = adapted_values(method, groups, task)
            for (group, key), want in load(file, "adapted/").items():
                if compared((group, key)):
                    assert close(adapted[key][0], want), key
            step.gradients(task)
            for (group, key), want in load(file, "grad1/").items():
                if compared((group, key)):
                    assert close(groups[group][key].grad, want), key
        scores = step(task)
        for head in method.heads:
            losses[head].append(scores.loss[head].mean().item())
            right[head].append(scores.score[head].mean().item())
    for head in method.heads:
        np.testing.assert_allclose(losses[head], scalar(file, f"loss_{head}"), rtol=1e-8)
        np.testing.assert_allclose(right[head], scalar(file, f"acc_{head}"), atol=1e-12)
    for (group, key), want in load(file, "final/").items():
        if compared((group, key)):
            assert close(groups[group][key].detach(), want), key
