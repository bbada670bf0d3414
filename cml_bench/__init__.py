"""cml_bench: run and compare gradient-based meta-learning methods, each with and without CML.

``cml_bench.load(run)`` opens a finished run as a learner that adapts and predicts.
``load_records``, ``curves`` and ``episodes`` give finished runs as pandas data frames, and
``compare`` is the paired test of the tables on rows of such a frame. ``use_plugins`` makes methods,
data sets and networks in files of your own known.
"""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pandas import DataFrame

    from cml_bench.engine.learner import Learner
    from cml_bench.evidence.stats import Paired

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "compare",
    "curves",
    "episodes",
    "load",
    "load_records",
    "use_plugins",
]


def use_plugins(*paths: str | os.PathLike[str]) -> None:
    """Make the methods, data sets and networks in these files and folders known to this process.

    As ``plugins`` in a configuration does for a study: a run of such a method needs it before
    ``load``. ``~`` and ``$NAME`` are expanded. A UserError for a path that is no plug-in.
    """
    from cml_bench import plugins
    from cml_bench.system.paths import given

    plugins.use([given(path, "plugins") for path in paths], "use_plugins")


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


def load_records(*places: str | os.PathLike[str]) -> "DataFrame":
    """Finished runs as a data frame: one row a run, reading and number of inner steps.

    ``places`` are results folders (``results``, ``results/reference/omniglot``) or folders of runs.
    ``mean`` is in ``unit``, percent or squared error. Options are columns with the names that a
    configuration has, such as ``options.cml.gamma``. A diverged run has one row, without a mean. A
    UserError if a place holds no run, or a damaged one.
    """
    from cml_bench.evidence import frames

    return frames.runs(_given(places))


def curves(*places: str | os.PathLike[str]) -> "DataFrame":
    """What was measured while runs trained: one row a run, outer step, part and head.

    ``part`` is ``train`` or ``validation``, ``head`` is ``meta`` or ``co``. ``score`` is in
    ``unit``. Places and errors as in :func:`load_records`.
    """
    from cml_bench.evidence import frames

    return frames.curves(_given(places))


def episodes(*places: str | os.PathLike[str]) -> "DataFrame":
    """The ``score`` of every test episode: one row a run, reading, inner steps and episode.

    ``score`` is in ``unit``. Runs of the same data, way, shot and number of queries are tested on
    the same episodes, whatever their seed. Places and errors as in :func:`load_records`.
    """
    from cml_bench.evidence import frames

    return frames.episodes(_given(places))


def compare(a: "DataFrame", b: "DataFrame", varies: Iterable[str] = ()) -> "Paired":
    """The paired test of the tables: mean of ``a`` minus ``b``, 95 % half-width, p and n.

    ``a`` and ``b`` are rows of :func:`load_records`, one a seed (or a class split, where there are
    several). As in tables, runs that collapsed or diverged do not count. p is that of one test:
    correct it if you make more. A UserError if they are not of the same test tasks, or of another
    recipe, options that both methods have among it: ``varies`` names the columns that are meant to
    differ.
    """
    from cml_bench.evidence import frames

    return frames.compare(a, b, varies)


def _given(places: Iterable[str | os.PathLike[str]]) -> "list[Path]":
    from cml_bench.errors import UserError
    from cml_bench.system import paths

    if not places:
        raise UserError("name at least one place, such as 'results' or 'results/reference/demo'.")
    return [paths.given(place, "place") for place in places]
