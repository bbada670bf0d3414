"""The common part of data sets whose examples are the nodes of one graph.

These are ``citeseer``, ``amazon_computer``, ``corafull`` and ``sbm``. A network gets a node as its
number, and the graph itself through ``Network.bind``. Episodes are drawn as for images: see
:class:`cml_bench.data.stored.ClassSet`.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from cml_bench import seeding
from cml_bench.data._archives import AGAIN
from cml_bench.data.episodes import SPLITS
from cml_bench.data.stored import ClassSet
from cml_bench.errors import UserError
from cml_bench.shapes import Numbers
from cml_bench.spec import Options
from cml_bench.system.files import write_bytes

# The split that TLP's code draws with its seed 1234 for the first data set of a process.
TLP = "tlp-1234"
_STORED = ("indptr", "indices", "feature_indptr", "feature_indices", "feature_values", "labels")


class GraphArrays(NamedTuple):
    """A graph of N nodes, with sparse matrices stored by rows.

    The columns of row i are ``indices[indptr[i]:indptr[i + 1]]``. indptr (N+1,) and indices
    (directed edges,) give the neighbours of each node in ascending order, without self-loops and
    repetitions; an undirected edge is in both rows. feature_* give the features in the same way,
    with their values (float32). labels: (N,). sizes: (classes,), the number of nodes of each class.
    splits: the class numbers of each split. group: 1.
    """

    indptr: np.ndarray
    indices: np.ndarray
    feature_indptr: np.ndarray
    feature_indices: np.ndarray
    feature_values: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    splits: dict[str, np.ndarray]
    group: int = 1


class GraphOptions(Options):
    """The class split: which classes are for training, validation and test."""

    split: str = Field(
        "r0",
        pattern=r"^[a-z0-9-]+$",
        description="r0, r1, ...: which of the random class splits; or one with a name",
    )


class TLPOptions(GraphOptions):
    """The class split of a set for which TLP's code draws one, too."""

    split: str = Field(
        TLP,
        pattern=r"^[a-z0-9-]+$",
        description=(
            "tlp-1234: the one that TLP's code draws; r0, r1, ...: random ones of the same sizes"
        ),
    )


class GraphSet(ClassSet):
    """Few-shot classification of the nodes of one graph.

    A subclass gives :meth:`graph`, and what is known before the files are there: ``nodes``,
    ``edges`` (undirected), ``features`` (per node), ``subgraph`` (the mean number of nodes within
    two hops of a node, itself included; used only to count FLOPs), ``smallest_class``,
    ``split_sizes`` (classes of each split) and ``named_splits``.
    """

    Options = GraphOptions
    options: GraphOptions
    examples = gives = "nodes"
    nodes: int
    edges: int
    features: int
    subgraph: float
    split_sizes: tuple[int, int, int]
    named_splits: dict[str, dict[str, tuple[int, ...]]] = {}

    def __init__(self, options: GraphOptions):
        super().__init__(options)
        self.input_shape = (self.features,)
        self.class_counts = dict(zip(SPLITS, self.split_sizes, strict=True))
        self.class_split = self._split(options.split)

    @property
    def data_id(self) -> str:
        """Name and class split."""
        return f"{self.name}/{self.options.split}"

    def _split(self, name: str) -> dict[str, np.ndarray]:
        if name in self.named_splits:
            return {split: np.asarray(self.named_splits[name][split]) for split in SPLITS}
        number = name.removeprefix("r")
        if name == number or not number.isdecimal() or name != f"r{int(number)}":
            known = ", ".join([*self.named_splits, "r0", "r1", "..."])
            raise UserError(f"{self.name}: unknown class split {name!r}; known: {known}.")
        count = sum(self.split_sizes)
        raw = seeding.words(seeding.key("class split", self.name), int(number), 1, count)
        ends = np.cumsum(self.split_sizes)[:-1]
        return {
            s: np.sort(c)
            for s, c in zip(SPLITS, np.split(seeding.smallest(raw, count)[0], ends), strict=True)
        }

    def graph(self, paths: dict[str, Path]) -> tuple[np.ndarray, Any, np.ndarray]:
        """Read the graph from the verified files, by name: links, features and labels.

        Links (2, E) are pairs of node numbers in any order, each pair in both directions. Features
        (N, d) are an array or a scipy matrix. Labels (N,) are class numbers from 0 on.
        """
        raise NotImplementedError

    def make(
        self, home: Path, paths: dict[str, Path], exact: bool
    ) -> tuple[GraphArrays, dict[str, Any]]:
        """Write ``graph.npz``. A user's own copy, too, must be the graph of this class."""
        arrays = self.build(paths)
        stored = {name: getattr(arrays, name) for name in _STORED}
        write_bytes(home / "graph.npz", lambda file: np.savez(file, **stored))
        return arrays, {}

    def build(self, paths: dict[str, Path]) -> GraphArrays:
        """The graph with sorted rows. A UserError if it is not the one that the class describes."""
        import scipy.sparse as sp

        edges, given, labels = self.graph(paths)
        features = sp.csr_array(given)
        features.sum_duplicates()  # this also sorts the columns of each row
        where = str(next(iter(paths.values()), self.name))
        rows, columns = _links(edges, len(labels), where)
        read = (features.shape[0], len(rows), features.shape[1], len(np.unique(labels)))
        wanted = (self.nodes, 2 * self.edges, self.features, sum(self.split_sizes))
        if read != wanted:
            what = "nodes, links (both ways), features and classes"
            raise UserError(f"{where}: {read} {what} were read, {wanted} are expected. {AGAIN}")
        if len(labels) != self.nodes:
            raise UserError(
                f"{where}: {len(labels)} nodes have a class, {self.nodes} are expected. {AGAIN}"
            )
        if labels.dtype.kind not in "iu" or labels.min() != 0 or labels.max() != wanted[3] - 1:
            seen = f"{labels.min()} to {labels.max()} ({labels.dtype})"
            raise UserError(
                f"{where}: classes must be whole numbers from 0 to {wanted[3] - 1}, found: {seen}."
            )
        sizes = np.bincount(labels)
        if sizes.min() < self.smallest_class:
            raise UserError(
                f"{self.name}: a class has {sizes.min()} nodes, {self.smallest_class} at least are"
                " expected."
            )
        features.eliminate_zeros()
        return GraphArrays(
            _starts(rows, self.nodes),
            columns.astype(np.int32),
            features.indptr.astype(np.int64),
            features.indices.astype(np.int32),
            features.data.astype(np.float32),
            labels.astype(np.int64),
            sizes,
            self.class_split,
        )

    def load(self, home: Path, index: dict[str, Any], splits: dict[str, np.ndarray]) -> GraphArrays:
        """Read the whole graph into memory: graphs are small."""
        with np.load(home / "graph.npz") as stored:
            parts = {name: stored[name] for name in _STORED}
        return GraphArrays(
            **parts, sizes=np.asarray(index["sizes"]), splits=splits, group=index["group"]
        )

    @staticmethod
    def digest(arrays: GraphArrays) -> str:
        """SHA-256 (hex) over edges, features, labels and splits."""
        digest = hashlib.sha256()
        for name in _STORED:
            part = getattr(arrays, name)
            digest.update(
                np.ascontiguousarray(part, dtype="<f4" if part.dtype.kind == "f" else "<i8").data
            )
        for split in sorted(arrays.splits):
            digest.update(split.encode() + np.asarray(arrays.splits[split], dtype="<i8").tobytes())
        return digest.hexdigest()

    def attach(self, arrays: GraphArrays, device: torch.device, dtype: torch.dtype) -> None:
        """Use these arrays. ``members`` has the number of each node, class by class."""
        super().attach(arrays, device, dtype)
        self.members = torch.from_numpy(np.argsort(arrays.labels, kind="stable")).to(device)

    def gather(self, index: Numbers) -> Numbers:
        """The node numbers (n,) of the examples, which count class by class."""
        return self.members[index]


def _links(edges: np.ndarray, count: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of the links in ascending order, without self-loops and repetitions.

    A UserError for a node number out of range, and for a link in one direction only.
    """
    if edges.size and not 0 <= edges.min() <= edges.max() < count:
        raise UserError(
            f"{where}: links join nodes {edges.min()} to {edges.max()}; there are 0 to {count - 1}."
        )
    rows, columns = edges[:, edges[0] != edges[1]].astype(np.int64)
    links = np.unique(rows * count + columns)
    if not np.array_equal(links, np.unique(columns * count + rows)):
        raise UserError(f"{where}: links must be given in both directions; some are given in one.")
    return np.divmod(links, count)


def _starts(rows: np.ndarray, count: int) -> np.ndarray:
    """The start of each row among sorted row numbers, and the end of the last: (count + 1,)."""
    return np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=count)))).astype(np.int64)
