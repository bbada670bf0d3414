"""The benchmark: all implementations compute the same; its pages; a quick run of everything."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import hours, measure, show
from benchmarks.workloads import PACKAGES, RATES, WAY, WORKLOADS
from cml_bench.engine import compiled, seeds
from cml_bench.errors import UserError
from cml_bench.study import config, cost, work
from cml_bench.study.plan import cached
from tests.helpers.peers import CASES, gradients, made

RESULTS = measure.ROOT / "benchmarks" / "results"
OURS = ("official way", WAY, "plain loop", "engine, plain", "engine, fast")


def same(got: dict, want: dict) -> None:
    """Check that gradients agree to 1e-10 of each tensor's largest entry.

    A bias in front of batch-norm has a gradient of rounding noise; it is held against 1.
    """
    assert got.keys() == want.keys()
    for key, value in want.items():
        scale = (
            1.0
            if key[1].startswith("conv") and key[1].endswith("bias")
            else float(value.abs().max())
        )
        assert float((got[key] - value).abs().max()) < 1e-10 * scale, key


@pytest.mark.parametrize("case", CASES)
def test_the_restated_ways_and_the_engine_have_one_gradient(case):
    want = gradients(OURS[0], CASES[case])
    assert all(
        float(value.abs().max()) > 0 for key, value in want.items() if not key[1].endswith("bias")
    )
    for implementation in OURS[1:]:
        same(gradients(implementation, CASES[case]), want)


@pytest.mark.parametrize("case", ["mlp maml 2 steps", "mlp maml+cml 1 steps"])
def test_many_seeds_make_the_steps_of_one(case, monkeypatch):
    for module in (compiled, seeds):
        monkeypatch.setattr(module, "compiled", lambda graph, arguments: graph)
    problem = replace(CASES[case], seeds=3)
    single, many = made("engine, fast", problem), made("engine, many seeds", problem)
    for number in range(3):
        for one in (single, many):
            one.step(problem.task(number, torch.float64))
    for seed in many.seeds.values():
        same(
            {k: p.detach() for k, p in seed.leaves.items()},
            {k: p.detach() for k, p in single.leaves.items()},
        )


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_have_that_gradient_too(package, tmp_path):
    try:
        python = measure.interpreter(package)
    except measure.Missing as why:
        pytest.skip(f"{package}: {why}")
    file = str(tmp_path / "gradients.pt")
    code = f"from tests.helpers.peers import store; store({package!r}, {file!r})"
    done = subprocess.run([python, "-c", code], cwd=measure.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for case, got in torch.load(file).items():
        same(got, gradients("official way", CASES[case]))


@pytest.mark.parametrize("kind", ["conv4 maml 1 steps", "mlp maml 2 steps"])
def test_all_evaluations_score_alike(kind):
    problem = CASES[kind]
    task = problem.task(0, torch.float64)
    parts = made("engine, fast", problem).evaluate(task)
    want = torch.cat([result.score for part in parts for result in part.values()])
    for implementation in ("official way", WAY):
        assert made(implementation, problem).evaluate(task) == pytest.approx(
            want.tolist(), rel=1e-6
        )


# -- processes and pages


@pytest.mark.slow
def test_a_worker_that_fails_says_why():
    workload = replace(WORKLOADS[0], problem={"tasks": 2, "way": 1, "method": "nonsense"})
    with pytest.raises(UserError, match="nonsense"):
        measure.Worker("engine, fast", workload)


def benchmark(*arguments: str) -> str:
    """Run a command of the benchmark; what it prints."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(
        command, cwd=measure.ROOT, capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_rows(rows: dict[tuple[str, str], dict]) -> None:
    """Check the rows of results, given by workload and implementation."""
    conv = "Conv4-64 28x28 1-shot, MAML+CML"
    assert rows[conv, "engine, fast"].keys() >= {
        "times_faster",
        "limit_multiple",
        "memory_share",
        "seconds_quartiles",
    }
    assert min(rows[conv, name]["processor"] for name in (RATES, "engine, fast")) > 0
    for name in (conv, "evaluation, Conv4-64 84x84 5-shot"):
        shares = rows[name, "engine, fast"]["shares"]
        assert abs(sum(shares.values()) - 1) < 0.001
        assert min(shares["convolutions"], shares["matrix products"], shares["arithmetic"]) > 0.001
    assert rows["episodes, 5-way 5-shot", "episodes"]["per_second"] > 100
    assert rows["dry run of a study", "plan cached"]["value"] == 10


@pytest.mark.slow
def test_a_quick_run_and_its_page(tmp_path):
    out = tmp_path / "speed.json"
    options = ["--quick", "--scaling", "--startup", "--repeats", "1", "--out", str(out)]
    only = ["Conv4-64 28x28*", "evaluation*", "episodes, *"]  # a sinusoid is compiled for minutes
    benchmark("run", *options, "--only", *only)
    results = json.loads(out.read_text())
    check_rows({(row["workload"], row["implementation"]): row for row in results["rows"]})
    assert "only try the harness" in results["provisional"]
    assert "stopped" not in results["provisional"]
    machine = {"processor", "cores", "allocator", "load_before", "load_after"}
    assert results["machine"].keys() >= machine
    text = benchmark("show", "--out", str(out))
    assert "| sinusoid, 25 tasks, compiled, many seeds: times faster" in text
    assert "not measured" in text
    assert "cost against tasks: Conv4-64 28x28 1-shot" in text
    assert "where the time of a call goes" in text
    assert out.with_suffix(".png").stat().st_size > 5000


def test_a_page_keeps_what_stands_around_the_results(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{show.BEGIN}\nold\n{show.END}\nafter\n")
    for _ in range(2):
        show.into(page, "new")
    assert page.read_text() == f"before\n{show.BEGIN}\n\nnew\n{show.END}\nafter\n"


@pytest.mark.parametrize(
    ("page", "marks", "file", "form"),
    [
        ("benchmarks/README.md", (show.BEGIN, show.END), "speed.json", show.markdown),
        ("benchmarks/README.md", show.GRAPHS, "graphs.json", show.graphs),
        ("benchmarks/README.md", show.GPU, "gpu.json", show.gpu),
    ],
)
def test_pages_show_the_committed_results(page, marks, file, form):
    assert shown(page, marks) == form(committed(file)).strip()


def committed(file: str) -> dict:
    return json.loads((RESULTS / file).read_text())


def shown(page: str, marks: tuple[str, str]) -> str:
    _, begin, rest = (measure.ROOT / page).read_text().partition(marks[0])
    assert begin
    return rest.partition(marks[1])[0].strip()


def test_the_readme_shows_three_rows():
    made = show.brief(committed("speed.json"), committed("gpu.json")).strip()
    assert shown("README.md", show.BRIEF) == made
    assert len(made.splitlines()) == 2 + 3


def test_a_plan_takes_the_rates_that_were_measured_on_the_slower_gpu():
    rates = [hours.rates(committed(file)) for file in hours.MEASURED.values()]
    slower = {key: min(each[key] for each in rates) for key in rates[0]}
    assert pytest.approx(slower, rel=0.03) == cost.GPU_FLOPS


@pytest.mark.slow
def test_the_hours_of_the_papers_tables_are_those_of_the_committed_rates(monkeypatch):
    """Counting the FLOPs of every kind of run takes a minute."""
    monkeypatch.chdir(measure.ROOT)
    assert shown("docs/reproduce.md", show.HOURS) == hours.paper(RESULTS)
    kept = work.counted(cached(config.merged([hours.STUDY]), hours.STUDY))
    assert cost.summary(kept).startswith("study paper: ")


def test_the_table_of_graphs_says_what_is_missed_and_by_how_much():
    made = {"date": "2026-01-01", "commit": "0", "versions": {"torch": "0"}}
    machine = {"processor": "p", "load_before": 0.0, "load": 0.1}
    fast = {
        "workload": "w",
        "implementation": "fast",
        "times_faster": 20.0,
        "official_elsewhere": 2.0,
        "target": 0.04,
    }
    plain = {"workload": "w", "implementation": "plain", "seconds": 1.0, "processor": 1.0}
    rows = [
        {**row, "threads": threads}
        for threads in (2, 1)
        for row in ({**fast, "seconds": 0.05, "processor": 0.3}, plain)
    ]
    assert "missed by 25%" in show.graphs({**made, "machine": machine, "rows": rows})
    rows[0]["seconds"] = 0.04
    assert "reached" in show.graphs({**made, "machine": machine, "rows": rows})
