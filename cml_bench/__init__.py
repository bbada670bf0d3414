"""cml_bench: run and compare gradient-based meta-learning methods, each with and without CML.

``cml_bench.load(run)`` opens a finished run as a learner that adapts and predicts.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cml_bench.engine.learner import Learner

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(
    run: str | os.PathLike[str],
    results: str | os.PathLike[str] = "results",
    data_dir: str | os.PathLike[str] = "data",
) -> "Learner":
    """Open a finished run: ``load(run).adapt(x_support, y_support).predict(x_query)``.

    ``run`` is a run's folder, or the first characters of the id of a run under ``results``. A run
    on the nodes of a graph needs the graph, prepared under ``data_dir``: ``load(run).adapt(nodes,
    labels, x_query=queries)``.

    In all three paths ``~`` and ``$NAME`` are expanded. A UserError says why a run cannot be
    opened.
    """
    from cml_bench.engine.learner import load as load_learner
    from cml_bench.system import paths

    return load_learner(
        paths.given(run, "run"),
        paths.given(results, "results"),
        paths.given(data_dir, "data_dir"),
    )
