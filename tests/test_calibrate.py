"""The hours of a study, predicted from a short measurement on this device."""

import json

import pytest
import torch

from cml_bench.__main__ import main
from cml_bench.costs import calibrate, estimate
from cml_bench.study import cost
from cml_bench.study import plan as study_plan
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.checkouts import CONFIG


@pytest.fixture(scope="module")
def resolved():
    return estimate.add(resolve(parse(CONFIG, "test"), "test"))


def test_a_network_that_gains_by_a_gpu_is_timed_and_its_hours_follow(resolved):
    rates = calibrate.rates(resolved, 0.2, "cpu")
    assert (set(rates.flops), rates.gpu) == ({"conv4 16px"}, False), (
        "the sinusoid's steps are no matter of FLOPs"
    )
    assert 1e6 < rates.flops["conv4 16px"] < 1e14
    runs = [run for run in resolved.runs if run.gpu]
    seconds = 3600 * cost.hours(runs, False, rates)
    assert seconds == pytest.approx(sum(run.work.flops for run in runs) / rates.flops["conv4 16px"])
    half = rates._replace(flops={"conv4 16px": rates.flops["conv4 16px"] / 2})
    assert cost.hours(runs, False, half) == pytest.approx(2 * cost.hours(runs, False, rates))


def test_one_core_is_timed_whatever_the_process_may_use(resolved, monkeypatch):
    seen = []
    monkeypatch.setattr(
        calibrate, "_flops_per_second", lambda *a: seen.append(torch.get_num_threads()) or 1.0
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        calibrate.rates(resolved, 0.2, "cpu")
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_plan_prints_a_line_for_every_table_and_for_all(tmp_path, capsys):
    import yaml

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    assert main(["plan", "--config", str(tmp_path / "tiny.yaml"), "--calibrate", "0.1"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    rows = {
        line.split()[0]: line.split()
        for line in lines
        if line.startswith(("sinusoid ", "table1 ", "all "))
    }
    assert [rows[key][1:3] for key in ("sinusoid", "table1", "all")] == [
        ["4", "0"],
        ["5", "0"],
        ["9", "0"],
    ]
    assert any("measured in" in line and "conv4 16px" in line for line in lines)
    first, rate = shown.err.splitlines()
    assert first.startswith("timing outer steps on ")
    assert first.endswith("s, to tell hours (--calibrate 0: no timing)")
    assert rate.startswith("  conv4 16px: ")


def test_a_study_is_timed_only_where_its_hours_are_hours(resolved, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "rates", lambda *given: pytest.fail("it was timed"))
    monkeypatch.setattr(study_plan, "cached", lambda *given: resolved)
    (tmp_path / "tiny.yaml").write_text(json.dumps(CONFIG))
    assert main(["plan", "--config", str(tmp_path / "tiny.yaml")]) == 0
    assert "from FLOPs at" in capsys.readouterr().out

    def longer(runs):
        """The study with these runs alone, and more work."""
        longer = [run.model_copy(update={"work": work}) for run in runs]
        return resolved.model_copy(update={"runs": tuple(longer)})

    work = resolved.runs[0].work.model_copy(update={"flops": 10**15})
    assert not cost.is_worth_timing(resolved, False)
    assert cost.is_worth_timing(longer(resolved.runs), False)
    assert not cost.is_worth_timing(longer(run for run in resolved.runs if not run.gpu), False), (
        "the sinusoid's network is not timed"
    )


@pytest.mark.parametrize(
    ("hours", "shown"), [(1203.44, "1,203.4 h"), (1.0, "1.0 h"), (0.5, "30 min"), (1e-4, "1 min")]
)
def test_a_study_of_minutes_is_told_in_minutes(hours, shown):
    assert cost._long(hours) == shown
