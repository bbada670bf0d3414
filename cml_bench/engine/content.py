"""What a run writes into its record: see :mod:`cml_bench.content` for what readers rely on."""

import datetime
import os
import platform
from typing import Any

import numpy as np
import safetensors
import torch

import cml_bench
from cml_bench.content import Engine
from cml_bench.data.base import DataSet
from cml_bench.engine.device import peak_memory
from cml_bench.readings import reading_and_steps
from cml_bench.records import FORMAT
from cml_bench.spec import Evaluation, RunSpec, canonical
from cml_bench.study.provenance import source
from cml_bench.system import allocator
from cml_bench.system.hardware import processor


def content_of(
    spec: RunSpec, engine: Engine, data: DataSet, arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """What a record says of any run: specification, data, versions, machine, engine and results.

    ``arrays``: test results per episode, by reading and inner steps. Memory is that of this
    process, or of its device, so far.
    """
    return {
        "format": FORMAT,
        "id": spec.id,
        "spec": canonical(spec),
        "kind": data.kind,
        "data_sha256": data.sha256,
        "data_differs": data.differs,
        "data_unordered_sha256": data.unordered_sha256,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "cml_bench": cml_bench.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "safetensors": safetensors.__version__,
        },
        "source": source(spec).model_dump(mode="json", exclude_unset=True),
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "allocator": allocator.in_force(),
        },
        "engine": engine.model_dump(mode="json", exclude_unset=True),
        "memory": peak_memory(engine.device),
        **evaluation_content(arrays, spec.evaluation, spec, data.kind),
    }


def evaluation_content(
    arrays: dict[str, np.ndarray], wanted: Evaluation, spec: RunSpec, kind: str
) -> dict[str, Any]:
    """The mean of every series of test results, and the evaluation that they belong to."""
    steps = sorted({reading_and_steps(key)[1] for key in arrays})
    answers = spec.way * wanted.query
    scale = answers if kind == "classification" else 1
    return {
        "evaluation": (
            wanted.model_copy(update={"inner_steps": tuple(steps)}).model_dump(mode="json")
        ),
        "answers_per_episode": answers,
        "results": {key: round(float(values.mean()) / scale, 6) for key, values in arrays.items()},
    }


def rounded(value: Any) -> Any:
    """Floats to six significant digits, so that records stay small: curves are only plotted."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value
