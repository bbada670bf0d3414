"""How the outcome of a paired difference looks: decided here, for every chart, picture and page.

The outcome is the adjusted one (``Difference.outcome``): Holm's p decides, never whether an
interval reaches 0. Imports no torch.
"""

from typing import NamedTuple

from cml_bench.evidence import stats
from cml_bench.evidence.verdict import GAIN, LOSS, UNDECIDED
from cml_bench.figures.style import COLOURS

NOT_TESTED = "not tested"
_GREY = "#767676"  # contrast 4.5 to 1 on a white page, 4.2 on a dark one


class Look(NamedTuple):
    """An outcome's name, its colour, its shape (as Vega names it) and the sign that stands for this
    shape in a text. Outcomes differ in shape too, never by colour alone.
    """

    name: str
    colour: str
    shape: str
    sign: str


LOOKS = {
    look.name: look
    for look in (
        Look(GAIN, COLOURS[2], "triangle-up", stats.UP),
        Look(LOSS, COLOURS[1], "triangle-down", stats.DOWN),
        Look(UNDECIDED, _GREY, "diamond", "◆"),
        Look(NOT_TESTED, _GREY, "circle", "●"),
    )
}


def look(outcome: str) -> Look:
    """The look of an outcome. Every reason why a difference is not tested has the same one."""
    return LOOKS.get(outcome, LOOKS[NOT_TESTED])
