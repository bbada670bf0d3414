"""From stored models to test results: which passes over the test episodes make which readings.

``cml_bench/readings.py`` says what each reading is.
"""

from typing import NamedTuple

import numpy as np
import torch

from cml_bench.data.base import DataSet
from cml_bench.data.episodes import Episodes
from cml_bench.engine.evaluate import Asked, Result, evaluate_all
from cml_bench.engine.step import leaves
from cml_bench.methods.base import Groups, Method
from cml_bench.readings import (
    CO,
    CO_LAST,
    CO_PAIRED,
    CO_SINGLE,
    CO_UNPAIRED,
    META,
    META_LAST,
    META_SINGLE,
    evaluation_key,
)
from cml_bench.shapes import PerTask
from cml_bench.spec import Evaluation, NormalisedWith, RunSpec

# best_meta, best_co and last; for ensembles also top_meta.0, top_meta.1, ..., top_co.0, ...
Models = dict[str, Groups]


class Pass(NamedTuple):
    """A model or an ensemble that adapts, and the readings that come out of it."""

    groups: list[Groups]
    inner_loss: str
    readings: dict[str, str]  # reading -> head
    normalised_with: NormalisedWith = "task"


def passes(method: Method, models: Models, steps: dict[str, int], has_co: bool) -> list[Pass]:
    """The passes that a run's readings need. Models of the same step are evaluated once.

    ``steps``: the outer step of each model. ``has_co``: whether the co-learner's models are there.
    """
    best, last = models["best_meta"], models.get("last")
    ensembles = {
        head: [models[key] for key in sorted(models) if key.startswith(f"top_{head}.")]
        for head in ("meta", "co")
    }
    same_last = last is not None and steps["best_meta"] == steps["last"]
    averaged = bool(ensembles["meta"])
    first, others = {META_SINGLE if averaged else META: "meta"}, []
    if same_last:
        first[META_LAST] = "meta"
    if has_co:
        first[CO_SINGLE if averaged else CO] = "co"
        if same_last:
            first[CO_LAST] = "co"
        if steps["best_co"] != steps["best_meta"]:
            paired = Pass([models["best_co"]], "meta", {} if averaged else {CO_PAIRED: "co"})
            mixed = {"base": best["base"], "co": models["best_co"]["co"]}
            others += [paired, Pass([mixed], "meta", {CO_UNPAIRED: "co"})]
        else:
            first |= {CO_UNPAIRED: "co"} | ({} if averaged else {CO_PAIRED: "co"})
    if averaged:
        others.append(
            Pass(ensembles["meta"], "meta", {META: "meta"} | ({CO: "co"} if has_co else {}))
        )
        if has_co:
            others.append(Pass(ensembles["co"], "meta", {CO_PAIRED: "co"}))
    for reading in method.more_readings if has_co else ():
        if (reading.model, reading.inner_loss) == ("best_meta", "meta"):
            first[reading.name] = reading.head
        else:
            others.append(
                Pass([models[reading.model]], reading.inner_loss, {reading.name: reading.head})
            )
    if not same_last and last is not None:
        others.append(
            Pass([last], "meta", {META_LAST: "meta"} | ({CO_LAST: "co"} if has_co else {}))
        )
    return [item for item in (Pass([best], "meta", first), *others) if item.readings]


def test_results(
    method: Method,
    data: DataSet,
    spec: RunSpec,
    models: Models,
    steps: dict[str, int],
    wanted: Evaluation,
    tasks_at_once: int,
) -> dict[str, np.ndarray]:
    """Every reading's results per episode (tasks,), by :func:`evaluation_key`.

    All readings are of the same episodes. For the numbers see :func:`stored`.
    """
    episodes = Episodes(data, "test", spec.way, spec.shot, wanted.query)
    method = method.for_test()
    inner = wanted.inner_steps or (method.inner_steps,)
    arrays = {}
    usual = passes(method, models, steps, "best_co" in models)
    co = _co_reading(spec, models)
    planned = [one for how in wanted.normalised_with for one in _normalised(usual, co, how)]
    scored = evaluate_all(
        method,
        _asked(planned, data),
        episodes,
        wanted.tasks,
        steps=inner,
        tasks_at_once=tasks_at_once,
    )
    for item, results in zip(planned, scored, strict=True):
        for reading, head in item.readings.items():
            for k in inner:
                answers = stored(method.kind, results[head, k], spec.way * wanted.query)
                arrays[evaluation_key(reading, k, item.normalised_with)] = answers
    if co != CO:
        arrays |= {
            evaluation_key(CO, k, how): arrays[key]
            for k in inner
            for how in wanted.normalised_with
            if (key := evaluation_key(co, k, how)) in arrays
        }
    return arrays


def _asked(planned: list[Pass], data: DataSet) -> list[Asked]:
    """The passes with their models on the data's device; groups that models share go there once."""
    placed: dict[int, dict[str, torch.Tensor]] = {}

    def here(groups: Groups) -> Groups:
        for name, params in groups.items():
            if id(params) not in placed:
                placed[id(params)] = leaves({name: params}, data.device, data.dtype)[name]
        return {name: placed[id(params)] for name, params in groups.items()}

    return [
        Asked(
            [here(member) for member in item.groups],
            sorted(set(item.readings.values())),
            item.inner_loss,
            item.normalised_with,
        )
        for item in planned
    ]


def _co_reading(spec: RunSpec, models: Models) -> str:
    """The reading whose results are those of ``co``: another one under ``selection: separate``."""
    if spec.protocol.selection != "separate":
        return CO
    return CO_PAIRED if any(key.startswith("top_co.") for key in models) else CO_UNPAIRED


def _normalised(usual: list[Pass], co: str, how: NormalisedWith) -> list[Pass]:
    """The passes with queries normalised in another way: those of ``meta`` and ``co`` alone."""
    if how == "task":
        return usual
    shown = [
        one._replace(
            readings={name: head for name, head in one.readings.items() if name in (META, co)},
            normalised_with=how,
        )
        for one in usual
    ]
    return [one for one in shown if one.readings]


def stored(kind: str, result: Result, answers: int) -> np.ndarray:
    """Correct answers per episode (see :func:`counted`), or squared error (float32)."""
    return (
        counted(result.score, answers) if kind == "classification" else result.score.float().numpy()
    )


def counted(accuracies: PerTask, answers: int) -> np.ndarray:
    """Correct answers of each episode (tasks,), from their shares among ``answers``.

    The numbers are uint16, or uint32 where these are too small.
    """
    counts = torch.round(accuracies.cpu().double() * answers).to(torch.int64).numpy()
    return counts.astype(np.uint16 if answers < 2**16 else np.uint32)
