"""``cml-bench run``: the workflow from any folder, of a clone or of an installed wheel."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cml_bench.__main__ import main
from cml_bench.errors import UserError
from cml_bench.study import new
from cml_bench.study.config import merged
from cml_bench.system import workflow
from tests.helpers.cases import said
from tests.helpers.checkouts import CONFIG

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> Path:
    """The working folder is empty but for a configuration."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def test_snakemake_takes_the_place_of_the_command(monkeypatch):
    started = []
    monkeypatch.setenv("CML_BENCH_COMMAND", "")  # so that it is put back
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    assert main(["run", "mine.yaml", "--cores", "2", "table1", "-n"]) == 0
    (words,) = started
    assert os.environ["CML_BENCH_COMMAND"] == "cml-bench run mine.yaml --cores 2 table1 -n"
    assert words[:3] == [sys.executable, "-m", "snakemake"]
    assert words[3] == f"--snakefile={ROOT / 'Snakefile'}"
    assert words[4:6] == [
        f"--workflow-profile={ROOT / 'profiles' / 'default'}",
        "--configfile=mine.yaml",
    ]
    assert words[6:] == ["--cores=all", "--cores", "2", "table1", "-n"]


def test_a_configuration_that_is_not_here_may_be_the_packages(capsys):
    assert f"--configfile={ROOT / 'configs/demo.yaml'}" in workflow.command(
        Path("configs/demo.yaml"), []
    )
    told = said(capsys, "run", "nowhere.yaml")
    assert f"there is no configuration file nowhere.yaml, here or in {ROOT}." in told


def test_every_command_finds_the_packages_configurations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert merged(["configs/demo.yaml"])["study"] == "demo"
    with pytest.raises(UserError, match=r"there is no configuration file configs/nowhere.yaml\."):
        merged(["configs/nowhere.yaml"])
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text("study: mine")
    assert merged(["configs/demo.yaml"])["study"] == "mine", "one's own comes first"


def test_without_a_clone_the_installation_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(workflow, "CLONE", tmp_path)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    with pytest.raises(UserError, match=r"the workflow is missing: there is neither .* Install"):
        workflow.snakefile()

    class Installed(type(Path())):
        def locate(self):
            return tmp_path / "prefix" / self

    home = tmp_path / "prefix" / "share" / "cml_bench"
    home.mkdir(parents=True)
    shutil.copy(ROOT / "Snakefile", home)
    listed = [Installed("x.py"), Installed("share/cml_bench/Snakefile")]
    monkeypatch.setattr(importlib.metadata, "files", lambda name: listed)
    assert workflow.snakefile() == home / "Snakefile"
    # `pip install --target` puts it beside the package, and lists another place.
    monkeypatch.setattr(workflow, "CLONE", tmp_path / "prefix")
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    assert workflow.snakefile() == home / "Snakefile"


@pytest.mark.slow
def test_an_installed_wheel_runs_a_study_with_plug_ins_in_an_empty_folder(tmp_path):
    """The dependencies are this environment's; the package and the workflow are the wheel's."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"
    for name in (
        "cml_bench",
        "snakemake_logger_plugin_cml_bench",
        "workflow",
        "profiles",
        "configs",
    ):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={tmp_path}", str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    put = ["install", "--no-deps", "--ignore-installed", f"--prefix={tmp_path / 'installed'}"]
    subprocess.run([*pip, *put, str(wheel)], check=True)
    (packages,) = (tmp_path / "installed").glob("lib/python*/site-packages")
    folder = tmp_path / "empty"
    new.write("method", "headonly", folder / "mine")
    tiny = {**CONFIG["experiments"]["sinusoid"], "methods": {"headonly": {}, "headonly+cml": {}}}
    study = {"study": "mine", "plugins": ["mine"], "seeds": 1, "experiments": {"e": tiny}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(study))
    environment = {**os.environ, "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}

    def ran(*words: str | Path) -> str:
        done = subprocess.run(
            words, cwd=folder, capture_output=True, encoding="utf-8", env=environment
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    asked = "import cml_bench.system.workflow as w; print(w.__file__, w.snakefile(), sep='\\n')"
    module, snakefile = ran(sys.executable, "-c", asked).split()
    assert Path(module).is_relative_to(packages)
    assert Path(snakefile).is_relative_to(tmp_path / "installed")
    ran(tmp_path / "installed" / "bin" / "cml-bench", "run", "mine.yaml", "--cores", "2", "all")
    assert len(list(folder.glob("results/runs/headonly*/record.json"))) == 2
    assert (folder / "results" / "mine" / "report.html").exists()
