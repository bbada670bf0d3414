"""The compiled path from spec to record: when it is taken, what it is given, what processes share.

That it computes what the others do: tests/test_methods.py, test_seeds.py.
"""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from cml_bench.engine import compiled
from cml_bench.engine.run import run
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
    """256 tasks are drawn at a time: a meta-batch of 100 is at times a part of them, at times
    joined of two parts.
    """
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
    """As the jobs of a study: another seed, nothing compiled anew."""
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
