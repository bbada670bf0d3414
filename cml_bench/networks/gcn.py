"""``gcn``: two graph convolutions and a linear head (Kipf and Welling 2017).

It is the network of TLP's code for few-shot classification of nodes.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cml_bench.errors import UserError
from cml_bench.networks._node_network import NodeNetwork, Scale
from cml_bench.networks._sparse import Dropout, Graph
from cml_bench.networks._sparse import Field as NodeField
from cml_bench.networks.base import CoLearner, Param, Params, linear
from cml_bench.networks.mlp import VectorHead
from cml_bench.registry import networks
from cml_bench.shapes import Inputs, Labels, Nodes, Outputs, TaskParams, Vectors
from cml_bench.spec import Options

Width = Annotated[int, Field(ge=1, le=65_536)]


class GCNOptions(Options):
    """Width, readout and initialisation."""

    hidden: Width = Field(16, description="width of both layers (TLP, CML appendix A.2)")
    readout: Literal["node", "subgraph"] = Field(
        "node",
        description=(
            "node: the node's own row of the network on the whole graph (AMM-GNN); subgraph: the"
            " network on the nodes within two hops alone, averaged over all of them (G-Meta)"
        ),
    )
    init: Literal["fan_out", "torch"] = Field(
        "fan_out",
        description=(
            "fan_out: U(+-1/sqrt(outputs)) for the weights and biases of every layer, as TLP's"
            " code; torch: U(+-1/sqrt(inputs))"
        ),
    )


@networks.register("gcn")
class GCN(NodeNetwork):
    """z = P relu(P X W1 + b1) W2 + b2 with P = D^-1 (A + I), and a linear head on z.

    In training, a dropout lies between the two layers. For the readout ``subgraph``, P is the
    block of the whole graph's P that belongs to the nodes within two hops, and z is the mean over
    all rows of the block. The block is not normalised again, so the rows of its rim sum to less
    than 1. With 3,703 features there are 59,536 parameters, and 34 in a head of 2 outputs. The
    co-learner of depth 1 has 306.

    Choices. The CML paper gives the co-learner "one hidden layer of 16". That is a linear layer
    here: after averaging over a subgraph there is no graph left for a convolution. The path
    ``plain`` computes the equation as it stands, node by node or on the whole graph. The path
    ``fast`` equals it up to rounding. It computes only the rows that the nodes depend on, makes
    sparse products, and takes the mean over a subgraph's rows before the second layer.
    """

    Options = GCNOptions
    options: GCNOptions
    colearner_depth = 1
    small = True
    compiles = False
    many_models = True

    def __init__(
        self, options: GCNOptions, input_shape: tuple[int, ...], outputs: int, path: str = "fast"
    ):
        super().__init__(options, input_shape, outputs, path)
        width, hidden = input_shape[0], options.hidden
        self.feature_shape = (hidden,)
        self.params = self._convolution("gcn1", width, hidden) | self._convolution(
            "gcn2", hidden, hidden
        )
        head = self.layer("head", hidden, outputs)
        self.params |= head
        self.head_names = frozenset(head)
        self.act: Callable[[Tensor], Tensor] = torch.relu
        self._data: Any = None
        self._graph: Graph | None = None
        self._kept: dict[bytes, _DenseParts] = {}  # what the path plain keeps

    def bound(self, inputs: int, outputs: int) -> float:
        """As the option ``init`` says."""
        return (outputs if self.options.init == "fan_out" else inputs) ** -0.5

    def layer(self, name: str, inputs: int, outputs: int) -> dict[str, Param]:
        """Weight (outputs, inputs) and bias of a linear layer."""
        bound = self.bound(inputs, outputs)
        return {
            f"{name}.weight": Param((outputs, inputs), bound),
            f"{name}.bias": Param((outputs,), bound),
        }

    def _convolution(self, name: str, inputs: int, outputs: int) -> dict[str, Param]:
        """Weight (inputs, outputs), which stands to the right of the features, and bias."""
        bound = self.bound(inputs, outputs)
        return {
            f"{name}.weight": Param((inputs, outputs), bound),
            f"{name}.bias": Param((outputs,), bound),
        }

    def bind(self, data: Any) -> None:
        """Take the graph of this data set, which may be opened later."""
        super().bind(data)
        self._data, self._graph, self._kept = data, None, {}

    @property
    def graph(self) -> Graph:
        """The graph of the data set; a UserError if none is bound."""
        if self._graph is None:
            if not hasattr(self._data, "arrays"):
                raise UserError(
                    "gcn has no graph: bind an open data set of nodes to it (Network.bind)."
                )
            self._graph = Graph(
                self._data.arrays, self.input_shape[0], self._data.dtype, self._data.device
            )
        return self._graph

    def features(
        self,
        p: TaskParams,
        x: Inputs,
        drop: Dropout | None = None,
        scale: Scale | None = None,
    ) -> Float[Tensor, "tasks examples hidden"]:
        """Embeddings (T, n, hidden) of node numbers (T, n).

        For counting FLOPs, ``x`` is on the device ``meta`` and may be any inputs (T, n, ...).
        ``scale`` (T, d): factors s of the features. Here they multiply the rows of W1, because
        (X diag(s)) W1 = X (diag(s) W1).
        """
        first = p["gcn1.weight"] if scale is None else scale.unsqueeze(-1) * p["gcn1.weight"]
        if x.is_meta:
            return self._counted(p, first, x)
        nodes = x.cpu().numpy()
        if self.path == "plain":
            names = ("gcn1.bias", "gcn2.weight", "gcn2.bias")
            parts = (
                (n, first[t], *(p[name][t] for name in names), drop and (drop, t))
                for t, n in enumerate(nodes)
            )
            return torch.stack([self._plain(*part) for part in parts])
        alike = _alike(nodes)
        results = [
            self._fast(_part(p, at), nodes[t], first[at], drop and (drop, t)) for t, at in alike
        ]
        return _in_order(results, alike)

    def _fast(
        self, p: Params, nodes: np.ndarray, first: Tensor, drop: tuple[Dropout, int] | None
    ) -> Tensor:
        """Embeddings (R, n, hidden) of nodes (n,) by R sets of parameters."""
        field = self.graph.field(nodes, self.options.readout)
        pooled = _stacked(
            field.pool @ self._hidden(field, first, p["gcn1.bias"], drop)[0], len(first)
        )
        return torch.baddbmm(p["gcn2.bias"].unsqueeze(1), pooled, p["gcn2.weight"])

    def _hidden(
        self, field: NodeField, first: Tensor, shift: Tensor, drop: tuple[Dropout, int] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden values (rows, R * hidden) of R first layers, and the mask that dropped some.

        The layers stand side by side: a sparse product for two or three of them takes hardly longer
        than for one.
        """
        z = field.inputs @ _beside(first)
        z = (z if field.gather is None else field.gather @ z).add_(shift.flatten())
        mask = None
        if drop is not None:
            # Masked before the ReLU, so that both can work in place. A mask is at least 0, so the
            # result is the same.
            mask = self._mask(drop, z[:, : shift.shape[1]], field.numbers)
            mask = mask if len(shift) == 1 else mask.repeat(1, len(shift))
            z.mul_(mask)
        return z.relu_(), mask

    def gradients(
        self,
        p: TaskParams,
        x: Nodes,
        y: Labels,
        drop: Dropout | None = None,
        scale: Scale | None = None,
    ) -> TaskParams:
        """Gradients (T, ...) of the head's mean cross-entropy at nodes and labels (T, n).

        For the path ``fast``. They are written out here, because autograd's bookkeeping takes
        longer than the products of a small graph.
        """
        with torch.no_grad():
            nodes, parts = x.cpu().numpy(), []
            for t, at in (alike := _alike(nodes)):
                factor = None if scale is None else scale[at].unsqueeze(-1)
                parts.append(
                    self._gradient(_part(p, at), nodes[t], y[at], drop and (drop, t), factor)
                )
            return {name: _in_order([grads[name] for grads in parts], alike) for name in parts[0]}

    def _gradient(
        self,
        p: Params,
        nodes: np.ndarray,
        y: Tensor,
        drop: tuple[Dropout, int] | None,
        factor: Tensor | None,
    ) -> Params:
        """Gradients (R, ...) at nodes (n,) of R sets of parameters, labels and factors."""
        field, head, sets = self.graph.field(nodes, self.options.readout), p["head.weight"], len(y)
        first = p["gcn1.weight"] if factor is None else factor * p["gcn1.weight"]
        z, mask = self._hidden(field, first, p["gcn1.bias"], drop)
        pooled = _stacked(field.pool @ z, sets)
        embedded = torch.baddbmm(p["gcn2.bias"].unsqueeze(1), pooled, p["gcn2.weight"])
        out = torch.baddbmm(p["head.bias"].unsqueeze(1), embedded, head.mT).softmax(2)
        out.scatter_add_(2, y.unsqueeze(2), out.new_full((), -1.0).expand(*y.shape, 1))
        out /= y.shape[1]  # the derivative by the outputs; ``at_x`` below is the derivative by x
        at_embedded = out @ head
        at_z = field.pool.back(_beside(at_embedded @ p["gcn2.weight"].mT)).mul_(z > 0)
        at_z = at_z if mask is None else at_z.mul_(mask)
        at_first = _stacked(
            field.inputs.back(at_z if field.gather is None else field.gather.back(at_z)), sets
        )
        return {
            "gcn1.weight": at_first if factor is None else at_first.mul_(factor),
            "gcn1.bias": at_z.sum(0).unflatten(0, (sets, -1)),
            "gcn2.weight": pooled.mT @ at_embedded,
            "gcn2.bias": at_embedded.sum(1),
            "head.weight": out.mT @ embedded,
            "head.bias": out.sum(1),
        }

    def _mask(
        self, drop: tuple[Dropout, int], z: Tensor, numbers: np.ndarray | None = None
    ) -> Tensor:
        """Factors of the hidden values ``z`` (rows, hidden).

        ``numbers`` (rows,): the nodes that the rows belong to. A factor is then a function of its
        node. None: it is a function of its row.
        """
        dropout, task = drop
        return dropout.mask(task, len(z) if numbers is None else self.graph.count, z, numbers)

    def _plain(
        self,
        nodes: np.ndarray,
        first: Tensor,
        shift: Tensor,
        second: Tensor,
        last: Tensor,
        drop: tuple[Dropout, int] | None,
    ) -> Tensor:
        """Embeddings (n, hidden) of nodes (n,) by W1, b1, W2 and b2, as the equation stands."""
        if self.options.readout == "node":
            average, inputs = self._dense_parts(b"")[0]
            hidden = torch.relu(average @ (inputs @ first) + shift)
            if drop is not None:
                hidden = hidden * self._mask(drop, hidden)
            return (average @ (hidden @ second) + last)[torch.from_numpy(nodes).to(hidden.device)]
        parts = self._dense_parts(nodes.tobytes())
        sizes = [len(block) for block, _ in parts]
        masks: Sequence[Tensor | None] = [None] * len(nodes)
        if drop is not None:
            masks = self._mask(drop, first.new_empty(sum(sizes), len(shift))).split(sizes)
        means = []
        for (block, inputs), mask in zip(parts, masks, strict=True):
            hidden = torch.relu(block @ (inputs @ first) + shift)
            hidden = hidden if mask is None else hidden * mask
            means.append((block @ hidden @ second + last).mean(0))
        return torch.stack(means)

    def _dense_parts(self, key: bytes) -> "_DenseParts":
        """The block and the features of each node's subgraph; of no node: of the whole graph.

        ``key``: the nodes (int64) as bytes. The parts of the last two keys are kept: they are the
        support set and the queries of a task.
        """
        if key not in self._kept:
            while len(self._kept) >= 2:
                del self._kept[next(iter(self._kept))]
            graph = self.graph
            parts: _DenseParts = []
            for node in np.frombuffer(key, np.int64):
                part = graph.subgraph(int(node))
                block = torch.from_numpy(part.block.toarray()).to(graph.device)
                parts.append((block, graph.dense_features(part.nodes)))
            if not key:
                parts.append(
                    (graph.sparse(graph.average), graph.dense_features(np.arange(graph.count)))
                )
            self._kept[key] = parts
        return self._kept[key]

    def _counted(self, p: Params, first: Tensor, x: Tensor) -> Tensor:
        """The dense products for nodes with a neighbourhood of mean size.

        For counting FLOPs without reading the data.
        """
        data, (tasks, count) = self._data, x.shape[:2]
        rows = round(
            data.subgraph if self.options.readout == "subgraph" else 1 + 2 * data.edges / data.nodes
        )
        inputs = torch.empty(tasks, count * rows, self.input_shape[0], device="meta")
        hidden = torch.relu(torch.baddbmm(p["gcn1.bias"].unsqueeze(1), inputs, first))
        return torch.baddbmm(
            p["gcn2.bias"].unsqueeze(1),
            hidden.unflatten(1, (count, rows)).mean(2),
            p["gcn2.weight"],
        )

    def head(self, p: TaskParams, z: Vectors) -> Outputs:
        """(T, n, hidden) -> (T, n, outputs)."""
        return linear(p, "head", z)

    def colearner(self, depth: int) -> CoLearner:
        """``depth`` linear layers of the embedding's width with ReLU, then a linear one."""
        return VectorHead(self, depth)

    def tasks_at_once(self, device: torch.device) -> int:
        """One, because tasks share no rows."""
        return 1


_DenseParts = list[tuple[Any, Tensor]]  # blocks (a Tensor or a Sparse) and features
_Alike = list[tuple[int, slice | list[int]]]


def _alike(nodes: np.ndarray) -> _Alike:
    """Tasks with the same nodes (T, n): for each list of nodes its first task, and all its tasks.

    Tasks that stand beside each other are a slice, so that their parameters are a view.
    """
    tasks: dict[bytes, list[int]] = {}
    for t, own in enumerate(nodes):
        tasks.setdefault(own.tobytes(), []).append(t)
    ends = ((places, slice(places[0], places[-1] + 1)) for places in tasks.values())
    return [(places[0], at if at.stop - at.start == len(places) else places) for places, at in ends]


def _part(p: Params, at: slice | list[int]) -> Params:
    """The parameters of some tasks."""
    return {name: value[at] for name, value in p.items()}


def _in_order(parts: list[Tensor], alike: _Alike) -> Tensor:
    """Results (R, ...) of each list of nodes -> (T, ...), in the order of the tasks."""
    if len(parts) == 1:
        return parts[0]
    places = np.concatenate([np.r_[at] for _, at in alike])
    return torch.cat(parts)[torch.from_numpy(np.argsort(places)).to(parts[0].device)]


def _beside(values: Tensor) -> Tensor:
    """(R, n, width) -> (n, R * width)."""
    return values.transpose(0, 1).flatten(1)


def _stacked(values: Tensor, sets: int) -> Tensor:
    """(n, R * width) -> (R, n, width)."""
    return values.unflatten(1, (sets, -1)).transpose(0, 1)
