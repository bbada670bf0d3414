"""The gradients of an outer step as one compiled program, for small networks that make many steps.

The cost of a small network is that of starting its operations one by one. The whole computation (inner
loop, query losses, their gradient through the inner loop) is traced once for the shapes of a meta-batch and
compiled; the outer optimiser stays outside, so that a method's ``meta_step`` may call for gradients as often
as it needs. A C++ compiler must be there; without one the same gradients are computed operation by operation.

Products of small matrices are written as what is fastest for their shapes (:func:`_bmm`): a library's batched product
has a cost of its own, whatever its size, and copies what is expanded.
"""

import os
import shutil
from collections.abc import Callable, Hashable

import torch
import torch._inductor as inductor
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from cml_bench.engine.step import MetaStep, expand
from cml_bench.episodes import Examples, Task
from cml_bench.errors import UserError
from cml_bench.methods.base import Scores

Outputs = tuple[Tensor, ...]  # gradients of the stored parameters, then each head's losses and scores per task
WORTHWHILE = 20_000  # outer steps from which on half a minute of compiling is repaid
_programs: dict[tuple, Callable] = {}  # runs of one process share them


def available() -> bool:
    """Whether there is a C++ compiler."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for a (T, rows, inner) and b (T, inner, columns)."""
    tasks, rows, inner = a.shape
    columns = b.shape[2]
    if inner == 1:
        return a * b
    if columns == 1:
        return (a * b.transpose(1, 2)).sum(2, keepdim=True)
    if rows == 1:
        return (a.transpose(1, 2) * b).sum(1, keepdim=True)
    if b.stride(0) == 0 and tasks > 1:  # not adapted yet: the same of every task
        return (a.reshape(tasks * rows, inner) @ b[0]).unflatten(0, (tasks, rows))
    if columns < rows:
        return torch.bmm(b.transpose(1, 2), a.transpose(1, 2)).transpose(1, 2)
    return NotImplemented  # as it is


def _baddbmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return torch.bmm(a, b) + bias if beta == alpha == 1 else NotImplemented


# Loops that share nothing are not joined: with what else a loop is joined decides whether its sums are vectorised, so a
# method would be rounded otherwise with a co-learner beside it, and with gamma = 0 not be the baseline.
OPTIONS = {"config_patches": {"cpp.max_horizontal_fusion_size": 1}}

PRODUCTS = {torch.ops.aten.bmm.default: _bmm, torch.ops.aten.baddbmm.default: _baddbmm}


class CompiledStep(MetaStep):
    """:class:`MetaStep` for all tasks at once, compiled for the shapes of a meta-batch and the method's phase."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._by_phase: dict[Hashable, Callable] = {}

    def gradients(self, task: Task) -> Scores:
        """As :meth:`MetaStep.gradients`."""
        leaves = [p for params in self.groups.values() for p in params.values()]
        arguments, phase = [*(p.detach() for p in leaves), *task.support, *task.query], self.method.phase
        with torch.no_grad():
            if phase not in self._by_phase:
                self._by_phase[phase] = compiled(self.traced(arguments), arguments)
            found = iter(self._by_phase[phase](*arguments))
        for leaf in leaves:
            leaf.grad = next(found)
        return Scores(*({head: next(found) for head in self.method.heads} for _ in Scores._fields))

    def traced(self, arguments: list[Tensor]) -> GraphModule:
        """The computation in this phase, of the stored parameters and the four tensors of a meta-batch."""
        return make_fx(self._outputs, decomposition_table=PRODUCTS)(*arguments)

    def _outputs(self, *arguments: Tensor) -> Outputs:
        *params, support_x, support_y, query_x, query_y = arguments
        given = iter(params)
        groups = {
            group: {name: next(given).detach().requires_grad_() for name in names}
            for group, names in self.groups.items()
        }
        with torch.enable_grad():
            task = Task(Examples(support_x, support_y), Examples(query_x, query_y))
            loss, scores = self.method.outer_loss(expand(groups, len(task)), task)
            leaves = [p for named in groups.values() for p in named.values()]
            grads = torch.autograd.grad(loss.sum() / len(task), leaves, allow_unused=True, materialize_grads=True)
        return (*grads, *(values[head] for values in scores for head in self.method.heads))


def constant_free(graph: GraphModule) -> bool:
    """Whether it computes with its arguments alone, so that another training may use it."""
    return not dict(graph.named_buffers()) and not any("_tensor_constant" in name for name in vars(graph))


def compiled(graph: GraphModule, arguments: list[Tensor]) -> Callable[..., Outputs]:
    """A program for these shapes; one that this process has already where it is the same."""
    key = (graph.code, *((tuple(t.shape), t.dtype, t.device) for t in arguments))
    shareable = constant_free(graph)
    if shareable and key in _programs:
        return _programs[key]
    try:
        # Not torch.compile, which looks at the arguments of every call anew.
        program = inductor.standalone_compile(graph, arguments, dynamic_shapes="from_example_inputs", options=OPTIONS)
        program(*arguments)
    except Exception as error:
        raise UserError(
            f"the outer step cannot be compiled here ({error}): use --engine fast (Snakemake: --config engine=fast)."
        ) from error
    if shareable:
        _programs[key] = program
    return program
