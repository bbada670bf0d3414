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

from cml_bench.spec import NormalisedWith, RunSpec

META, META_LAST, META_SINGLE = "meta", "meta_last", "meta_single"
CO, CO_LAST, CO_SINGLE = "co", "co_last", "co_single"
CO_PAIRED, CO_UNPAIRED = "co_paired", "co_unpaired"


def evaluation_key(reading: str, steps: int, normalised_with: NormalisedWith = "task") -> str:
    """``co_paired@1``: the key of a reading's results after ``steps`` inner steps."""
    return f"{reading}@{steps}" + (f",{normalised_with}" if normalised_with != "task" else "")


def reading_and_steps(key: str) -> tuple[str, int]:
    """``("co_paired", 1)``: the first two parts of an :func:`evaluation_key`."""
    reading, _, rest = key.partition("@")
    return reading, int(rest.partition(",")[0])


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
