"""How much each run of a plan computes: counts of FLOPs, kept on disk. Imports no torch.

Counting traces a method on its network, which needs torch and takes about a second. So only
commands that print hours count. A count is made once and kept beside the cached plans. The work of
a run follows from its count by arithmetic. :mod:`cml_bench.costs.estimate` makes the counts.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cml_bench import plugins
from cml_bench.errors import UserError
from cml_bench.spec import RunSpec
from cml_bench.study.plan import PACKAGE, Plan, PlannedRun, Work, hash_of
from cml_bench.system.files import write_json

# The sources that a count depends on: after an edit of any other source the counts still hold.
_ROOMS = ("data", "methods", "networks")
_MODULES = ("engine/flops.py", "engine/step.py")


class Counts(BaseModel):
    """One method on one network with tasks of one size. FLOPs are of one task."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    adaptation: int = Field(ge=0)
    inference: int = Field(ge=0)
    training: int = Field(ge=0)
    base: int = Field(ge=0, description="parameters")
    co: int | None = Field(ge=0, description="parameters of the co-learner, if there is one")
    inner_steps: int = Field(ge=0, description="the method's own number")
    classification: bool


class _Entry(BaseModel):
    """A file of the cache. ``of`` says in full what was counted, and is compared before use."""

    model_config = ConfigDict(extra="forbid")

    of: dict[str, Any]
    counts: Counts


def kind(spec: RunSpec) -> str:
    """All that the counts of a run depend on, as JSON: no seed, no class split, no budget."""
    data = {name: value for name, value in spec.data.options.items() if name != "split"}
    content = {
        "method": [spec.method, spec.version, spec.options],
        "network": spec.network and [spec.network.name, spec.network.options],
        "data": [spec.data.name, data],
        "task": [spec.way, spec.shot, spec.query],
        "code": [_source() + plugins.source_hash(), importlib.metadata.version("torch")],
    }
    return json.dumps(content, sort_keys=True)


@functools.cache
def _source() -> str:
    """Of the package's own files. Plug-ins may come into use later."""
    rooms = [path for room in _ROOMS for path in (PACKAGE / room).iterdir()]
    paths = [path for path in rooms if path.suffix in (".py", ".json")]
    return hash_of([*paths, *(PACKAGE / name for name in _MODULES)])


def cache_of(results: Path) -> Path:
    """The folder of the counts of studies with these results, beside their plans."""
    return results / "plans" / "flops"


def _file(cache: Path, of: str) -> Path:
    return cache / f"{hashlib.sha256(of.encode()).hexdigest()[:16]}.json"


def kept(cache: Path, of: str) -> Counts | None:
    """The counts of a :func:`kind`; None if they are missing, damaged or belong to another kind."""
    try:
        entry = _Entry.model_validate_json(_file(cache, of).read_bytes())
    except (OSError, ValueError):
        return None
    return entry.counts if entry.of == json.loads(of) else None


def keep(cache: Path, of: str, counts: Counts) -> None:
    """Keep the counts of a :func:`kind`. Where nothing can be written, they are counted again."""
    with contextlib.suppress(OSError):
        write_json(_file(cache, of), {"of": json.loads(of), "counts": counts.model_dump()})


def work(spec: RunSpec, counts: Counts | None) -> Work:
    """How much a run computes and stores. A method that does not learn has no counts."""
    protocol, evaluation = spec.protocol, spec.evaluation
    if counts is None:
        return Work(steps=0, flops=0, bytes=2 * evaluation.tasks)
    passes, readings = (2, 2) if counts.co is None else (3, 7)
    validations = spec.steps // protocol.val_every + 1
    tests = validations * protocol.val_tasks + passes * evaluation.tasks
    longer = max(1, max(evaluation.inner_steps, default=0) / max(1, counts.inner_steps))
    flops: float = spec.steps * protocol.meta_batch * counts.training
    flops += tests * (counts.adaptation * longer + counts.inference)
    examples = {"support": spec.way * spec.shot + 1, "two_classes": 2, "one_class": 1}
    again = sum(examples[how] for how in evaluation.normalised_with if how != "task")
    flops += evaluation.tasks * again * counts.inference  # for each query, of a model that adapted
    results = evaluation.tasks * readings * len(evaluation.inner_steps)
    size = _bytes_of_models(counts, protocol.ensemble_top_k)
    size += results * (2 if counts.classification else 4)
    return Work(steps=spec.steps, flops=int(flops), bytes=size + 100 * validations)


def _bytes_of_models(counts: Counts, top_k: int) -> int:
    """Of the selected and the last model, the best by the co-learner's head, and the ensembles."""
    heads = 1 if counts.co is None else 2
    co = counts.co or 0
    members = (heads - 1) + (top_k * heads if top_k > 1 else 0)
    return 4 * (2 * counts.base + 2 * co + members * (counts.base + co))


def counted(plan: Plan) -> Plan:
    """The plan with every run's work. A process of its own counts what is not kept."""
    if all(run.work for run in plan.runs):
        return plan
    cache = cache_of(Path(plan.study.results))
    counts = {of: kept(cache, of) for of in kinds(plan)}
    if None in counts.values():
        counts = _counted_apart(plan)
    return with_counts(plan, counts)


def kinds(plan: Plan) -> dict[str, PlannedRun]:
    """Each :func:`kind` of run that is counted -> the first run of it."""
    first: dict[str, PlannedRun] = {}
    for run in plan.runs:
        if run.spec.network is not None:
            first.setdefault(kind(run.spec), run)
    return first


def with_counts(plan: Plan, counts: Mapping[str, Counts | None]) -> Plan:
    """The plan with the work that follows from the counts of its :func:`kinds`."""
    runs = []
    for run in plan.runs:
        known = counts[kind(run.spec)] if run.spec.network is not None else None
        runs.append(run.model_copy(update={"work": work(run.spec, known)}))
    return plan.model_copy(update={"runs": tuple(runs)})


def _counted_apart(plan: Plan) -> dict[str, Counts | None]:
    done = subprocess.run(
        [sys.executable, "-m", "cml_bench.costs.estimate"],
        input=json.dumps(plan.json_values()),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        said = done.stderr.strip().removeprefix("error: ")
        raise UserError(said or f"counting was stopped (exit code {done.returncode}).")
    return {of: Counts.model_validate(one) for of, one in json.loads(done.stdout).items()}
