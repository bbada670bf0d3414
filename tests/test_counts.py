"""FLOPs are counted only for commands that print them, once for each program, and kept on disk."""

import json
from pathlib import Path

import pytest

from cml_bench.__main__ import main
from cml_bench.costs import estimate
from cml_bench.engine import flops
from cml_bench.study import cost, plan, work
from cml_bench.study.config import parse, read
from cml_bench.study.resolve import resolve
from tests.helpers.checkouts import CONFIG, ROOT


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """The titles of the runs that are traced from now on."""
    titles, count = [], estimate._count
    monkeypatch.setattr(estimate, "_count", lambda spec: titles.append(spec.title) or count(spec))
    return titles


@pytest.fixture
def resolved(tmp_path):
    return resolve(parse(CONFIG | {"results": str(tmp_path / "results")}, "test"), "test")


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "my.json"
    path.write_text(json.dumps(CONFIG | {"results": str(tmp_path / "results")}))
    return path


def entries(resolved) -> list[Path]:
    return sorted(work.cache_of(Path(resolved.study.results)).iterdir())


def test_a_plan_traces_nothing(file, counted, tmp_path):
    out = tmp_path / "plan.json"
    assert main(["plan", "--config", str(file), "--out", str(out)]) == 0
    assert counted == []
    assert plan.read_plan(out).runs


def test_a_plan_that_is_printed_has_its_keys_and_traces_each_program_once(
    file, resolved, capsys, monkeypatch
):
    assert main(["plan", "--config", str(file), "--json"]) == 0
    first = capsys.readouterr().out
    assert len(entries(resolved)) == len(work.kinds(resolved)) < len(resolved.runs)
    monkeypatch.setattr(work, "_counted_apart", lambda plan: pytest.fail("counted again"))
    assert main(["plan", "--config", str(file), "--json"]) == 0
    assert capsys.readouterr().out == first
    check_keys(json.loads(first))


def test_counts_do_not_depend_on_seeds_splits_and_budgets(resolved):
    spec = resolved.runs[0].spec
    of = work.kind(spec)
    longer = spec.protocol.model_copy(update={"val_tasks": 7})
    assert work.kind(spec.model_copy(update={"seed": 9, "steps": 8, "protocol": longer})) == of
    for change in ({"shot": 7}, {"way": 9}, {"query": 3}, {"version": 99}, {"options": {}}):
        assert work.kind(spec.model_copy(update=change)) != of, change


def test_what_computes_the_same_is_counted_once_in_a_process(resolved, monkeypatch):
    """The seeds of a run do, and CIFAR-FS and FC100, whose images have one size."""
    paper = resolve(read(ROOT / "configs" / "paper.yaml"), "paper")
    cifar = [run.spec for run in paper.runs if run.spec.data.name in ("cifar_fs", "fc100")]
    made = []
    zero = dict.fromkeys(("adaptation", "inference", "training"), 0)
    monkeypatch.setattr(flops, "_COUNTED", {})
    monkeypatch.setattr(flops, "task_flops", lambda method, *rest: made.append(rest) or zero)
    for spec in cifar:
        estimate._count(spec)
    assert {data.name for data, *_ in made} == {cifar[0].data.name}
    assert 1 < len(made) < len({work.kind(spec) for spec in cifar})
    del made[:]
    for run in resolved.runs:
        if run.spec.network:
            estimate._count(run.spec)
    assert len(made) == len(work.kinds(resolved))


def test_a_damaged_or_foreign_entry_is_counted_again(resolved, counted):
    cache = work.cache_of(Path(resolved.study.results))
    whole = estimate.add(resolved, cache)
    one, other = entries(resolved)[:2]
    good, told = one.read_bytes(), len(counted)
    foreign = json.loads(good) | {"counts": json.loads(good)["counts"] | {"training": -1}}
    strange = json.loads(good) | {"counts": json.loads(good)["counts"] | {"training": "12"}}
    edited = [json.dumps(entry).encode() for entry in (foreign, strange)]
    cut = [b"", b"{", b"[]", b"{}", b"\xff", b"\0" * len(good), good[:-9]]
    for damaged in (*cut, *edited, other.read_bytes()):
        one.write_bytes(damaged)
        assert estimate.add(resolved, cache) == whole
        assert len(counted) == (told := told + 1)
        assert one.read_bytes() == good
    one.unlink()
    one.mkdir()
    assert estimate.add(resolved, cache) == whole, "it cannot be kept"


def test_a_process_without_torch_reads_what_is_kept_and_asks_another_for_the_rest(
    resolved, monkeypatch
):
    there = estimate.add(resolved)
    assert work.counted(resolved) == there, "counted in a process of its own"
    assert len(entries(resolved)) == len(work.kinds(resolved))
    monkeypatch.setattr(work.subprocess, "run", lambda *a, **k: pytest.fail("counted again"))
    assert work.counted(resolved) == there
    assert cost.summary(resolved) == cost.summary(there)


PLAN = {"members", "study", "runs", "jobs", "data", "cells", "tables", "figures"}
PLAN |= {"unlike", "unlike_rows", "chance", "modules", "sweeps"}
RUN = {"id", "folder", "title", "deviates", "gamma_named", "gpu", "spec", "work"}
CELL = {"table", "row", "columns", "shot", "reading", "tasks", "runs", "against"}


def check_keys(printed: dict) -> None:
    assert set(printed) == PLAN
    assert all(set(run) == RUN for run in printed["runs"])
    assert all(set(run["work"]) == {"steps", "flops", "bytes"} for run in printed["runs"])
    assert all(set(cell) == CELL for cell in printed["cells"])
    assert all(set(job) == {"runs", "id", "data", "gpu", "title"} for job in printed["jobs"])
    assert set(printed["tables"]) == set(CONFIG["tables"])
    assert all(
        {"kind", "columns", "title", "rows"} <= set(table) for table in printed["tables"].values()
    )
