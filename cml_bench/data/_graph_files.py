"""Reads the files of published graphs: Planetoid's eight, and the npz of gnn-benchmark and
graph2gauss.

The result equals that of torch_geometric 2.8, number by number. The readers of torch_geometric are
not used, for safety: the one for Planetoid's pickles runs whatever a file asks for, and none checks
row and column numbers, which scipy uses as addresses.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cml_bench.data import _pickles
from cml_bench.data._archives import AGAIN, escaped, reading
from cml_bench.errors import UserError

# scipy 1.8 renamed the module.
_CSR = [("scipy.sparse.csr", "csr_matrix"), ("scipy.sparse._csr", "csr_matrix")]
_NPZ = [
    f"{matrix}_{part}"
    for matrix in ("adj", "attr")
    for part in ("data", "indices", "indptr", "shape")
]


def planetoid(paths: Mapping[str, Path]) -> tuple[np.ndarray, Any, np.ndarray]:
    """The graph in Planetoid's files ``ind.NAME.x`` and so on: links, features and labels.

    :meth:`cml_bench.data.graphs.GraphSet.graph` says what these are. ``test.index`` gives the
    numbers of the test nodes. A number that it leaves out is a node without words and links. The
    files give it no class either: it counts as class 0.
    """
    import scipy.sparse as sp

    part = {name.split(".", 2)[2]: path for name, path in paths.items()}
    content = {name: _unpickled(path) for name, path in part.items() if name != "test.index"}
    words = {name: _words(content[name], part[name]) for name in ("x", "tx", "allx")}
    classes = {name: _classes(content[name], part[name]) for name in ("y", "ty", "ally")}
    first, test, links = words["allx"].shape[0], _numbers(part["test.index"]), content["graph"]
    pairs = _pairs(links, part["graph"])
    counts = [len(classes[name]) for name in ("y", "ty", "ally")]
    counts += [len(test), len(np.unique(test))]
    wanted = [words[name].shape[0] for name in ("x", "tx", "allx", "tx", "tx")]
    if counts != wanted or not counts[1] or (test.min(), test.max()) != (first, len(links) - 1):
        raise UserError(
            f"{part['test.index']}: it and the files beside it are not of one graph. {AGAIN}"
        )
    start, rest = words["allx"].tocoo(), words["tx"].tocoo()
    rows = np.concatenate((start.row, test[rest.row]))
    columns, values = (
        np.concatenate((getattr(start, of), getattr(rest, of))) for of in ("col", "data")
    )
    shape = (len(links), max(start.shape[1], rest.shape[1]))
    labels = np.zeros(len(links), np.int64)
    labels[:first], labels[test] = classes["ally"], classes["ty"]
    features = sp.csr_array((values.astype(np.float32), (rows, columns)), shape=shape)
    return pairs, features, labels


def _unpickled(path: Path) -> Any:
    with reading(path), open(path, "rb") as file:
        return _pickles.load(file, str(path), records=_CSR)


def _words(content: Any, path: Path) -> Any:
    with reading(path):
        return matrix(content.data, content.indices, content.indptr, content._shape)


def _classes(content: Any, path: Path) -> np.ndarray:
    with reading(path):
        return np.asarray(content, np.float32).argmax(axis=1)


def _numbers(path: Path) -> np.ndarray:
    with reading(path):
        return np.array([int(line) for line in path.read_text(encoding="utf-8").split()], np.int64)


def _pairs(content: Any, path: Path) -> np.ndarray:
    """The links (2, E) in a dict from each node to the list of its neighbours."""
    with reading(path):
        rows = [node for node, neighbours in content.items() for _ in neighbours]
        columns = [node for neighbours in content.values() for node in neighbours]
        pairs = np.array([rows, columns])
        if not rows or pairs.dtype.kind not in "iu":
            raise ValueError(f"{len(rows)} links of type {pairs.dtype}")
        return pairs.astype(np.int64)


def npz(path: Path) -> tuple[np.ndarray, Any, np.ndarray]:
    """The graph in an npz file of two sparse matrices and ``labels``: links, features and labels.

    :meth:`cml_bench.data.graphs.GraphSet.graph` says what these are. Links are taken in both
    directions. A feature is 1 where the file's number is positive.
    """
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is no whole npz file. {AGAIN}")
    with reading(path), open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
        if missing := sorted({*_NPZ, "labels"} - set(stored)):
            held = escaped(", ".join(stored)) or "nothing"
            raise UserError(f"{path} holds {held}; it has no {missing[0]}. {AGAIN}")
        part = {name: _plain(stored, name, path) for name in (*_NPZ, "labels")}
        links, features = (
            matrix(*(part[name] for name in names)).tocoo() for names in (_NPZ[:4], _NPZ[4:])
        )
        pairs = np.stack((links.row, links.col)).astype(np.int64)
        features.data = np.where(features.data > 0, 1, features.data).astype(np.float32)
        return np.concatenate((pairs, pairs[::-1]), axis=1), features, part["labels"]


def _plain(stored: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    try:
        return stored[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise UserError(
            f"{path} is refused: its array {name} holds Python objects, where only numbers belong."
            " Nothing of it was executed. Do not use this file; get it from the published source."
        ) from None


def matrix(data: Any, indices: Any, indptr: Any, shape: Any) -> Any:
    """A sparse matrix by rows, each entry once.

    A ValueError if its parts do not fit together: scipy would read beyond their memory.
    """
    import scipy.sparse as sp

    for what, given, kinds in (
        ("values", data, "biuf"),
        ("columns", indices, "iu"),
        ("rows", indptr, "iu"),
    ):
        if not isinstance(given, np.ndarray) or given.dtype.kind not in kinds:
            raise ValueError(
                f"{what} of a matrix that are {getattr(given, 'dtype', type(given).__name__)}"
            )
    stored = sp.csr_array((data, indices, indptr), shape=tuple(int(side) for side in shape))
    stored.check_format(full_check=True)
    stored.sum_duplicates()
    return stored
