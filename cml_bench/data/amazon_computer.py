"""``amazon_computer``: 13,752 products in 10 categories, linked by being bought together (Shchur et
al. 2018; MIT).

As torch_geometric's ``Amazon`` reads it: 0/1 bag of words of the reviews, not normalised.
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
    """Class split 4/3/3, as in TLP's code and the CML paper's table 6.

    The source publishes no digest; this is that of the file as torch_geometric downloads it.
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
        """See :func:`cml_bench.data._graph_files.npz`."""
        return npz(paths[_FILE])
