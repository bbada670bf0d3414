"""``fomaml``: first-order MAML (Finn, Abbeel, Levine 2017, section 5.2)."""

from typing import Literal

from pydantic import Field

from cml_bench.methods.maml import MAML, MAMLOptions
from cml_bench.registry import methods


class FOMAMLOptions(MAMLOptions):
    """As MAML's."""

    first_order: Literal[True] = Field(
        True, description="inner gradients are constants; this makes it FOMAML"
    )


@methods.register("fomaml")
class FOMAML(MAML):
    """MAML whose outer gradient treats the inner gradients as constants.

    The outer gradient at w_0 is the query loss's gradient at w_k. With a co-learner, the
    co-learner's loss then never reaches theta, as the paper's descent argument assumes; in second
    order it does.

    Choices. No table of the paper has FOMAML. Its recipe is that of MAML in the released CML code.
    """

    Options = FOMAMLOptions
    options: FOMAMLOptions
