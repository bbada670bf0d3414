"""Studies with a sweep and made-up records: real plans and real record files, but no training."""

import copy
import json
from pathlib import Path
from typing import Any

from cml_bench.records import Store
from cml_bench.study import config, selection
from cml_bench.study.plan import Plan
from cml_bench.study.resolve import resolve
from tests.helpers.simulated import LEVEL, ROWS, experiment, finish

STEPS = {"inner_lr": [0.1, 0.5, 1.0], "protocol.outer_lr": [0.001, 0.01]}


def content(sweep: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """MAML and MAML + CML on glyphs, 1-shot, each tried in six settings with two seeds."""
    swept = sweep or {"seeds": 2, "methods": {"maml": STEPS, "maml+cml": STEPS}}
    return {
        "study": "s",
        "seeds": 5,
        "experiments": {"e": experiment(100, **{"shots": [1], "sweep": swept, **changes})},
        "tables": {
            "table1": {"kind": "accuracy", "experiment": "e", "title": "T", "rows": ROWS},
        },
    }


def planned(asked: dict[str, Any]) -> Plan:
    """The plan of a configuration, with every setting."""
    return resolve(config.parse(copy.deepcopy(asked), "my.yaml"), "my.yaml")


def tried_ids(plan: Plan) -> set[str]:
    """The ids of the runs of the selection."""
    whole = plan.whole or plan
    return {run for sweep in whole.sweeps for one in sweep.settings for run in one.tried}


def finished(plan: Plan, folder: Path, best: dict[str, dict[str, float]] | None = None) -> Store:
    """Records of every run of the selection. Validation scores 50 %, and 60 % in the settings that
    ``best`` names by their method.
    """
    ids = tried_ids(plan)
    finish(plan, folder, LEVEL, only=lambda spec: spec.id in ids)
    for sweep in plan.sweeps:
        for setting in sweep.settings:
            score = 0.6 if setting.values == (best or {}).get(sweep.method) else 0.5
            for run in setting.tried:
                validated(plan, folder, run, score)
    return Store(folder)


def validated(plan: Plan, folder: Path, run: str, score: float | None) -> None:
    """Give a stored run a validation score, at the step of the model that is tested."""
    edited(
        plan,
        folder,
        run,
        selected={"best_meta": 50, "last": 100},
        curves={"step": [0, 50, 100], "validation": {"score_meta": [0.2, score, 0.1]}},
    )


def edited(plan: Plan, folder: Path, run: str, **changes: Any) -> None:
    """Write other values into a stored record."""
    path = Store(folder).folder(plan.specs[run]) / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def chosen(plan: Plan, folder: Path) -> dict[str, dict[str, Any] | None]:
    """Method -> the values of its selected setting."""
    found = selection.selections(plan, Store(folder))
    return {
        one.sweep.method: None if one.chosen is None else one.tried[one.chosen].values
        for one in found
    }
