"""What graph networks compute with: sparse products, and parts of a graph.

A part holds what the embeddings of a task's nodes depend on.
"""

import warnings
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cml_bench import seeding
from cml_bench.networks._autograd import Context

# From this share of non-zero entries on, a sparse product is slower than a dense one.
_DENSE = 0.1
_KEPT = 20_000_000  # entries of subgraphs that are kept: 0.2 GB


class Dropout(NamedTuple):
    """Which hidden values are dropped: a function of ``keys`` alone, one key for each task.

    16 raw bits decide about a value, so the share is rounded to a multiple of 1/65536. The other
    values are scaled up to keep the mean.
    """

    share: float
    keys: tuple[np.ndarray, ...]

    def mask(self, task: int, rows: int, like: Tensor, chosen: np.ndarray | None = None) -> Tensor:
        """Factors (n, width) of a task's hidden values ``like``: 0 or 1 / (1 - share).

        Factors are drawn for all ``rows``. ``chosen`` (n,): the rows that are wanted; None: all.
        """
        limit, width = round(self.share * 65_536), like.shape[1]
        words = seeding.words(self.keys[task], 0, 1, -(-rows * width // 4))
        raw = words.view("<u2").ravel()[: rows * width].reshape(rows, width)
        kept = torch.from_numpy((raw if chosen is None else raw[chosen]) >= limit)
        return kept.to(like.device, like.dtype).mul_(65_536 / (65_536 - limit))


class _OfSparse(Context, Protocol):
    """The context of a sparse product."""

    sparse: "Sparse"


class _Product(torch.autograd.Function):
    """A sparse matrix times a dense one; its derivative is the product with the transpose."""

    @staticmethod
    def forward(ctx: _OfSparse, dense: Tensor, sparse: "Sparse") -> Tensor:
        ctx.sparse = sparse
        return sparse.times(dense)

    @staticmethod
    def backward(ctx: _OfSparse, grad: Tensor) -> tuple[Tensor, None]:
        return _Product.apply(grad.contiguous(), ctx.sparse.transposed()), None


class Sparse:
    """A constant sparse matrix (rows, columns) from a scipy one, stored by rows.

    Its transpose is made when it is first asked for.
    """

    def __init__(self, matrix: Any, dtype: torch.dtype, device: torch.device):
        self.matrix, self.dtype, self.device = matrix, dtype, device
        self._transposed: Sparse | None = None
        starts, columns, values = (
            torch.from_numpy(part).to(device)
            for part in (matrix.indptr, matrix.indices, matrix.data)
        )
        # On a CPU and in float32, torch sums the rows of a table (an embedding bag) faster than it
        # makes a sparse product.
        self._bags = device.type == "cpu" and dtype == torch.float32
        if self._bags:
            self._parts = (columns, starts, values.to(dtype))
            return
        with warnings.catch_warnings():
            # Once in a process torch warns that sparse rows are "in beta state".
            warnings.simplefilter("ignore", UserWarning)
            self._rows = torch.sparse_csr_tensor(
                starts, columns, values.to(dtype), size=matrix.shape, check_invariants=False
            )

    def times(self, dense: Tensor) -> Tensor:
        """The product (rows, width) with a dense matrix (columns, width); autograd misses it."""
        if not self._bags:
            return torch.mm(self._rows, dense)
        columns, starts, values = self._parts
        return F.embedding_bag(
            columns, dense, starts, mode="sum", include_last_offset=True, per_sample_weights=values
        )

    def transposed(self) -> "Sparse":
        """The transpose (columns, rows)."""
        if self._transposed is None:
            self._transposed = Sparse(self.matrix.T.tocsr(), self.dtype, self.device)
            self._transposed._transposed = self
        return self._transposed

    def __matmul__(self, dense: Tensor) -> Tensor:
        return _Product.apply(dense, self) if torch.is_grad_enabled() else self.times(dense)

    def back(self, dense: Tensor) -> Tensor:
        """The transpose times a dense matrix."""
        return self.transposed() @ dense


class Dense(NamedTuple):
    """A dense matrix, with the two products of a sparse one."""

    values: Tensor

    def __matmul__(self, dense: Tensor) -> Tensor:
        return self.values @ dense

    def back(self, dense: Tensor) -> Tensor:
        """The transpose times a dense matrix."""
        return self.values.t() @ dense


_BITS = 8  # columns of a block in Coded


class Coded(NamedTuple):
    """A matrix of zeros and ones (n, d) that is multiplied eight columns at a time.

    Eight columns have 256 patterns of ones. The product with a dense matrix w first sums the rows
    of w that each pattern selects, for all patterns and blocks of eight columns. A row of the
    product is then a sum of d / 8 such sums (Arlazarov et al. 1970). ``codes`` (n, 256 * blocks)
    says which; ``patterns`` (256, 8); ``width``: d.
    """

    codes: Sparse
    patterns: Tensor
    width: int

    def __matmul__(self, dense: Tensor) -> Tensor:
        blocks = self.codes.matrix.shape[1] >> _BITS
        padded = F.pad(dense, (0, 0, 0, blocks * _BITS - self.width))
        sums = torch.matmul(self.patterns, padded.reshape(blocks, _BITS, -1))
        return self.codes @ sums.flatten(0, 1)

    def back(self, dense: Tensor) -> Tensor:
        """The transpose times a dense matrix (n, k): (d, k)."""
        sums = self.codes.back(dense).unflatten(0, (-1, 1 << _BITS))
        return torch.matmul(self.patterns.t(), sums).flatten(0, 1)[: self.width]


class Field(NamedTuple):
    """What the embeddings of some nodes depend on: pool @ hidden(gather @ inputs).

    ``inputs`` (m, d): features, or features averaged over neighbours.
    ``gather`` (rows, m); None: the rows are those of ``inputs``.
    ``pool`` (nodes, rows).
    ``numbers`` (rows,): the nodes that the rows belong to; None: a node may have several rows.
    """

    inputs: Dense | Sparse | Coded
    gather: Sparse | None
    pool: Sparse
    numbers: np.ndarray | None


class Subgraph(NamedTuple):
    """The nodes within two hops of a node, ascending, and their block of the propagation matrix."""

    nodes: np.ndarray
    block: Any


class Graph:
    """Propagation matrix D^-1 (A + I) and features X of a graph, on a device.

    D^-1 makes each row sum to 1, as in TLP's code; so the matrix is not symmetric. An edge of a
    directed graph counts in its own row only.
    """

    def __init__(self, arrays: Any, width: int, dtype: torch.dtype, device: torch.device):
        import scipy.sparse as sp

        self.dtype, self.device, self.count = dtype, device, len(arrays.labels)
        kind = np.dtype(str(dtype).removeprefix("torch."))
        links = sp.csr_array(
            (np.ones(len(arrays.indices)), arrays.indices, arrays.indptr), shape=(self.count,) * 2
        )
        links = links + sp.eye_array(self.count, format="csr")
        average = sp.diags_array(1 / links.sum(axis=1), format="csr") @ links
        average.sort_indices()
        parts = (
            arrays.feature_values.astype(np.float64),
            arrays.feature_indices,
            arrays.feature_indptr,
        )
        features = sp.csr_array(parts, shape=(self.count, width))
        self.average, self.features = average.astype(kind), features.astype(kind)
        self.averaged = (average @ features).astype(kind)
        self._dense: dict[str, Tensor] = {}
        self._packed: dict[str, np.ndarray] = {}
        self._subgraphs: dict[int, Subgraph] = {}
        self._entries = 0
        self._fields: dict[tuple, Field] = {}

    def rows(self, name: str, nodes: np.ndarray) -> "Dense | Sparse | Coded":
        """The rows (n, d) of ``features`` or ``averaged`` that belong to these nodes.

        They are stored sparse, unless few entries are zero.
        """
        matrix = getattr(self, name)
        if matrix.nnz < _DENSE * matrix.shape[0] * matrix.shape[1]:
            return self.sparse(matrix[nodes])
        if name not in self._dense and name not in self._packed:
            if (matrix.data == 1).all():
                self._packed[name] = _codes(matrix)
            else:
                self._dense[name] = torch.from_numpy(matrix.toarray()).to(self.device)
        if name in self._packed:
            return self._coded(self._packed[name][nodes])
        return Dense(self._dense[name][torch.from_numpy(nodes)])

    def _coded(self, codes: np.ndarray) -> Coded:
        """The matrix whose rows have these patterns: ``codes`` (n, blocks), numbers in 0..255."""
        import scipy.sparse as sp

        rows, blocks = codes.shape
        columns = (codes + (np.arange(blocks, dtype=np.int32) << _BITS)).ravel()
        starts = np.arange(0, rows * blocks + 1, blocks, dtype=np.int32)
        values = np.ones(rows * blocks, self.features.dtype)
        patterns = (np.arange(1 << _BITS)[:, None] >> np.arange(_BITS)) & 1
        matrix = sp.csr_array((values, columns, starts), shape=(rows, blocks << _BITS))
        return Coded(
            self.sparse(matrix),
            torch.from_numpy(patterns).to(self.device, self.dtype),
            self.features.shape[1],
        )

    def dense_features(self, nodes: np.ndarray) -> Tensor:
        """The features (n, d) of some nodes as a dense matrix."""
        return torch.from_numpy(self.features[nodes].toarray()).to(self.device)

    def sparse(self, matrix: Any) -> Sparse:
        """A scipy matrix on the graph's device."""
        return Sparse(matrix, self.dtype, self.device)

    def near(self, nodes: np.ndarray) -> np.ndarray:
        """Some nodes and their neighbours, ascending."""
        inside = np.zeros(self.count, bool)
        inside[self.average[nodes].indices] = True
        return np.flatnonzero(inside)

    def subgraph(self, node: int) -> Subgraph:
        """The subgraph of a node, which is kept for the next time while there is room."""
        if node not in self._subgraphs:
            nodes = self.near(self.near(np.array([node])))
            made = Subgraph(nodes, self.average[nodes][:, nodes])
            if self._entries + made.block.nnz > _KEPT:
                return made
            self._entries += made.block.nnz
            self._subgraphs[node] = made
        return self._subgraphs[node]

    def field(self, nodes: np.ndarray, readout: str) -> Field:
        """The field of these nodes (n,) for a readout ``node`` or ``subgraph``.

        The last four are kept, because every pass of a task asks for the same nodes.
        """
        key = (readout, nodes.tobytes())
        if key not in self._fields:
            while len(self._fields) >= 4:
                del self._fields[next(iter(self._fields))]
            self._fields[key] = (
                self._near_field(nodes) if readout == "node" else self._pooled_field(nodes)
            )
        return self._fields[key]

    def _near_field(self, nodes: np.ndarray) -> Field:
        """The field for two layers on the whole graph.

        The rows are the hidden values of the nodes' neighbours, each made from averaged features.
        """
        numbers = self.near(nodes)
        pool = self.average[nodes][:, numbers]
        return Field(self.rows("averaged", numbers), None, self.sparse(pool), numbers)

    def _pooled_field(self, nodes: np.ndarray) -> Field:
        """The field for two layers, read by the mean over each node's subgraph.

        The subgraphs' blocks are stacked in ``gather``. The mean over the rows of block @ hidden is
        (column means of the block) @ hidden. So ``pool`` has one row for each node.
        """
        import scipy.sparse as sp

        subgraphs = [self.subgraph(int(node)) for node in nodes]
        sizes = [len(part.nodes) for part in subgraphs]
        starts = np.concatenate(([0], np.cumsum(sizes)))
        inside = np.zeros(self.count, bool)
        inside[np.concatenate([part.nodes for part in subgraphs])] = True
        union = np.flatnonzero(inside)
        place = np.zeros(self.count, np.int32)
        place[union] = np.arange(len(union))
        columns = np.concatenate([place[part.nodes][part.block.indices] for part in subgraphs])
        values = np.concatenate([part.block.data for part in subgraphs])
        ends = np.concatenate([np.diff(part.block.indptr) for part in subgraphs])
        indptr = np.concatenate(([0], np.cumsum(ends))).astype(np.int32)
        gather = sp.csr_array((values, columns, indptr), shape=(starts[-1], len(union)))
        means = np.concatenate(
            [np.asarray(part.block.sum(axis=0)).ravel() / len(part.nodes) for part in subgraphs]
        )
        pool = sp.csr_array(
            (means, np.arange(starts[-1], dtype=np.int32), starts.astype(np.int32)),
            shape=(len(nodes), starts[-1]),
        )
        return Field(self.rows("features", union), self.sparse(gather), self.sparse(pool), None)


def _codes(matrix: Any) -> np.ndarray:
    """Zeros and ones (n, d) as bytes (n, blocks) of eight columns; the first is the lowest bit."""
    return np.packbits(matrix.toarray().astype(bool), axis=1, bitorder="little")
