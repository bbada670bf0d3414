"""What is loaded before anything is computed: planning and training start without a compiler."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def modules(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


def test_the_compiler_is_loaded_by_the_compiled_path_alone():
    loaded = modules("import cml_bench.engine.jobs")
    assert "cml_bench.engine.compiled" in loaded
    assert not {"torch._inductor", "torch._dynamo"} & loaded


def test_a_plan_for_a_file_loads_neither_the_engine_nor_the_compiler(tmp_path):
    out = tmp_path / "plan.json"
    loaded = modules(
        "from cml_bench.__main__ import main\n"
        f"assert main(['plan', '--config', 'configs/ci.yaml', '--out', {str(out)!r}]) == 0"
    )
    assert out.exists()
    assert "cml_bench.methods.maml" in loaded
    assert not {"cml_bench.engine", "cml_bench.costs", "torch._inductor"} & loaded
