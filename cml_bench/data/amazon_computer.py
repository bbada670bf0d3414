"""``amazon_computer``: a graph of 13,752 computer products on Amazon, in 10 categories.

Two products are linked if they are often bought together. The features of a product are the words
of its reviews: 767 numbers, 0 or 1, not normalised. Shchur et al. (2018) made the graph from Amazon
data of McAuley et al. (2015); it is fetched from their repository gnn-benchmark (MIT licence). It
is read as torch_geometric's ``Amazon`` reads it.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cml_bench.data._graph_files import npz
from cml_bench.data.base import RemoteFile
from cml_bench.data.graphs import TLP, GraphSet, TLPOptions
from cml_bench.registry import datasets

_FILE = "amazon_electronics_computers.npz"


@datasets.register("amazon_computer")
class AmazonComputer(GraphSet):
    """The classes are split 4/3/3, as in TLP's code and in table 6 of the CML paper.

    The source publishes no digest. The digest here is that of the file that torch_geometric
    downloads.
    """

    Options = TLPOptions
    nodes, edges, features, subgraph, smallest_class = 13_752, 245_861, 767, 1848.7, 291
    split_sizes = (4, 3, 3)
    named_splits = {TLP: {"train": (1, 3, 4, 6), "validation": (0, 5, 8), "test": (2, 7, 9)}}
    files = (
        RemoteFile(
            _FILE,
            (f"https://github.com/shchur/gnn-benchmark/raw/master/data/npz/{_FILE}",),
            3_407_513,
            "be58a1ec75405bfb2f9917b85cc34eb29c606df5a988da355468dda97d19b753",
        ),
    )

    def graph(self, paths: dict[str, Path]) -> tuple[np.ndarray, Any, np.ndarray]:
        """The graph in the npz file."""
        return npz(paths[_FILE])
