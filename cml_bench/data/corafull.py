"""``corafull``: a graph of 19,793 scientific papers in 70 fields, linked by citations.

The features of a paper are its words: 8,710 numbers, 0 or 1, not normalised. Bojchevski and
Günnemann (2018) made the graph; it is in their repository graph2gauss (MIT licence). It is read as
torch_geometric's ``CitationFull`` reads it.
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
    """The classes are split 40/15/15, as in TLP's code and in table 6 of the CML paper.

    No digest of the file is published, so it is not fetched automatically. Put it where the message
    says, or name your copy under ``sources``; from then on its digest must stay the same. The file
    was not at hand, so three values are not verified on it. The split ``tlp-1234`` was derived from
    TLP's code and its seed. ``smallest_class`` is the number that five support and ten query nodes
    need; a file with a smaller class is refused. ``subgraph`` is a guess, used only to count FLOPs.
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
        """The graph in the npz file."""
        return npz(paths["cora.npz"])
