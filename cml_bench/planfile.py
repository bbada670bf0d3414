"""Resolved plans and specs as files. Imports no torch."""

import json
from pathlib import Path
from typing import Any

from cml_bench.config import checked
from cml_bench.errors import UserError
from cml_bench.spec import RunSpec


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.") from None


_ITEMS = {  # of a plan's lists: the keys that commands read
    "runs": ("id", "title", "spec", "folder"),
    "jobs": ("id", "runs"),
    "cells": ("table", "runs", "against"),
    "data": ("data_id", "key", "name", "prepares", "terms", "store", "files", "published"),
}


def read_plan(path: Path) -> dict[str, Any]:
    """A resolved plan. A UserError for any other file, and for a plan that lacks what a command will read."""
    plan = read_json(path)
    try:
        lists = {name: [[item[key] for key in keys] for item in plan[name]] for name, keys in _ITEMS.items()}
        study = checked({**plan["study"], "tables": plan["tables"], "figures": plan["figures"]}, "study")
        known = {run for run, title, spec, _ in lists["runs"] if RunSpec.read(spec, f"run {title}")}
        used = [run for _, runs in lists["jobs"] for run in runs]
        used += [run for _, runs, against in lists["cells"] for run in [*runs, *(against or ())]]
        for name, e in study.experiments.items():
            used += [run for key in e.methods for shot in e.shots for run in plan["members"][name][key][str(shot)]]
        problem = next((f"there is no run {run!r}" for run in used if run not in known), "")
    except KeyError as error:
        problem = f"it has no {error}"
    except (TypeError, AttributeError):
        problem = "its parts are of other kinds"
    except UserError as error:
        problem = str(error).removesuffix(".")
    if problem:
        way_out = "make one with `python -m cml_bench plan --config FILE --out PLAN`"
        raise UserError(f"{path} is no resolved plan ({problem}): {way_out}.")
    resolved = study.model_dump(mode="json")
    return plan | {"study": resolved, "tables": resolved["tables"], "figures": resolved["figures"]}
