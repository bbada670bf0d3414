"""``corafull``: 19,793 papers in 70 fields, linked by citations (Bojchevski, Günnemann 2018; MIT
licence).

As torch_geometric's ``CitationFull`` reads it: 0/1 bag of words, not normalised.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cml_bench.data._graph_files import npz
from cml_bench.data.base import RemoteFile
from cml_bench.data.graphs import TLP, GraphSet, TLPOptions
from cml_bench.registry import datasets

_VALIDATION = (2, 9, 11, 14, 15, 16, 21, 26, 30, 32, 40, 53, 54, 56, 64)
_TEST = (4, 6, 8, 18, 20, 22, 25, 29, 33, 36, 46, 50, 57, 63, 66)
_TRAIN = tuple(sorted(set(range(70)) - {*_VALIDATION, *_TEST}))


@datasets.register("corafull")
class CoraFull(GraphSet):
    """Class split 40/15/15, as in TLP's code and the CML paper's table 6.

    The split ``tlp-1234`` follows from TLP's code and its seed, and was not executed on the real
    file. No digest of the file is published, so it is not fetched unasked: put it where the message
    says, and its digest is kept from then on, or name your copy under ``sources``. Not verified on
    the file either: ``smallest_class``, the least that five support and ten query nodes need (a
    file with a smaller class is refused), and ``subgraph``, a guess that counts FLOPs only.
    """

    Options = TLPOptions
    nodes, edges, features, subgraph, smallest_class = 19_793, 63_421, 8_710, 128.0, 15
    split_sizes = (40, 15, 15)
    named_splits = {TLP: {"train": _TRAIN, "validation": _VALIDATION, "test": _TEST}}
    files = (
        RemoteFile(
            "cora.npz",
            (),
            0,
            page="https://github.com/abojchevski/graph2gauss/raw/master/data/cora.npz",
        ),
    )

    def graph(self, paths: dict[str, Path]) -> tuple[np.ndarray, Any, np.ndarray]:
        """See :func:`cml_bench.data._graph_files.npz`."""
        return npz(paths["cora.npz"])
