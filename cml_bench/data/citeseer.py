"""``citeseer``: a graph of 3,327 scientific papers in 6 subjects, linked by citations.

The features of a paper are its words: 3,703 numbers, 0 or 1, not normalised. 48 papers have no
link. Sen et al. (2008) made the graph; it is fetched in the files of Planetoid (Yang et al. 2016;
MIT licence). It is read as torch_geometric's ``Planetoid`` reads it.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cml_bench.data._graph_files import planetoid
from cml_bench.data.base import RemoteFile
from cml_bench.data.graphs import TLP, GraphSet, TLPOptions
from cml_bench.registry import datasets

_URL = "https://github.com/kimiyoung/planetoid/raw/master/data/"


def _file(part: str, size: int, sha256: str) -> RemoteFile:
    return RemoteFile(f"ind.citeseer.{part}", (f"{_URL}ind.citeseer.{part}",), size, sha256)


@datasets.register("citeseer")
class CiteSeer(GraphSet):
    """The classes are split 2/2/2, as in TLP's code.

    Table 6 of the CML paper prints 20/10/10, which 6 classes cannot give. The source publishes no
    digests. The digests here are those of the files that torch_geometric downloads.
    """

    Options = TLPOptions
    nodes, edges, features, subgraph, smallest_class = 3327, 4552, 3703, 15.1, 264
    split_sizes = (2, 2, 2)
    named_splits = {TLP: {"train": (3, 5), "validation": (0, 4), "test": (1, 2)}}
    files = (
        _file("x", 31_087, "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6"),
        _file("tx", 260_321, "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21"),
        _file("allx", 595_021, "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668"),
        _file("y", 3_014, "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924"),
        _file("ty", 24_135, "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce"),
        _file("ally", 55_623, "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95"),
        _file("graph", 61_987, "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7"),
        _file(
            "test.index", 5_000, "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4"
        ),
    )

    def graph(self, paths: dict[str, Path]) -> tuple[np.ndarray, Any, np.ndarray]:
        """The graph in Planetoid's files."""
        return planetoid(paths)
