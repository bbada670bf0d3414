"""cml_bench: run and compare gradient-based meta-learning methods, each with and without CML.

``cml_bench.load(run)`` opens a finished run as a learner that adapts and predicts.
"""

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(run, results="results", data_dir="data"):
    """Open a finished run: ``load(run).adapt(x_support, y_support).predict(x_query)``.

    ``run`` is a run folder, or the id (or its first characters) of a run under ``results``. A run
    on the nodes of a graph needs the graph, prepared under ``data_dir``: ``load(run).adapt(nodes,
    labels, x_query=queries)``.

    In all three paths ``~`` and ``$NAME`` are expanded. A UserError says why a run cannot be
    opened.
    """
    from cml_bench.engine.learner import load as load_learner
    from cml_bench.system import paths

    run, results, data_dir = (
        paths.given(path, name)
        for path, name in ((run, "run"), (results, "results"), (data_dir, "data_dir"))
    )
    return load_learner(run, results, data_dir)
