"""The gradients of an outer step as one compiled program, for small networks that make many steps.

A small network spends its time on starting operations one by one. So the whole computation (inner
loop, query losses, their gradient through the inner loop) is traced once for the shapes of a
meta-batch and compiled. The outer optimiser is not compiled, so that a method's ``meta_step`` may
ask for gradients as often as it needs. This needs a C++ compiler; without one the same gradients
are computed operation by operation.

A library's batched product has a fixed cost, whatever its size, and copies expanded matrices. So
products of small matrices are written as what is fastest for their shapes (:func:`_bmm`). Then the
graph is simplified (:func:`simplified`), and the compiler gets the result.
"""

import os
import shutil
import sysconfig
from collections.abc import Callable, Hashable
from pathlib import Path

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.step import MetaStep, expand
from cml_bench.errors import UserError
from cml_bench.methods.base import Groups, Method, Scores

# Gradients of the stored parameters, then the losses and scores (T,) of each head.
Outputs = tuple[Tensor, ...]
WORTHWHILE = 20_000  # outer steps that repay half a minute of compiling
_programs: dict[
    tuple[Hashable, ...], Callable[..., Outputs]
] = {}  # shared by the runs of a process


def available() -> bool:
    """Whether there is a C++ compiler, and Python's headers for it."""
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(os.environ.get("CXX", "g++")) is not None and headers.exists()


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
    if b.stride(0) == 0 and tasks > 1:  # not adapted yet: every task has the same b
        return (a.reshape(tasks * rows, inner) @ b[0]).unflatten(0, (tasks, rows))
    return NotImplemented  # the library's product stays


def _baddbmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return torch.bmm(a, b) + bias if beta == alpha == 1 else NotImplemented


# Loops that share no data are not fused. The compiler vectorises a sum only if it is not fused with
# other loops. With fusion a co-learner would change how its method is rounded, and a run with
# gamma = 0 would differ from its baseline.
OPTIONS = {"config_patches": {"cpp.max_horizontal_fusion_size": 1}}

_ops = torch.ops.aten
_TRANSPOSE = _ops.transpose.int
PRODUCTS: dict[OpOverload, Callable[..., Tensor]] = {
    _ops.bmm.default: _bmm,
    _ops.baddbmm.default: _baddbmm,
}


class CompiledStep(MetaStep):
    """:class:`MetaStep` for all tasks at once, compiled for the shapes of a meta-batch and the
    method's phase.
    """

    def __init__(
        self,
        method: Method,
        groups: Groups,
        optimizer: torch.optim.Optimizer,
        tasks_at_once: int,
        adjust: Callable[[Groups], None] | None = None,
    ):
        super().__init__(method, groups, optimizer, tasks_at_once, adjust)
        self._by_phase: dict[Hashable, Callable[..., Outputs]] = {}

    def gradients(self, task: Task) -> Scores:
        """As :meth:`MetaStep.gradients`."""
        leaves = [p for params in self.groups.values() for p in params.values()]
        # A program expects one order in memory. A meta-batch may be a part of a drawn one, or two
        # joined ones, and then has another order.
        batch = (values.contiguous() for values in (*task.support, *task.query))
        arguments, phase = [*(p.detach() for p in leaves), *batch], self.method.phase
        with torch.no_grad():
            if phase not in self._by_phase:
                self._by_phase[phase] = compiled(self.traced(arguments), arguments)
            outputs = iter(self._by_phase[phase](*arguments))
        for leaf in leaves:
            # Adam pairs a parameter and its gradient by their order in memory.
            leaf.grad = next(outputs).contiguous()
        heads = self.method.heads
        return Scores(*({head: next(outputs) for head in heads} for _ in Scores._fields))

    def traced(self, arguments: list[Tensor]) -> GraphModule:
        """The graph of this phase's computation.

        Its arguments are the stored parameters and the four tensors of a meta-batch.
        """
        return simplified(make_fx(self._outputs, decomposition_table=PRODUCTS)(*arguments))

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
            grads = torch.autograd.grad(
                loss.sum() / len(task), leaves, allow_unused=True, materialize_grads=True
            )
        return (*grads, *(values[head] for values in scores for head in self.method.heads))


def simplified(graph: GraphModule) -> GraphModule:
    """The same computation with fewer and better loops, which the compiler does not find by itself.

    A sum over tasks of products of matrices becomes one product. A product that is only used
    transposed is computed transposed: then a loop reads everything that it adds in one order, and
    the compiler can vectorise it. The graph is changed in place.
    """
    nodes = graph.graph
    for node in nodes.find_nodes(op="call_function", target=_ops.view.default):
        node.target = _ops.reshape.default  # after the changes below a view may be impossible
    for node in nodes.find_nodes(op="call_function", target=_TRANSPOSE):
        if _transposed(node) and _transposed(node.args[0]):
            node.replace_all_uses_with(node.args[0].args[0])
    nodes.eliminate_dead_code()
    for node in nodes.find_nodes(op="call_function", target=_ops.sum.dim_IntList):
        if node.args[1:] == ([0], True) and not node.kwargs and _has_product(node.args[0]):
            total = _summed(nodes, node.args[0], node)
            total.meta = node.meta
            node.replace_all_uses_with(total)
    nodes.eliminate_dead_code()
    for node in nodes.find_nodes(op="call_function", target=_ops.bmm.default):
        if all(_transposed(user) for user in node.users):
            with nodes.inserting_before(node):
                a, b = (nodes.call_function(_TRANSPOSE, (x, 1, 2)) for x in node.args)
                turned = nodes.call_function(_ops.bmm.default, (b, a))
            for user in list(node.users):
                user.replace_all_uses_with(turned)
    nodes.eliminate_dead_code()
    graph.recompile()
    return graph


def _transposed(x: Node) -> bool:
    return x.target is _TRANSPOSE and x.args[1:] == (1, 2)


def _through(x: Node) -> list[Node]:
    """The matrices (T, ...) of which ``x`` is the sum or the transpose.

    An empty list if ``x`` is neither, or is used more than once.
    """
    if len(x.users) > 1 or x.kwargs:
        return []
    matrices = [y for y in x.args if isinstance(y, Node)]
    if _transposed(x):
        return matrices
    alike = x.target is _ops.add.Tensor and {_shape(y) for y in x.args} == {_shape(x)} != {()}
    return matrices if alike else []


def _shape(x: object) -> tuple[int, ...]:
    value = x.meta.get("val") if isinstance(x, Node) else x
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _has_product(x: Node) -> bool:
    return _single_product(x) or any(_has_product(y) for y in _through(x))


def _single_product(x: Node) -> bool:
    return x.target is _ops.bmm.default and len(x.users) == 1


def _summed(nodes: Graph, x: Node, reader: Node) -> Node:
    """The sum of ``x`` over tasks, for its one reader: (T, rows, columns) -> (1, rows, columns).

    New operations stand where the old ones stood, since a later one may overwrite what they read.
    """
    if _single_product(x):
        a, b = (_shape(y) for y in x.args)
        with nodes.inserting_before(x):
            left = nodes.call_function(_ops.permute.default, (x.args[0], [0, 2, 1]))
            left = nodes.call_function(_ops.reshape.default, (left, [a[0] * a[2], a[1]]))
            right = nodes.call_function(_ops.reshape.default, (x.args[1], [b[0] * b[1], b[2]]))
            left = nodes.call_function(_ops.t.default, (left,))
            product = nodes.call_function(_ops.mm.default, (left, right))
            return nodes.call_function(_ops.unsqueeze.default, (product, 0))
    parts = [_summed(nodes, y, x) for y in _through(x)]
    if not parts:
        with nodes.inserting_before(reader):
            return nodes.call_function(_ops.sum.dim_IntList, (x, [0], True))
    with nodes.inserting_before(x):
        assert callable(x.target)  # an addition or a transpose: see _through
        return nodes.call_function(x.target, (*parts, *x.args[len(parts) :]))


def constant_free(graph: GraphModule) -> bool:
    """Whether the graph holds no tensors of its own, so that another training may use it."""
    return not dict(graph.named_buffers()) and not any(
        "_tensor_constant" in name for name in vars(graph)
    )


def compiled(graph: GraphModule, arguments: list[Tensor]) -> Callable[..., Outputs]:
    """A program for these shapes. If the process has compiled the same graph before, that one.

    A UserError if the graph cannot be compiled here.
    """
    key = (graph.code, *((tuple(t.shape), t.dtype, t.device) for t in arguments))
    shareable = constant_free(graph)
    if shareable and key in _programs:
        return _programs[key]
    # Imported here, since the compiler takes seconds to load, and planning and the other paths do
    # not need it.
    import torch._inductor as inductor

    try:
        # Not torch.compile, which inspects the arguments at every call.
        program = inductor.standalone_compile(
            graph, [*arguments], dynamic_shapes="from_example_inputs", options=OPTIONS
        )
        program(*arguments)
    except Exception as error:
        raise UserError(
            f"the outer step cannot be compiled here ({error}): use --engine fast (Snakemake:"
            " --config engine=fast)."
        ) from error
    if shareable:
        _programs[key] = program
    return program
