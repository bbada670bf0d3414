"""What is loaded before anything is computed: planning and training start without a compiler."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cml_bench.costs import estimate
from cml_bench.engine.build import Settings
from cml_bench.engine.run import run
from cml_bench.records import Store
from cml_bench.study import work
from tests.helpers.specs import sinusoid_spec

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


def test_a_training_loads_no_report_libraries_and_no_compiler_if_its_flops_are_known(tmp_path):
    spec = sinusoid_spec("maml+cml", steps=2)
    counted = run(spec, Settings(results=tmp_path / "counted", report=lambda text: None))
    work.keep(work.cache_of(tmp_path), work.kind(spec), estimate._count(spec))
    file = tmp_path / "spec.json"
    file.write_text(spec.model_dump_json())
    command = ["train", str(file), "--results", str(tmp_path), "--engine", "fast"]
    loaded = modules(f"from cml_bench.__main__ import main\nassert main({command!r}) == 0")
    assert "cml_bench.engine.compiled" in loaded
    assert not {"torch._inductor", "torch._dynamo"} & loaded
    assert not {"torchvision", "pandas", "scipy", "matplotlib", "sklearn"} & loaded
    record = Store(tmp_path).read(spec)
    assert record.content["flops"] == counted.content["flops"]
    assert record.content["curves"]["train"] == counted.content["curves"]["train"]


def test_a_plan_for_a_file_loads_neither_the_engine_nor_the_compiler(tmp_path):
    out = tmp_path / "plan.json"
    loaded = modules(
        "from cml_bench.__main__ import main\n"
        f"assert main(['plan', '--config', 'configs/ci.yaml', '--out', {str(out)!r}]) == 0"
    )
    assert out.exists()
    assert "cml_bench.methods.maml" in loaded
    assert not {"cml_bench.engine", "cml_bench.costs", "torch._inductor"} & loaded


@pytest.mark.parametrize("words", [["--help"], ["list", "--help"], ["completion", "--help"]])
def test_help_loads_nothing_that_computes(words):
    loaded = modules(
        "from cml_bench.__main__ import main\n"
        f"try: main({words!r})\n"
        "except SystemExit as stop: assert not stop.code\n"
    )
    assert "cml_bench.commands_show" in loaded
    assert not {"torch", "scipy", "pandas", "matplotlib", "snakemake", "shtab"} & loaded


def test_a_plan_that_is_kept_with_its_counts_is_printed_without_torch(tmp_path):
    config = tmp_path / "config.json"
    whole = yaml.safe_load((ROOT / "configs" / "sinusoid.yaml").read_text())
    config.write_text(json.dumps(whole | {"results": str(tmp_path / "results")}))

    def printed(*options: str) -> set[str]:
        command = ["plan", "--config", str(config), *options]
        return modules(
            f"from cml_bench.__main__ import main\nassert main({command!r}) == 0\nprint()"
        )

    printed("--json")
    assert not {"torch", "cml_bench.study.resolve"} & printed("--json")
    detectable = printed("--calibrate", "0", "--spread", "1.5")
    assert "What can be detected with 80 % power" in "\n".join(detectable)
    assert "cml_bench.evidence.power" in detectable
    assert not {"torch", "cml_bench.study.resolve", "scipy.stats", "pandas"} & detectable
