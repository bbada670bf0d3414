"""``sbm``: a small generated graph for node classification. Needs no download.

The graph is drawn from a contextual stochastic block model (Deshpande et al. 2018), with words in
place of Gaussian features. Nodes of one class are linked to each other more often than to other
nodes. Each class prefers some words, and its nodes use these more often. This project made the
generator; its class splits are random ones.
"""

from pathlib import Path

import numpy as np

from cml_bench import seeding
from cml_bench.data.graphs import GraphSet
from cml_bench.registry import datasets

VERSION = 1
CLASSES, EACH, WORDS, OWN = 12, 40, 64, 12
LINK_INSIDE, LINK_OUTSIDE = 0.14, 0.004  # a node has about 5.5 links to its class, 1.8 to others
USE_OWN, USE_OTHER = 0.4, 0.12


@datasets.register("sbm")
class SBM(GraphSet):
    """12 classes of 40 nodes, split 6/3/3. Of the 64 words each class prefers 12."""

    nodes, edges, features, subgraph, smallest_class = CLASSES * EACH, 1765, WORDS, 49.4, EACH
    split_sizes = (6, 3, 3)

    @property
    def data_id(self) -> str:
        """Name, version of the generator and class split."""
        return f"sbm/v{VERSION}/{self.options.split}"

    def graph(self, paths: dict[str, Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw the graph. All numbers come from raw bits, so it is the same on every machine."""
        labels = np.repeat(np.arange(CLASSES), EACH)
        key = seeding.key("sbm", VERSION)
        preferred = seeding.smallest(seeding.words(key, 0, CLASSES, WORDS), OWN)
        own = np.zeros((CLASSES, WORDS), bool)
        np.put_along_axis(own, preferred, True, axis=1)
        draws = seeding.uniform(
            seeding.words(seeding.key("sbm words", VERSION), 0, self.nodes, WORDS)
        )
        features = draws < np.where(own[labels], USE_OWN, USE_OTHER)
        pairs = seeding.uniform(
            seeding.words(seeding.key("sbm links", VERSION), 0, self.nodes, self.nodes)
        )
        linked = np.triu(pairs < np.where(labels[:, None] == labels, LINK_INSIDE, LINK_OUTSIDE), 1)
        edges = np.stack(np.nonzero(linked | linked.T))
        return edges, features.astype(np.float32), labels
