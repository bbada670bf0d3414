"""The workflow with a wrong configuration, and with a torch that cannot be imported."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.checkouts import ROOT
from tests.helpers.studies import changed, study


def snakemake(
    folder: Path, *arguments: str, path: Path | None = None
) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path or "")}
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "-n", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """The workflow in a folder of its own."""
    for name in ("workflow", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    return tmp_path


@pytest.mark.slow
def test_with_a_cached_plan_the_workflow_is_parsed_without_torch(checkout):
    """A package called torch that cannot be imported stands first on the path."""
    (checkout / "my.yaml").write_text(yaml.safe_dump(study()))
    (checkout / "blocked" / "torch").mkdir(parents=True)
    (checkout / "blocked" / "torch" / "__init__.py").write_text(
        "raise ImportError('torch was imported')\n"
    )
    arguments = ("--configfile", "my.yaml")
    cold = snakemake(checkout, *arguments, path=checkout / "blocked")
    assert "torch was imported" in cold.stdout + cold.stderr, "resolving needs it"
    assert snakemake(checkout, *arguments).returncode == 0
    warm = snakemake(checkout, *arguments, path=checkout / "blocked")
    assert warm.returncode == 0, warm.stderr[-2000:]
    assert re.search(r"^train +8$", warm.stdout + warm.stderr, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"study": None},
            "the configuration has no `study`, its name: add a line such as `study: mine`.",
        ),
        (
            {"tables": {"train": study()["tables"]["sinusoid"]}},
            "cannot be called 'train', the name is taken",
        ),
        ({"seeds": 200_000}, "there can be at most 1,000 seeds"),
        (
            {"experiments": changed("experiments.s.network", "conv4")["experiments"]},
            "conv4 takes images",
        ),
    ],
    ids=["no name", "a rule's name", "too many seeds", "a network that does not fit"],
)
def test_the_workflow_says_what_is_wrong_without_a_traceback(change, message, checkout):
    content = {key: value for key, value in {**study(), **change}.items() if value is not None}
    (checkout / "my.yaml").write_text(yaml.safe_dump(content))
    done = snakemake(checkout, "--configfile", "my.yaml")
    assert done.returncode != 0
    text = done.stdout + done.stderr
    assert message in text.replace("\n", " ")
    assert "Traceback" not in text
    assert "error: " not in text, "of the planning process"
