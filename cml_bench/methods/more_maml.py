"""``more_maml``: MAML with additional convolutional layers (CML, Table 4).

It is the control for the parameters that CML adds.
"""

from cml_bench import spec
from cml_bench.errors import UserError
from cml_bench.methods.maml import MAML
from cml_bench.networks.base import Network
from cml_bench.registry import methods


@methods.register("more_maml")
class MoreMAML(MAML):
    """MAML on a network with three more blocks, kept at test.

    The paper says "additional convolution layers" and 232K parameters, nothing more. Three blocks
    of 64 -> 64 channels fit, and no other number does: 121,093 + 3 * 37,056 = 232,261. The linear
    layer's input is then as before, so the blocks do not pool. Their place is not stated. Here they
    follow block 4's ReLU, before its pooling, and adapt in the inner loop like all others. With a
    co-learner, which no row of the paper has, phi reads the last block.
    """

    network_defaults = {"extra_blocks": 3}

    def __init__(self, options: spec.Options, network: Network, kind: str):
        super().__init__(options, network, kind)
        if not getattr(network.options, "extra_blocks", 0):
            raise UserError(
                f"{self.name} needs a network with extra_blocks (its default is 3); for none, use"
                " maml."
            )
