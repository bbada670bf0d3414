"""The benchmark of planning: what is cold, what is warm, and how its rows are shown."""

import random

import pytest

from benchmarks import measure, show, startup
from cml_bench.engine import compiled

CONFIG = measure.ROOT / "configs" / "paper.yaml"
NAMES = ("plan", "dry run", "plan with hours")


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Commands that would be timed: what each is for, and whether something was kept before it."""
    made: list[tuple[str, bool]] = []
    kept = tmp_path / "planned"

    def timed(arguments, log, **environment):
        names = {tuple(call): name for name, call in startup.planned(tmp_path, CONFIG).items()}
        made.append((names[tuple(arguments)], kept.exists()))
        kept.mkdir(exist_ok=True)
        return 2.0, 1.0

    monkeypatch.setattr(startup, "timed", timed)
    return made


def times(folder, repeats: int = 4) -> dict:
    return startup._planning(folder, CONFIG, repeats, random.Random(0), folder / "log")


def test_planning_is_timed_cold_and_at_once_again_warm(calls, tmp_path):
    found = times(tmp_path)
    assert [kept for _, kept in calls] == 12 * [False, True]
    assert [name for name, _ in calls[::2]] == [name for name, _ in calls[1::2]]
    rounds = [tuple(name for name, _ in calls[i : i + 6 : 2]) for i in range(0, 24, 6)]
    assert {frozenset(names) for names in rounds} == {frozenset(NAMES)}
    assert len(set(rounds)) > 1  # the order is random
    assert [name for _, name, _ in found] == [
        f"{name}, {state}" for name in NAMES for state in ("cold", "warm")
    ]
    assert all(took == 4 * [(2.0, 1.0)] for took in found.values())


def test_the_study_keeps_its_results_and_data(tmp_path):
    for call in startup.planned(tmp_path, CONFIG).values():
        *_, config, paths = (part for part in call if part.endswith(".yaml"))
        assert config == str(CONFIG)
        text = (tmp_path / "planned.yaml").read_text()
        assert paths == str(tmp_path / "planned.yaml")
        assert f"results: {tmp_path}/planned" in text
        assert f"data_dir: {tmp_path}/data" in text


def test_rows_of_planning_are_a_table_and_no_curve(calls, tmp_path):
    said: list[str] = []
    rows = [startup._row(key, took, said.append) for key, took in times(tmp_path, 1).items()]
    assert "planning paper.yaml: plan, cold: 2.00 s (processor 1.00)" in said
    assert not any("axis" in row for row in rows)
    table = "\n".join(show._workload("planning paper.yaml", rows))
    assert "s per command" in table
    assert "| dry run, warm " in table


def test_a_dry_run_is_a_curve_over_runs():
    row = startup._row((startup.DAG, "plan cached", 10), [(2.0, 1.0)], lambda text: None)
    assert (row["axis"], row["value"], row["blocks"]) == ("runs", 10, 1)


def test_a_step_is_compiled_with_an_empty_cache_and_then_with_the_one_it_left(
    monkeypatch, tmp_path
):
    """A quick run compiles nothing, so what is timed is run here; its graph is interpreted."""
    made, caches = [], []
    monkeypatch.setattr(compiled, "compiled", lambda graph, _: made.append(graph) or graph)

    def timed(arguments, log, **environment):
        exec(arguments[-1], {})
        caches.append(environment["TORCHINDUCTOR_CACHE_DIR"])
        return 2.0, 1.0

    monkeypatch.setattr(startup, "timed", timed)
    monkeypatch.setattr(compiled, "available", lambda: True)
    found = startup._compiling(tmp_path, tmp_path / "log")
    assert caches == 2 * [str(tmp_path / "compiled")]
    assert len(made) == len(found) == 2
    monkeypatch.setattr(compiled, "available", lambda: False)
    assert startup._compiling(tmp_path, tmp_path / "log") == {}
