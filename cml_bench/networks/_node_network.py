"""What a network for the nodes of a graph has besides that of any network."""

from torch import Tensor

from cml_bench.networks._sparse import Dropout, Graph
from cml_bench.networks.base import Network, Params


class NodeNetwork(Network):
    """A network whose inputs are the numbers of nodes in the graph of the data set bound to it."""

    takes = "nodes"

    @property
    def graph(self) -> Graph:
        """The graph of the data set; a UserError if none is bound."""
        raise NotImplementedError

    def bound(self, inputs: int, outputs: int) -> float:
        """A linear layer of this size starts uniform in +- this bound."""
        raise NotImplementedError

    def features(
        self, p: Params, x: Tensor, drop: Dropout | None = None, scale: Tensor | None = None
    ) -> Tensor:
        """Embeddings (T, n, hidden) of node numbers (T, n).

        ``drop``: which hidden values are dropped. ``scale`` (T, d): factors of the graph's
        features.
        """
        raise NotImplementedError

    def gradients(
        self,
        p: Params,
        x: Tensor,
        y: Tensor,
        drop: Dropout | None = None,
        scale: Tensor | None = None,
    ) -> Params:
        """Gradients (T, ...) of the head's mean cross-entropy at nodes and labels (T, n).

        They equal what autograd makes of :meth:`features` and :meth:`Network.head`.
        """
        raise NotImplementedError
