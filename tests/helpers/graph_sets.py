"""Graph data sets, their files, and generated graphs with each kind of features."""

from functools import cache
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from cml_bench import registry
from cml_bench.data._source import sha256_of
from cml_bench.data.prepared import LocalCopy
from tests.helpers.archives import python3_pickle
from tests.helpers.cases import random
from tests.helpers.graphs import Piece, small


def make(name: str, **options):
    cls = registry.datasets.get(name)
    return cls(cls.Options.read(options, name))


def copies(data, folder: Path) -> dict[str, LocalCopy]:
    return {
        f.name: LocalCopy(path=str(folder / f.name), sha256=sha256_of(folder / f.name))
        for f in data.files
    }


@cache
def variant(kind: str) -> Piece:
    """A graph whose features are stored dense, as patterns of eight columns, or sparse.

    It has 20 columns: no multiple of eight.
    """
    if kind == "dense":
        return small()
    edges, _, labels = small().given
    share = 0.4 if kind == "coded" else 0.06
    return Piece(edges, (random(84, 20, name=kind).numpy() < share).astype(np.float64), labels)


KINDS = ("dense", "coded", "sparse")
PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")


def planetoids(folder: Path, **changes) -> dict[str, Path]:
    """The eight files of a graph of 9 nodes; node 7 is in no part.

    ``changes``: other content by part.
    """
    words = sp.csr_matrix(np.arange(24).reshape(6, 4) % 3 == 0, dtype=np.float32)
    more = sp.csr_matrix(np.arange(8).reshape(2, 4) % 2 == 1, dtype=np.float32)
    kinds = np.eye(3, dtype=np.int32)[[0, 1, 2, 0, 1, 2]]
    content = {
        "x": words[:3],
        "tx": more,
        "allx": words,
        "y": kinds[:3],
        "ty": kinds[1:3],
        "ally": kinds,
        "graph": {i: [(i + 1) % 9, (i + 8) % 9, i, (i + 1) % 9] for i in range(9)},
        "test.index": b"8\n6\n",
    }
    paths = {f"ind.small.{part}": folder / f"ind.small.{part}" for part in PARTS}
    for part, path in zip(PARTS, paths.values(), strict=True):
        value = changes.get(part.replace(".", "_"), content[part])
        path.write_bytes(value if isinstance(value, bytes) else python3_pickle(value))
    return paths


def arrays(**changes) -> dict[str, np.ndarray]:
    """The arrays in the npz of a graph of 5 nodes.

    Links are given in one direction; one is given twice, and one joins a node to itself.
    """
    links = sp.coo_matrix((np.ones(6), ([0, 1, 2, 3, 3, 0], [1, 2, 3, 4, 3, 1])), (5, 5)).tocsr()
    words = sp.csr_matrix(np.arange(15).reshape(5, 3) % 4, dtype=np.float32)
    parts = {
        f"{name}_{part}": np.asarray(getattr(matrix, part))
        for name, matrix in (("adj", links), ("attr", words))
        for part in ("data", "indices", "indptr", "shape")
    }
    return {**parts, "labels": np.array([0, 1, 2, 0, 1]), **changes}
