"""Plans that tests change or write, by way of the JSON that users have."""

import json
from collections.abc import Callable
from typing import Any

from cml_bench.study.plan import Plan


def edited(plan: Plan, change: Callable[[dict[str, Any]], object]) -> Plan:
    """The plan with its plain values changed by ``change``."""
    values = plan.json_values()
    change(values)
    return Plan.model_validate(values)


def labelled(plan: Plan, label: Callable[[str], str], table: str = "table1") -> Plan:
    """The plan with other labels in the rows of a table."""

    def change(values: dict[str, Any]) -> None:
        for row in values["tables"][table]["rows"]:
            row["label"] = label(row["label"])

    return edited(plan, change)


def with_tasks(plan: Plan, tasks: int) -> Plan:
    """The plan with ``tasks`` test tasks in every experiment and run."""

    def change(values: dict[str, Any]) -> None:
        for part in (
            *values["study"]["experiments"].values(),
            *(run["spec"] for run in values["runs"]),
        ):
            part["evaluation"]["tasks"] = tasks

    return edited(plan, change)


def dumped(plan: Plan) -> str:
    """The content of the plan's file."""
    return json.dumps(plan.json_values())
