"""The Makefile in a folder with an awkward name, with values that a shell would split or expand."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLACE = "my drive/$x & o'neil/copy (1)"
ODD = "R&D $x/o'neil's \"`a`\".yaml"  # one word for a shell that quotes it
# A program that writes down its name and its words. For `python -m venv FOLDER` it copies itself.
PROGRAM = r"""#!/bin/sh
{ printf '%s\037' "${0##*/}" "$@"; echo; } >> "$CALLS"
[ "$1 $2" = "-m venv" ] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python" || true
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A checkout whose .venv is ready and holds only the program above."""
    home = tmp_path / PLACE
    home.mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, home / name)
    shutil.copytree(ROOT / "benchmarks" / "peers", home / "benchmarks" / "peers")
    for place in (
        home / ".venv" / "bin" / "python",
        tmp_path / "bin" / "git",
        tmp_path / "own python's" / "python3",
    ):
        place.parent.mkdir(parents=True)
        place.write_text(PROGRAM)
        place.chmod(0o755)
    (home / ".venv" / ".ready").touch()
    return home


def make(
    home: Path, *words: str, **environment: str
) -> tuple[subprocess.CompletedProcess, list[list[str]]]:
    """Run make; its result, and the words of every call of a program, in order."""
    calls = home / "calls"
    path = f"{home.parents[2] / 'bin'}:{os.environ['PATH']}"
    given = {**os.environ, "PATH": path, "CALLS": str(calls), "x": "expanded", **environment}
    done = subprocess.run(
        ["make", *words], cwd=home, capture_output=True, text=True, encoding="utf-8", env=given
    )
    lines = calls.read_text().splitlines() if calls.exists() else []
    return done, [line.split("\037")[:-1] for line in lines]


def test_a_sitting_of_a_study_gets_its_values_as_they_are(folder):
    done, calls = make(
        folder, "study", f"STUDY={ODD}", "SHARD=2/4 & x", LOCAL="my $x (own).yaml", CORES="2; x"
    )
    assert done.returncode == 0, done.stderr
    assert calls == [
        [
            "python",
            "-m",
            "snakemake",
            "--cores=2; x",
            "--configfile",
            ODD,
            "my $x (own).yaml",
            "--config",
            "shard=2/4 & x",
            "--",
            "trained",
        ],
        ["python", "-m", "cml_bench", "publish", "--partial", f"--config={ODD}"],
        ["git", "add", "results/reference"],
        [
            "git",
            "commit",
            "--quiet",
            "--message",
            f"Records of {ODD}, part 2/4 & x",
            "--",
            "results/reference",
        ],
    ]


def test_every_other_target_runs_by_the_clones_own_python(folder):
    targets = (
        "demo",
        "test-gpu",
        "gate",
        "gate-reference",
        "plan",
        "benchmark",
        "lint",
        "format",
        "traces",
    )
    (folder / "R&D $x").mkdir()
    done, calls = make(folder, *targets, f"PLAN={ODD}", "ARGS=-k 'a b' $$x", PEERS=".venv-peers")
    assert done.returncode == 0, done.stderr
    assert {call[0] for call in calls} == {"python"}
    modules = [call[2] for call in calls if call[1] == "-m"]
    assert {
        "snakemake",
        "pytest",
        "cml_bench",
        "benchmarks",
        "ruff",
        "snakefmt",
        "mypy",
        "tests.make_traces",
    } == set(modules)
    assert ["python", "-m", "pytest", "-m", "gpu", "-k", "a b", "expanded"] in calls, (
        "ARGS are words, as typed"
    )
    assert (folder / ODD).exists(), "the plan"


def test_an_environment_is_made_in_such_a_folder_by_such_a_python(folder, tmp_path):
    (folder / ".venv" / ".ready").unlink()
    python, index = tmp_path / "own python's" / "python3", "https://a.example/?b=1&c=$x"
    done, calls = make(folder, "setup", PYTHON=str(python), TORCH_INDEX=index)
    assert done.returncode == 0, done.stderr
    assert calls[:2] == [["python3", "--version"], ["python3", "-m", "venv", ".venv"]]
    assert calls[2][:5] == ["python", "-m", "pip", "install", "--quiet"]
    assert calls[2][-1] == f"--index-url={index}"
    assert (folder / ".venv" / ".ready").exists()


def test_the_site_has_an_environment_of_its_own(folder, tmp_path):
    (folder / "requirements-docs.txt").touch()
    done, calls = make(folder, "docs", PYTHON=str(tmp_path / "own python's" / "python3"))
    assert done.returncode == 0, done.stderr
    assert calls == [
        ["python3", "-m", "venv", ".venv-docs"],
        ["python", "-m", "pip", "install", "--quiet", "-r", "requirements-docs.txt"],
        ["python", "-m", "mkdocs", "build", "--strict"],
    ]


def test_a_folder_that_make_cannot_take_is_refused(folder):
    done, calls = make(folder, "setup", VENV="my venv")
    assert done.returncode != 0
    assert 'VENV is "my venv", and make cannot take a folder whose name has a space' in done.stderr
    assert calls == []
    assert not (folder / "my venv").exists()


def test_no_recipe_calls_a_script_of_the_environment_by_name():
    """The first line of a script holds the environment's path, which may be misread."""
    recipes = re.findall(r"^\t(.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = [
        line
        for line in recipes
        if re.search(r"(^|[;&|]\s*)(snakemake|pytest|ruff|snakefmt|pip)\b", line)
    ]
    assert named == []
    assert [
        line
        for line in recipes
        if re.search(r"\$\((VENV|BIN|PYTHON|CORES|STUDY|LOCAL|SHARD|PLAN|PEERS|DOCS)\)", line)
    ] == []
