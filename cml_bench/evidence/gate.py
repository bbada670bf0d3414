"""The gate: results of short runs against committed references. Imports no torch.

A cell is one reading of one method on one experiment. Its mean over seeds may be worse than the
reference's by at most ``max(least, t * s * sqrt(1/n + 1/n_ref))``, with s the deviation of the
reference's seeds and t the two-sided 95 % quantile of its n_ref - 1 degrees of freedom. Accuracies
are compared in points (least: 1 point), squared errors by their logarithm (least: 0.01, one per
cent). Every cell is judged: a run that is missing, diverged, collapsed, or made from other data or
another specification than the reference makes its cell an offender.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cml_bench.errors import UserError
from cml_bench.evidence import stats
from cml_bench.readings import evaluation_key
from cml_bench.records import FINISHED, Record, Store
from cml_bench.registry import CML
from cml_bench.spec import RunSpec, canonical, explain
from cml_bench.study.plan import Plan
from cml_bench.system.files import write_json

REFERENCE_FILE = Path("configs/reference/ci.json")
LEAST = {"classification": 1.0, "regression": 0.01}
MIN_REFERENCE_SEEDS = 10


class Reference(BaseModel):
    """One cell of the reference file. Keys that are not named here are kept."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="allow")

    kind: Literal["classification", "regression"]
    recipe: str
    data_sha256: str
    seeds: int = Field(ge=2)
    mean: float
    deviation: float = Field(ge=0)


_References = TypeAdapter(dict[str, Reference])


class Finding(NamedTuple):
    """One cell's comparison. ``problem`` is empty where the cell holds. Numbers that are not known
    are None.
    """

    cell: str
    problem: str
    value: float | None = None
    reference: float | None = None
    margin: float | None = None


def recipe(spec: RunSpec) -> str:
    """Hash of everything in a spec but the seed."""
    content = {**canonical(spec), "seed": None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def check(plan: Plan, results: Path, reference: Path = REFERENCE_FILE) -> list[Finding]:
    """Every cell of the plan, and every reference that the plan no longer has."""
    left, findings = read_reference(reference), []
    for name, (specs, reading) in _cells(plan).items():
        old = left.pop(name, None)
        if old is None:
            findings.append(Finding(name, "has no reference: make one with check --update"))
            continue
        findings.append(_compare(name, specs, reading, Store(results), old))
    return findings + [
        Finding(name, "is in the reference and no longer in the configuration") for name in left
    ]


def update(plan: Plan, results: Path, reference: Path = REFERENCE_FILE) -> list[str]:
    """Write references from finished runs, and return what moved: one line a cell.

    A UserError if a run is not usable.
    """
    old = read_reference(reference) if Path(reference).exists() else {}
    new, lines = {}, []
    for name, (specs, reading) in _cells(plan).items():
        cell = new[name] = _reference(name, specs, reading, Store(results))
        moved = f"{cell.mean - old[name].mean:+.4f}" if name in old else "new"
        lines.append(f"{name}: {cell.mean:.4f}, deviation {cell.deviation:.4f} ({moved})")
    lines += [f"{name}: removed" for name in old if name not in new]
    write_json(reference, {name: cell.model_dump() for name, cell in new.items()}, indent=1)
    return lines


def _reference(name: str, specs: list[RunSpec], reading: str, store: Store) -> Reference:
    """The reference that a cell's runs make. A UserError if they are too few or not usable."""
    records, problems = _usable(store, specs, None)
    if len(specs) < MIN_REFERENCE_SEEDS:
        problems.append(f"{len(specs)} seeds, {MIN_REFERENCE_SEEDS} are needed")
    if problems:
        raise UserError(f"{name} cannot become a reference: {problems[0]}. Nothing was written.")
    values = [_value(*pair, reading) for pair in zip(records, specs, strict=True)]
    first = records[0]
    return Reference.model_validate(
        {
            "kind": first.kind,
            "recipe": recipe(specs[0]),
            "data_sha256": first.data_sha256,
            "seeds": len(values),
            "mean": round(float(np.mean(values)), 6),
            "deviation": round(float(np.std(values, ddof=1)), 6),
            "versions": first.versions.model_dump(),
        }
    )


def table(findings: list[Finding]) -> str:
    """The findings for a terminal, offenders first."""
    from tabulate import tabulate

    rows = [
        (
            f.cell,
            *("–" if v is None else f"{v:.3f}" for v in (f.value, f.reference, f.margin)),
            f.problem or "holds",
        )
        for f in sorted(findings, key=lambda f: not f.problem)
    ]
    headers = ["cell", "now", "reference", "margin", "verdict"]
    return tabulate(rows, headers, disable_numparse=True)


def read_reference(path: Path) -> dict[str, Reference]:
    """Cell -> reference. A UserError names the file that is missing or damaged."""
    try:
        return _References.validate_python(json.loads(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"there is no reference {path}: make one with check --update.") from None
    except ValidationError as error:
        raise UserError(
            f"{explain(error, f'{path} is damaged')} Restore it from the repository."
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it from the repository.") from None


def _cells(plan: Plan) -> dict[str, tuple[list[RunSpec], str]]:
    """Name of a cell -> its runs, one a seed, and its reading."""
    specs = plan.specs
    return {
        f"{experiment}/{method}/{shot}-shot/{reading}": ([specs[i] for i in ids], reading)
        for experiment, methods in plan.members.items()
        for method, shots in methods.items()
        for shot, ids in shots.items()
        for reading in (("meta", "co") if specs[ids[0]].method.endswith(CML) else ("meta",))
    }


def _compare(
    name: str, specs: list[RunSpec], reading: str, store: Store, old: Reference
) -> Finding:
    records, problems = _usable(store, specs, old)
    if problems:
        return Finding(name, "; ".join(sorted(set(problems))), reference=old.mean)
    try:
        mean = float(np.mean([_value(*pair, reading) for pair in zip(records, specs, strict=True)]))
    except UserError as error:
        return Finding(name, str(error), reference=old.mean)
    spread = old.deviation * math.sqrt(1 / len(records) + 1 / old.seeds)
    margin = max(LEAST[old.kind], stats.t_quantile(old.seeds, 0.95) * spread)
    better = 1 if old.kind == "classification" else -1
    worse = not better * (mean - old.mean) >= -margin  # a mean of nan is worse, too
    return Finding(name, "is worse than the reference" if worse else "", mean, old.mean, margin)


def _usable(
    store: Store, specs: list[RunSpec], old: Reference | None
) -> tuple[list[Record], list[str]]:
    """The records of runs that can be compared, and what is wrong with each other run."""
    records, problems = [], []
    for spec in specs:
        record, problem = store.usable(spec)
        problem = problem or _problem(record, spec, old)
        if record is None or problem:
            problems.append(problem)
        else:
            records.append(record)
    return records, problems


def _problem(record: Record | None, spec: RunSpec, old: Reference | None) -> str:
    """Why a record cannot be compared with the reference; empty: it can."""
    if record is None:
        return f"seed {spec.seed} is missing"
    if record.status != FINISHED:
        return f"seed {spec.seed} {record.status}"
    if not record.evaluation.covers(spec.evaluation):
        return f"seed {spec.seed} is not evaluated as the configuration asks"
    if old is not None and old.recipe != recipe(spec):
        return "the specification is not the reference's: make a new one with check --update"
    if old is not None and old.data_sha256 != record.data_sha256:
        return f"seed {spec.seed} was made from other data than the reference"
    return ""


def _value(record: Record, spec: RunSpec, reading: str) -> float:
    """Accuracy in points, or the logarithm of the mean squared error, of one run."""
    scores = record.episodes(evaluation_key(reading, spec.inner_steps), spec.evaluation.tasks)
    mean = float(scores.mean())
    return 100 * mean if record.kind == "classification" else math.log(mean)
