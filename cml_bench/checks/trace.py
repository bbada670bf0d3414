"""Golden traces of plug-ins: what one gave once, and gives from then on.

A trace stands beside its plug-in as ``NAME.trace.json`` and belongs into its repository. For a
method it holds the losses of ten outer steps, for a network those of a plain method on it, and for
a data set a digest of some test tasks; all in float64. The traces of what the package itself has
stand among the project's tests.
"""

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import torch

import cml_bench
from cml_bench import registry
from cml_bench.checks import laws
from cml_bench.checks.subject import CPU
from cml_bench.data.base import DataSet
from cml_bench.data.episodes import Episodes
from cml_bench.engine.step import leaves
from cml_bench.registry import CML

STEPS, TASKS = 10, 3
_HOME = Path(cml_bench.__file__).resolve().parent
OF_PROJECT = _HOME.parent / "tests" / "golden" / "traces"  # of the package's methods, in a clone
_EQUAL = 1e-6  # as a share: other machines add up in another order
Trace = dict[str, Any]


def path_of(cls: type[Any], name: str) -> Path | None:
    """Where the trace of a plug-in's class belongs; None for a class of the package itself."""
    file = Path(inspect.getfile(cls)).resolve()
    return None if file.is_relative_to(_HOME) else file.with_name(f"{name}.trace.json")


def of_method(make: laws.Make, name: str) -> Trace:
    """The losses of ten outer steps by method and head, each taken before its step."""
    pair = [name] + [name + CML] * registry.methods.get(name).accepts_colearner
    return {one: _losses(make, one) for one in pair}


def _losses(make: laws.Make, name: str) -> dict[str, list[float]]:
    subject = make(name)
    subject.groups = leaves(subject.method.init(5), CPU, torch.float64)
    step = subject.step(lr=1e-2)
    losses: dict[str, list[float]] = {head: [] for head in subject.method.heads}
    for number in range(STEPS):
        subject.method.at_step(number)
        scores = step(subject.tasks(first=TASKS * number))
        for head, of_head in losses.items():
            of_head.append(scores.loss[head].mean().item())
    return losses


def of_data(data: DataSet, way: int) -> Trace:
    """The SHA-256 of the first test tasks."""
    tasks = Episodes(data, "test", way, 1, 1).batch(0, TASKS)
    digest = hashlib.sha256()
    for value in (tasks.support.x, tasks.support.y, tasks.query.x, tasks.query.y):
        digest.update(value.contiguous().numpy().tobytes())
    return {"tasks": digest.hexdigest()}


def hold(now: Trace, path: Path) -> None:
    """Compare with the file. Broken says what moved, and how a change that is meant is kept."""
    meant = (
        "if that is meant, raise its version, so that ids change with it, and write the"
        " trace anew with --accept"
    )
    try:
        then = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise laws.Broken(f"{path} cannot be read ({error}); --accept writes it anew") from None
    for key, value in now.items():
        if not _alike(value, then.get(key) if isinstance(then, dict) else None):
            raise laws.Broken(f"{key} differs from {path}; {meant}")


def _alike(now: Any, then: Any) -> bool:
    if isinstance(now, dict):
        return isinstance(then, dict) and all(_alike(v, then.get(k)) for k, v in now.items())
    if isinstance(now, list):
        return isinstance(then, list) and len(now) == len(then) and all(map(_alike, now, then))
    if isinstance(now, float):
        return isinstance(then, float) and abs(now - then) <= _EQUAL * max(1e-3, abs(then))
    return bool(now == then)
