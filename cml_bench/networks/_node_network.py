"""What a network for the nodes of a graph has besides that of any network."""

from jaxtyping import Float
from torch import Tensor

from cml_bench.networks._sparse import Dropout, Graph
from cml_bench.networks.base import Network
from cml_bench.shapes import Features, Inputs, Labels, Nodes, TaskParams

Scale = Float[Tensor, "tasks inputs"]  # factors of the features of a node


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
        self,
        p: TaskParams,
        x: Inputs,
        drop: Dropout | None = None,
        scale: Scale | None = None,
    ) -> Features:
        """Embeddings (T, n, hidden) of node numbers (T, n).

        For counting FLOPs, ``x`` is on the device ``meta`` and may be any inputs (T, n, ...).
        ``drop``: which hidden values are dropped. ``scale`` (T, d): factors of the graph's
        features.
        """
        raise NotImplementedError

    def gradients(
        self,
        p: TaskParams,
        x: Nodes,
        y: Labels,
        drop: Dropout | None = None,
        scale: Scale | None = None,
    ) -> TaskParams:
        """Gradients (T, ...) of the head's mean cross-entropy at nodes and labels (T, n).

        They equal what autograd makes of :meth:`features` and :meth:`Network.head`.
        """
        raise NotImplementedError
