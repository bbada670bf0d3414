"""``normalised``: accuracies by what normalises a query, a column for each shot and way."""

from cml_bench.registry import tables
from cml_bench.report.kinds.accuracy import Accuracy


@tables.register("normalised")
class Normalised(Accuracy):
    """Its columns are the ``evaluation.normalised_with`` of its experiments.

    The paper normalises all queries of a task together: the column ``all queries``.
    """

    by_normalisation = True
