"""The test results of a run: their names, and the stored models that each is read from.

=================  =============================  ================================================
reading            models                         what it is
=================  =============================  ================================================
meta               psi, theta: best meta head     the method; with a co-learner, CML
co                 phi of that same step          CML+ under joint selection
co_paired          all of the best co head        CML+ with phi on the body it was saved with
co_unpaired        psi, theta as ``meta``,        CML+ as the released code tests it: its models
                   phi of the best co head        are of two steps
co_eq9             as ``co_paired``               the paper's equation 9: psi adapts by the
                                                  co-learner's own loss
meta_last          last step
co_last            last step
=================  =============================  ================================================

Under ``selection: separate``, ``co`` is ``co_unpaired``. All but ``co_eq9`` adapt (psi, theta) by
the meta-learner's support loss, as in training. A method may add readings
(``Method.more_readings``): ``co_eq9`` is the co-learner's; ``both``, ``co_fixed`` and
``co_unadapted`` are those of ``cl``.

With ``ensemble_top_k`` > 1, ``meta`` and ``co`` average the outputs of the k best steps by the meta
head. ``co_paired`` averages those of the k best by the co head, and so does ``co`` under
``selection: separate``. ``meta_single`` and ``co_single`` are the best single model's.

A series of results is one reading after some number of inner steps. Its key is ``co_paired@1``, and
``co@1,one_class`` where queries are not normalised with all queries of their task. Such a series
there is of ``meta`` and ``co`` only.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from cml_bench.spec import NormalisedWith, RunSpec

if TYPE_CHECKING:  # for annotations alone: the room stands above this module
    from cml_bench.methods.base import Method

META, META_LAST, META_SINGLE = "meta", "meta_last", "meta_single"
CO, CO_LAST, CO_SINGLE = "co", "co_last", "co_single"
CO_PAIRED, CO_UNPAIRED = "co_paired", "co_unpaired"
CO_UNADAPTED = "co_unadapted"  # of ``cl``; its name says that nothing adapts


def evaluation_key(reading: str, steps: int, normalised_with: NormalisedWith = "task") -> str:
    """``co_paired@1``: the key of a reading's results after ``steps`` inner steps."""
    return f"{reading}@{steps}" + (f",{normalised_with}" if normalised_with != "task" else "")


def series(key: str) -> tuple[str, int, NormalisedWith]:
    """``("co", 1, "one_class")``: the parts of an :func:`evaluation_key`."""
    reading, _, rest = key.partition("@")
    steps, _, normalised_with = rest.partition(",")
    return reading, int(steps), cast(NormalisedWith, normalised_with or "task")


def reading_and_steps(key: str) -> tuple[str, int]:
    """``("co_paired", 1)``: the first two parts of an :func:`evaluation_key`."""
    return series(key)[:2]


def readings(spec: RunSpec) -> list[str]:
    """Names of all readings of a run; ``engine/readings.py`` makes them."""
    from cml_bench import registry

    method = registry.method(spec.method)
    if not method.learns:
        return [META]
    single = spec.protocol.ensemble_top_k > 1
    names = [META, META_LAST, *([META_SINGLE] if single else [])]
    if "co" in method.heads:
        names += [CO, CO_LAST, CO_PAIRED, CO_UNPAIRED, *([CO_SINGLE] if single else [])]
        names += [reading.name for reading in method.more_readings]
    return names


def by_chance(learners: "Mapping[str, Method | None]") -> dict[str, dict[str, str]]:
    """Key -> readings of that learner that cannot depend on the support set, with the reason.

    The classes of a task have no order, so a classifier is then at chance by construction.
    """
    reason = (
        "at chance by construction, since the inner loop moves nothing that the co-learner reads"
    )
    found: dict[str, dict[str, str]] = {}
    for key, learner in learners.items():
        if learner and "co" in learner.heads:
            usual = (CO, CO_LAST, CO_PAIRED, CO_UNPAIRED, CO_SINGLE)
            asked = [(name, "co", "meta") for name in usual]
            asked += [(more.name, more.head, more.inner_loss) for more in learner.more_readings]
            names = [name for name, head, loss in asked if learner.cannot_adapt(head, loss)]
            found |= {key: dict.fromkeys(names, reason)} if names else {}
    return found
