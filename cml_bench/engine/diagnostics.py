"""Gradients of each head on one fixed validation task: the raw material of figure 3.

Backward passes of their own compute them; the training step is left alone. The paper leaves two
definitions open. Here the gradient is that of a head's query loss with respect to the initial psi,
through the inner loop and of the order that the method trains with. And only weights count, since
the paper's figure 3c ignores biases.
"""

import torch
from torch import Tensor

from cml_bench.data.episodes import Task
from cml_bench.engine.step import expand
from cml_bench.methods.base import Groups, Method


def head_gradients(method: Method, groups: Groups, task: Task) -> dict[str, dict[str, Tensor]]:
    """head -> parameter -> gradient of that head's query loss, the mean over tasks.

    The co-learner's loss is not multiplied by gamma.
    """
    wide = method.meet(expand(groups, len(task)), task)
    losses: dict[str, Tensor] = {}
    for state in method.adapt(wide, task.support):
        outputs = method.outputs(wide, state.params, task.query.x, method.heads)
        for head in method.heads:
            loss = state.weight * method.criterion(outputs[head], task.query.y).mean()
            losses[head] = losses[head] + loss if head in losses else loss
    base = groups["base"]
    gradients = {}
    for i, head in enumerate(method.heads):
        grads = torch.autograd.grad(
            losses[head],
            list(base.values()),
            retain_graph=i + 1 < len(method.heads),
            materialize_grads=True,
        )
        gradients[head] = dict(zip(base, grads, strict=True))
    return gradients


def diagnose(method: Method, groups: Groups, task: Task) -> dict[str, dict[str, float]]:
    """``norm_meta`` and ``norm_co``: norms of the heads' gradients by layer; ``cosine`` of the two.

    Without a co-learner there is ``norm_meta`` alone. A layer where a gradient is zero has no
    cosine: theta, for example, which the co-loss does not reach in first order.
    """
    grads = head_gradients(method, groups, task)
    weights = [
        name for name in groups["base"] if name.endswith(".weight") and not name.startswith("norm")
    ]
    norms = {head: torch.stack([g[name].norm() for name in weights]) for head, g in grads.items()}
    rows = [*norms.values()]
    if "co" in grads:
        products = [(grads["meta"][name] * grads["co"][name]).sum() for name in weights]
        rows.append(torch.stack(products))
    values = torch.stack(rows).double().cpu().tolist()  # the only transfer
    layers = [name.removesuffix(".weight") for name in weights]
    out = {
        f"norm_{head}": dict(zip(layers, row, strict=True))
        for head, row in zip(norms, values, strict=False)
    }
    if "co" in grads:
        scale = {layer: out["norm_meta"][layer] * out["norm_co"][layer] for layer in layers}
        dots = dict(zip(layers, values[-1], strict=True))
        out["cosine"] = {layer: dots[layer] / scale[layer] for layer in layers if scale[layer] > 0}
    return out
