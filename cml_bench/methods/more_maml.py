"""``more_maml``: MAML with additional convolutional layers (CML, Table 4), the control for CML's
extra parameters.
"""

from cml_bench.errors import UserError
from cml_bench.methods.maml import MAML
from cml_bench.registry import methods


@methods.register("more_maml")
class MoreMAML(MAML):
    """MAML on a network with three more blocks, kept at test.

    The paper says "additional convolution layers" and 232K parameters, nothing more. 121,093 + 3 *
    37,056 = 232,261 is the only whole number of 64 -> 64 blocks that fits, with the linear layer's
    input as before; so the blocks do not pool. Their place is not stated; here they follow block
    4's ReLU, before its pooling, and adapt in the inner loop like all others. With a co-learner (no
    row of the paper) phi reads the last block.
    """

    network_defaults = {"extra_blocks": 3}

    def __init__(self, options, network, kind):
        super().__init__(options, network, kind)
        if not getattr(network.options, "extra_blocks", 0):
            raise UserError(
                f"{self.name} needs a network with extra_blocks (its default is 3); for none, use"
                " maml."
            )
