"""A plan that an earlier version wrote is read, and its runs have today's ids.

``fixtures/plan_before.json`` was written by commit 5985711: ``python -m cml_bench plan --config
plan_before.yaml --out plan_before.json``.
"""

from pathlib import Path

import pytest

from cml_bench.study import config
from cml_bench.study.plan import Plan, read_plan
from cml_bench.study.resolve import resolve

FIXTURES = Path(__file__).parent / "fixtures"
BEFORE = FIXTURES / "plan_before.json"


def by_text(path: Path) -> Plan:
    return Plan.model_validate_json(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("read", [read_plan, by_text])
def test_a_plan_of_an_earlier_version_has_the_runs_of_todays(read):
    path = str(FIXTURES / "plan_before.yaml")
    before, today = read(BEFORE), resolve(config.read(path), path)
    assert len(today.runs) == 8
    assert [run.id for run in before.runs] == [run.id for run in today.runs]
    assert [run.spec for run in before.runs] == [run.spec for run in today.runs]
    assert all(run.spec.id == run.id for run in before.runs)
    assert before.members == today.members
    assert (list(before.tables), list(before.figures)) == (["table1"], ["figure2"])
