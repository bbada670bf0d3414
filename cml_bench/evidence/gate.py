"""The gate: results of short runs against committed references. Imports no torch.

A cell is one reading of one method on one experiment. Its mean over seeds may not be worse than the
reference's by more than ``max(least, t * s * sqrt(1/n + 1/n_ref))``, with s the deviation of the
reference's seeds and t the two-sided 95 % quantile of its n_ref - 1 degrees of freedom. Accuracies
are compared in points (least: 1 point), squared errors by their logarithm (least: 0.01, one per
cent). A run that is missing, diverged, collapsed, or made from other data or another specification
than the reference is an offender: nothing is skipped.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cml_bench.errors import UserError
from cml_bench.evidence import stats
from cml_bench.records import FINISHED, Record, Store, evaluation_key
from cml_bench.registry import CML
from cml_bench.spec import RunSpec, canonical, explain
from cml_bench.study.plan import Plan
from cml_bench.system.files import write_json

REFERENCE = Path("configs/reference/ci.json")
LEAST = {"classification": 1.0, "regression": 0.01}
MIN_REFERENCE_SEEDS = 10


class _Reference(BaseModel):
    """One cell of the reference file."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    kind: Literal["classification", "regression"]
    recipe: str
    data_sha256: str
    seeds: int = Field(ge=2)
    mean: float
    deviation: float = Field(ge=0)


_References = TypeAdapter(dict[str, _Reference])


class Finding(NamedTuple):
    """One cell's comparison. ``problem`` is empty where it holds; numbers are None if unknown."""

    cell: str
    problem: str
    value: float | None = None
    reference: float | None = None
    margin: float | None = None


def recipe(spec: RunSpec) -> str:
    """Hash of everything in a spec but the seed."""
    content = {**canonical(spec), "seed": None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def check(plan: Plan, results: Path, reference: Path = REFERENCE) -> list[Finding]:
    """Every cell of the plan, and every reference that the plan no longer has."""
    known, found = read_reference(reference), []
    for name, (specs, reading) in _cells(plan).items():
        old = known.pop(name, None)
        if old is None:
            found.append(Finding(name, "has no reference: make one with check --update"))
            continue
        found.append(_compare(name, specs, reading, Store(results), old))
    return found + [
        Finding(name, "is in the reference and no longer in the configuration") for name in known
    ]


def update(plan: Plan, results: Path, reference: Path = REFERENCE) -> list[str]:
    """Write references from finished runs; returns what moved, a line a cell. A UserError if a run
    is not usable.
    """
    old = read_reference(reference) if Path(reference).exists() else {}
    new, lines = {}, []
    for name, (specs, reading) in _cells(plan).items():
        records = [_usable(Store(results), spec, None) for spec in specs]
        problems = [record for record in records if isinstance(record, str)]
        if problems or len(records) < MIN_REFERENCE_SEEDS:
            why = (
                problems[0]
                if problems
                else f"{len(records)} seeds, {MIN_REFERENCE_SEEDS} are needed"
            )
            raise UserError(f"{name} cannot become a reference: {why}. Nothing was written.")
        values = [
            _value(record, spec, reading) for record, spec in zip(records, specs, strict=True)
        ]
        new[name] = {
            "kind": records[0].kind,
            "recipe": recipe(specs[0]),
            "data_sha256": records[0].data_sha256,
            "seeds": len(values),
            "mean": round(float(np.mean(values)), 6),
            "deviation": round(float(np.std(values, ddof=1)), 6),
            "versions": records[0].versions.model_dump(),
        }
        before = old.get(name)
        moved = "new" if before is None else f"{new[name]['mean'] - before['mean']:+.4f}"
        lines.append(
            f"{name}: {new[name]['mean']:.4f}, deviation {new[name]['deviation']:.4f} ({moved})"
        )
    lines += [f"{name}: removed" for name in old if name not in new]
    write_json(reference, new, indent=1)
    return lines


def table(found: list[Finding]) -> str:
    """For people: the offenders first."""
    from tabulate import tabulate

    rows = [
        (
            f.cell,
            *("–" if v is None else f"{v:.3f}" for v in (f.value, f.reference, f.margin)),
            f.problem or "holds",
        )
        for f in sorted(found, key=lambda f: not f.problem)
    ]
    headers = ["cell", "now", "reference", "margin", "verdict"]
    return tabulate(rows, headers, disable_numparse=True)


def read_reference(path: Path) -> dict[str, Any]:
    """Cell -> reference. A UserError names the file that is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        _References.validate_python(content)
    except FileNotFoundError:
        raise UserError(f"there is no reference {path}: make one with check --update.") from None
    except ValidationError as error:
        raise UserError(
            f"{explain(error, f'{path} is damaged')} Restore it from the repository."
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it from the repository.") from None
    return content


def _cells(plan: Plan) -> dict[str, tuple[list[RunSpec], str]]:
    specs = plan.specs
    return {
        f"{experiment}/{method}/{shot}-shot/{reading}": ([specs[i] for i in ids], reading)
        for experiment, methods in plan.members.items()
        for method, shots in methods.items()
        for shot, ids in shots.items()
        for reading in (("meta", "co") if specs[ids[0]].method.endswith(CML) else ("meta",))
    }


def _compare(
    name: str, specs: list[RunSpec], reading: str, store: Store, old: dict[str, Any]
) -> Finding:
    records = [_usable(store, spec, old) for spec in specs]
    problems = [record for record in records if isinstance(record, str)]
    if problems:
        return Finding(name, "; ".join(sorted(set(problems))), reference=old["mean"])
    try:
        mean = float(
            np.mean(
                [_value(record, spec, reading) for record, spec in zip(records, specs, strict=True)]
            )
        )
    except UserError as error:
        return Finding(name, str(error), reference=old["mean"])
    spread = old["deviation"] * math.sqrt(1 / len(records) + 1 / old["seeds"])
    margin = max(LEAST[old["kind"]], stats.t_quantile(old["seeds"], 0.95) * spread)
    better = 1 if old["kind"] == "classification" else -1
    worse = not better * (mean - old["mean"]) >= -margin  # a mean that is no number is worse, too
    return Finding(name, "is worse than the reference" if worse else "", mean, old["mean"], margin)


def _usable(store: Store, spec: RunSpec, old: dict[str, Any] | None) -> Record | str:
    """The record, or what is wrong with it."""
    record, problem = store.usable(spec)
    if problem:
        return problem
    if record is None:
        return f"seed {spec.seed} is missing"
    if record.status != FINISHED:
        return f"seed {spec.seed} {record.status}"
    if not record.evaluation.covers(spec.evaluation):
        return f"seed {spec.seed} is not evaluated as the configuration asks"
    if old is not None and old["recipe"] != recipe(spec):
        return "the specification is not the reference's: make a new one with check --update"
    if old is not None and old["data_sha256"] != record.data_sha256:
        return f"seed {spec.seed} was made from other data than the reference"
    return record


def _value(record: Record, spec: RunSpec, reading: str) -> float:
    """Accuracy in points, or the logarithm of the mean squared error, of one run."""
    scores = record.episodes(
        evaluation_key(reading, spec.options["inner_steps"]), spec.evaluation.tasks
    )
    mean = float(scores.mean())
    return 100 * mean if record.kind == "classification" else math.log(mean)
