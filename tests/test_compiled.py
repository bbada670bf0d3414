"""The compiled path: when it is taken, how steps are traced and simplified, what processes share.

That compiled runs equal the others: test_methods.py and test_seeds.py.
"""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from cml_bench.engine import compiled
from cml_bench.engine.compiled import CompiledStep, available
from cml_bench.engine.run import run
from tests.helpers.cases import Case, random, relative, waves
from tests.helpers.runs import tensors
from tests.helpers.specs import sinusoid_spec


def test_without_a_compiler_auto_computes_operation_by_operation(settings, monkeypatch):
    monkeypatch.setattr(compiled, "WORTHWHILE", 5)
    monkeypatch.setenv("CXX", "no-such-compiler")
    record = run(sinusoid_spec(steps=8), replace(settings, path="auto"))
    assert record.content["engine"]["path"] == "fast"


def test_without_pythons_headers_auto_computes_operation_by_operation(
    settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(compiled, "WORTHWHILE", 5)
    monkeypatch.setattr(compiled.sysconfig, "get_path", lambda name: str(tmp_path))
    record = run(sinusoid_spec(steps=8), replace(settings, path="auto"))
    assert record.content["engine"]["path"] == "fast"


@pytest.mark.slow
def test_a_compiled_step_takes_batches_of_two_blocks_of_tasks(settings, tmp_path):
    """Tasks are drawn in blocks of 256: a meta-batch of 100 may be joined from two blocks."""
    if not compiled.available():
        pytest.skip("no C++ compiler: the compiled path is not offered")
    spec = sinusoid_spec(
        "maml+cml",
        steps=6,
        protocol_options={"meta_batch": 100, "val_every": 6},
        precision="float64",
    )
    ours = run(spec, replace(settings, path="compiled"))
    theirs = run(spec, replace(settings, path="fast", results=tmp_path / "fast"))
    for key, value in tensors(theirs, "last").items():
        assert (tensors(ours, "last")[key] - value).abs().max() < 1e-8


@pytest.mark.slow
def test_the_next_process_finds_a_compiled_program_on_the_disk(settings, data_dir, tmp_path):
    """The next process trains another seed, as a study's next job does, and compiles nothing."""
    if not compiled.available():
        pytest.skip("no C++ compiler: the compiled path is not offered")
    made = []
    for seed in (0, 1):
        (tmp_path / "spec.json").write_text(sinusoid_spec("maml+cml", seed=seed).model_dump_json())
        command = [sys.executable, "-m", "cml_bench", "train", "spec.json", "--engine", "compiled"]
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
        subprocess.run(
            [*command, "--data-dir", str(data_dir)],
            cwd=tmp_path,
            env=os.environ | cache,
            check=True,
        )
        made.append({path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.so")})
    assert made[0]
    assert made[0] == made[1]


def test_a_sum_over_tasks_of_products_is_traced_as_one_product(monkeypatch):
    case, task = Case("maml", "mlp"), waves(tasks=6)
    step = case.step(made=CompiledStep)
    arguments = [
        *(p.detach() for params in case.groups.values() for p in params.values()),
        *task.support,
        *task.query,
    ]

    def traced() -> tuple[tuple, list]:
        graph = step.traced(arguments)
        return graph(*arguments), [
            node.target.name() for node in graph.graph.nodes if node.op == "call_function"
        ]

    with torch.no_grad():
        monkeypatch.setattr(compiled, "simplified", lambda graph: graph)
        want, before = traced()
        monkeypatch.undo()
        got, after = traced()
    # The hidden layer's weight gradient sums three products; two of them are used nowhere else.
    assert (before.count("aten::bmm"), after.count("aten::bmm")) == (8, 6)
    assert after.count("aten::mm") == before.count("aten::mm") + 2
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", ["maml", "maml+cml", "mamlpp"])
def test_gradients_of_a_traced_step_lie_as_their_parameters(name, monkeypatch):
    """The fused Adam pairs entries of gradients and parameters by their place in memory."""
    monkeypatch.setattr(compiled, "compiled", lambda graph, arguments: graph)
    case = Case(name, "mlp")
    case.step(made=CompiledStep).gradients(waves(tasks=6))
    for p in (p for params in case.groups.values() for p in params.values()):
        assert p.grad.stride() == p.stride()


def _total(x: torch.Tensor) -> torch.Tensor:
    return x.sum(0, keepdim=True)


@pytest.mark.parametrize("tasks", [1, 4])
@pytest.mark.parametrize(
    "work",
    [
        lambda a, b, c: _total(torch.bmm(a, b)),
        lambda a, b, c: _total(torch.bmm(a, b).transpose(1, 2) + torch.bmm(a, b).transpose(1, 2)),
        lambda a, b, c: _total(torch.add(torch.bmm(a, b), torch.bmm(a, b), alpha=3)),
        lambda a, b, c: _total(torch.bmm(a, b) + a[:, :, :1]),
        lambda a, b, c: torch.sum(
            torch.bmm(a.float(), b.float()), 0, keepdim=True, dtype=torch.float64
        ),
        lambda a, b, c: _total(torch.bmm(_total(torch.bmm(a, b)), c[:1])),
        lambda a, b, c: ((x := a * 1), (y := torch.bmm(x, b)), x.mul_(2), _total(y))[3],
        lambda a, b, c: ((x := a * 1), (y := _total(torch.bmm(a, b) + x @ b)), x.mul_(2), y)[3],
        lambda a, b, c: (torch.bmm(a, b).transpose(1, 2) * 2).permute(0, 2, 1).reshape(len(a), -1),
    ],
)
def test_a_traced_graph_stays_what_it_is(work, tasks):
    arguments = [random(tasks, *shape) for shape in ((5, 3), (3, 6), (6, 2))]
    got = compiled.simplified(make_fx(work)(*arguments))(*arguments)
    want = work(*arguments)
    assert got.dtype == want.dtype
    assert torch.allclose(got, want, rtol=1e-13, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first_order"),
    [
        *((name, False) for name in ("maml+cml", "mamlpp", "boil", "sharp_maml", "cl")),
        ("maml+cml", True),
    ],
)
def test_the_compiled_step_is_the_obvious_loop(name, first_order):
    """Also after a schedule has changed (MAML++: weights and order of an epoch)."""
    if not available():
        pytest.skip("no C++ compiler: the compiled path is not offered")
    options = (
        {"epoch_steps": 1, "msl_epochs": 2, "first_order_to_second_order_epoch": 0}
        if name == "mamlpp"
        else {}
    )
    options |= {"rho_low": 0.03, "rho_up": 0.05} if name == "sharp_maml" else {}
    case, task = Case(name, "mlp", inner_steps=2, first_order=first_order, **options), waves()
    leaf = {(g, n): p for g, params in case.groups.items() for n, p in params.items()}
    step = CompiledStep(case.method, case.groups, torch.optim.SGD(leaf.values(), lr=1.0), 3)
    for epoch in (0, 1, 3) if name == "mamlpp" else (0,):
        case.method.at_step(epoch)
        before = {k: p.detach().clone() for k, p in leaf.items()}
        scores = step(task)
        got = {k: before[k] - p.detach() for k, p in leaf.items()}
        with torch.no_grad():
            for k, p in leaf.items():
                p.copy_(before[k])
        want = case.received(task)
        assert relative(got, want) < 1e-10
        assert set(scores.loss) == set(case.method.heads)
    assert len(step._by_phase) == (3 if name == "mamlpp" else 1)
