"""Which test results a run reports, and from which stored models they are read.

=============  ===========================  =========================================================
reading        model                        what it is
=============  ===========================  =========================================================
meta           psi, theta: best meta head   the method; with a co-learner, CML
co             phi of that same step        CML+ under joint selection
co_paired      all of the best co head      CML+ with phi on the body it was saved with
co_unpaired    psi, theta as ``meta``, phi  CML+ as the released code tests it: two steps mixed
               of the best co head
co_eq9         as ``co_paired``             the paper's equation 9: psi adapts by the co-learner's own loss
meta_last      last step
co_last        last step
=============  ===========================  =========================================================

All but ``co_eq9`` adapt (psi, theta) by the meta-learner's support loss, as in training.
"""

from typing import NamedTuple

import numpy as np
import torch

from cml_bench.data.base import DataSet
from cml_bench.engine.evaluate import Result, evaluate
from cml_bench.engine.step import leaves
from cml_bench.episodes import Episodes
from cml_bench.methods.base import Groups, Method
from cml_bench.records import evaluation_key
from cml_bench.spec import Evaluation, RunSpec

Models = dict[str, Groups]  # best_meta, best_co, last


class Pass(NamedTuple):
    """One pass over the test episodes and the readings that come out of it."""

    groups: Groups
    inner_loss: str
    readings: dict[str, str]  # reading -> head


def passes(models: Models, steps: dict[str, int], has_co: bool) -> list[Pass]:
    """The passes needed; models of the same step are evaluated once."""
    best, last = models["best_meta"], models.get("last")
    same_last = steps["best_meta"] == steps["last"]
    first = {"meta": "meta"} | ({"meta_last": "meta"} if same_last else {})
    found = []
    if has_co:
        same_co = steps["best_co"] == steps["best_meta"]
        first |= {"co": "co"} | ({"co_last": "co"} if same_last else {})
        if same_co:
            first |= {"co_paired": "co", "co_unpaired": "co"}
        else:
            found.append(Pass(models["best_co"], "meta", {"co_paired": "co"}))
            mixed = {"base": best["base"], "co": models["best_co"]["co"]}
            found.append(Pass(mixed, "meta", {"co_unpaired": "co"}))
        found.append(Pass(models["best_co"], "co", {"co_eq9": "co"}))
    if not same_last and last is not None:
        found.append(Pass(last, "meta", {"meta_last": "meta"} | ({"co_last": "co"} if has_co else {})))
    return [Pass(best, "meta", first), *found]


def test_results(
    method: Method, data: DataSet, spec: RunSpec, models: Models, steps: dict[str, int], wanted: Evaluation
) -> dict[str, np.ndarray]:
    """Every reading's result per episode, by :func:`evaluation_key`; see :func:`stored`."""
    episodes = Episodes(data, "test", spec.way, spec.shot, wanted.query)
    inner = wanted.inner_steps or (method.inner_steps,)
    arrays = {}
    for item in passes(models, steps, "best_co" in models):
        groups = leaves(item.groups, data.device, data.dtype)
        results = evaluate(
            method, groups, episodes, wanted.tasks, heads=sorted(set(item.readings.values())), steps=inner,
            inner_loss=item.inner_loss, tasks_at_once=method.network.tasks_at_once(data.device),
        )  # fmt: skip
        for reading, head in item.readings.items():
            for k in inner:
                arrays[evaluation_key(reading, k)] = stored(method.kind, results[head, k], spec.way * wanted.query)
    return arrays


def stored(kind: str, result: Result, answers: int) -> np.ndarray:
    """Correct answers per episode (uint16), or squared error (float32)."""
    if kind == "classification":
        return torch.round(result.score.double() * answers).to(torch.int32).numpy().astype(np.uint16)
    return result.score.float().numpy()
