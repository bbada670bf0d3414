"""How the benchmark measures: ratios, targets, turns of workers, and runs that stop early."""

import json
import random
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks_main
from benchmarks import measure, show
from benchmarks.peers import install
from benchmarks.worker import kind
from benchmarks.workloads import QUICK, RATES, TARGETS, WAY, WORKLOADS, Workload
from cml_bench.errors import UserError

# -- arithmetic


def block(processor: float, memory: int = 100, **more: float) -> dict:
    return {"calls": 1, "seconds": 2 * processor, "processor": processor, "memory": memory, **more}


def test_rows_are_medians_of_units_and_ratios_are_paired():
    workload = Workload("w", {}, (), units=2, unit="task")
    blocks = {
        WAY: [block(4.0), block(8.0), block(24.0)],
        "official way": [block(5.0, 400)] * 3,
        "engine, fast": [block(2.0), block(2.0), block(8.0)],
        RATES: [{"best_rate": rate, "rate": 4.0, "flops": 8} for rate in (8.0, 16.0, 4.0)],
        "higher": [],
    }
    rows = {
        row["implementation"]: row
        for row in measure.rows(workload, blocks, {"higher": "not installed"})
    }
    fast = rows["engine, fast"]
    assert (fast["processor"], fast["seconds"], fast["per_second"]) == (1.0, 2.0, 1.0)
    assert fast["processor_quartiles"] == [1.0, 2.5]
    assert fast["times_faster"] == 3.0  # median of 2, 4, 3; the ratio of the medians is 4
    assert fast["times_faster_quartiles"] == [2.5, 3.5]
    assert fast["memory_share"] == 0.25
    assert rows[RATES]["processor"] == 0.5  # 8 FLOP at the best rate
    assert fast["limit_multiple"] == 2.0
    # The median of 1, 2, 2: a task takes 1, 1 and 4 s, and the limits are 1, 0.5 and 2 s.
    assert fast["limit_multiple_in_round"] == 2.0
    assert "times_faster" not in rows[WAY]
    assert rows["higher"] == {
        "workload": "w",
        "unit": "task",
        "threads": 1,
        "implementation": "higher",
        "seconds": None,
        "missing": "not installed",
    }


def test_seeds_in_one_program_share_its_time():
    workload = Workload("w", {"seeds": 4}, ())
    blocks = {WAY: [block(6.0)], "engine, many seeds": [block(12.0)]}
    row = measure.rows(workload, blocks, {})[1]
    assert (row["processor"], row["times_faster"]) == (3.0, 2.0)


def test_operations_are_of_one_kind_each():
    kinds = {
        "aten::mkldnn_convolution": "convolutions",
        "aten::convolution_backward": "convolutions",
        "aten::baddbmm": "matrix products",
        "aten::max_pool2d_with_indices": "pooling",
        "aten::cat": "copies",
        "aten::scatter_add_": "arithmetic",
        "aten::leaky_relu": "arithmetic",
        "autograd::engine::evaluate_function: ConvolutionBackward0": "between operations",
    }
    assert {name: kind(name) for name in kinds} == kinds


def test_targets_take_the_worst_of_their_workloads():
    rows = [
        {
            "workload": w.name,
            "implementation": name,
            "times_faster": 20.0,
            "limit_multiple": 1.5,
            "memory_share": 0.3,
            "processor": 0.3,
            "per_second": 100.0,
        }
        for w in WORKLOADS
        for name in w.implementations
    ]
    at = {(row["workload"], row["implementation"]): row for row in rows}
    at["Conv4-64 84x84 1-shot, 5 steps, MAML", "engine, fast"]["times_faster"] = 1.3
    at["Conv4-64 28x28 1-shot, MAML", "plain loop"]["processor"] = 0.9
    targets = {target["target"]: target for target in show.targets(rows)}
    assert len(targets) == len(TARGETS) == 12
    assert all(target["measured"] is not None for target in targets.values())
    one_shot = targets["Conv4-64 84x84 1-shot: times faster"]
    assert (one_shot["measured"], one_shot["reached"]) == (1.3, "below the floor")
    assert targets["Conv4-64 84x84: multiple of the FLOP limit"]["reached"] == "floor"
    assert targets["Conv4-64 84x84: peak memory, share of the official way's"]["reached"] == "aim"
    assert targets["episodes drawn per second"]["reached"] == "below the floor"
    seconds = "Conv4-64 28x28 1-shot: core-seconds per meta-step"
    assert (targets[seconds]["measured"], targets[seconds]["reached"]) == (0.3, "floor")
    slower_machine = targets[f"{seconds}, where a plain loop takes 0.54"]
    assert (slower_machine["measured"], slower_machine["reached"]) == (pytest.approx(0.18), "aim")
    assert {target["reached"] for target in show.targets([])} == {"not measured"}


def test_the_quick_set_has_every_kind_of_work():
    chosen = [w for w in WORKLOADS if w.name in QUICK]
    assert len(chosen) == len(QUICK)
    assert {w.work for w in chosen} == {w.work for w in WORKLOADS}
    assert any(w.limit for w in chosen)


# -- turns


class FakeWorker:
    """A worker that only notes that it was asked."""

    log: list[str] = []
    living: set[str] = set()

    def __init__(self, name: str, workload: Workload):
        if name == "higher":
            raise measure.Missing("no higher")
        self.name = name
        self.living.add(name)

    def block(self, seconds: float) -> dict:
        self.log.append(self.name)
        return block(1.0)

    def stop(self) -> None:
        self.living.discard(self.name)


@pytest.fixture
def turns(monkeypatch):
    monkeypatch.setattr(measure, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "log", [])
    monkeypatch.setattr(FakeWorker, "living", set())
    return measure.Turns(
        Workload("w", {}, (WAY, "official way", "higher", "engine, fast")), random.Random(0)
    )


def test_every_round_has_all_implementations_once_in_an_order_of_its_own(turns, monkeypatch):
    monkeypatch.setattr(measure, "_spare", lambda: 2**40)
    for _ in range(6):
        turns.round()
    rounds = [tuple(FakeWorker.log[i : i + 3]) for i in range(0, 18, 3)]
    assert {frozenset(names) for names in rounds} == {
        frozenset((WAY, "official way", "engine, fast"))
    }
    assert len(set(rounds)) > 2
    assert turns.missing == {"higher": "no higher"}
    assert len(FakeWorker.living) == 3
    turns.stop()
    assert not FakeWorker.living


def test_every_repeat_goes_through_all_workloads(turns, monkeypatch):
    monkeypatch.setattr(measure, "_spare", lambda: 2**40)
    first, other = (
        Workload(name, {}, (WAY, name), rounds=2) for name in ("official way", "engine, fast")
    )
    said = []
    partial = []
    for rows in measure.measure([first, other], 3, random.Random(0), said.append):
        assert not FakeWorker.living  # a living one would keep memory while others are measured
        partial.append(len(rows))
    asked = [name for name in FakeWorker.log if name != WAY]
    assert asked == 3 * [*2 * ["official way"], *2 * ["engine, fast"]]
    assert partial == [2, 4, 4, 4, 4, 4]
    assert "engine, fast (3 of 3): engine, fast: 2 s (processor 1)" in said
    assert not FakeWorker.living
    stopped = measure.measure([first], 3, random.Random(0), said.append)
    next(stopped)
    assert FakeWorker.living == {WAY, "official way"}  # rounds of one workload share their workers
    stopped.close()
    assert not FakeWorker.living


def test_idle_workers_give_way_where_memory_is_short(turns, monkeypatch):
    monkeypatch.setattr(measure, "_spare", lambda: 0)
    for _ in range(2):
        turns.round()
        assert len(FakeWorker.living) == 1
    assert {name: len(blocks) for name, blocks in turns.blocks.items()} == {
        WAY: 2,
        "official way": 2,
        "engine, fast": 2,
        "higher": 0,
    }


def test_without_the_peers_environment_their_rows_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "INSTALLED", tmp_path / "installed.json")
    with pytest.raises(measure.Missing, match="make benchmark"):
        measure.interpreter("higher")
    (tmp_path / "installed.json").write_text(json.dumps({"higher": {"missing": "no compiler"}}))
    with pytest.raises(measure.Missing, match="no compiler"):
        measure.interpreter("higher")


def test_a_peer_that_does_not_install_is_written_down_with_the_reason(tmp_path, monkeypatch):
    def call(*command: str, cwd: Path | None = None) -> None:
        if "torchopt==0.7.3" in command:
            raise RuntimeError("error: no wheel for this Python")
        if command[1:3] == ("-c", "import torchopt"):
            raise RuntimeError("ModuleNotFoundError")

    monkeypatch.setattr(install, "call", call)
    monkeypatch.setattr(install, "install_learn2learn", install.install)
    monkeypatch.setattr(install.venv, "create", lambda folder, **_: next(iter_made(folder)))
    install.main(tmp_path / "peers")
    installed = json.loads((tmp_path / "peers" / "installed.json").read_text())
    assert installed["torchopt"] == {"missing": "error: no wheel for this Python"}
    assert installed["higher"] == {"version": "0.2.1"}
    assert installed["learn2learn"] == {"version": "0.2.0"}
    assert "torch < 1.10" in installed["torchmeta"]["missing"]


def iter_made(folder: Path):
    """The folder that ``venv.create`` would make."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    yield (folder / "lib" / version / "site-packages").mkdir(parents=True)


def test_a_run_that_is_stopped_says_so_in_its_results(tmp_path, monkeypatch):
    def stopped(*args):
        yield [{"workload": "sinusoid", "implementation": "engine, fast"}]
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "measure", stopped)
    out = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "run", "--out", str(out)])
    with pytest.raises(KeyboardInterrupt):
        benchmarks_main.main()
    results = json.loads(out.read_text())
    assert len(results["rows"]) == 1
    assert "it was stopped before its end" in results["provisional"]


def test_no_repeat_measures_nothing(tmp_path, monkeypatch):
    out = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "run", "--repeats", "0", "--out", str(out)])
    with pytest.raises(UserError, match="--repeats 0: at least 1"):
        benchmarks_main.main()
    assert not out.exists()
