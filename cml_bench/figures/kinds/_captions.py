"""Sentences that the captions of several kinds share."""

EXAMPLES = {"query": "the query examples", "support": "the support examples"}
BAND = "Line: mean over {}; band: 95 % t interval of that mean."
BARS = (
    "Models of the best validation by the meta head. Bar: mean over {}; whisker: 95 % t interval of"
    " that mean."
)


def smoothed(points: int) -> str:
    """Over how many points a line is smoothed."""
    return "not smoothed" if points == 1 else f"each point the mean of the last {points}"
