"""A user's paths are expanded alike in a configuration, a command line and the Python API."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import cml_bench
from cml_bench import registry
from cml_bench.__main__ import main
from cml_bench.data.loader import open_data
from cml_bench.errors import UserError
from cml_bench.study import config, plan
from cml_bench.study.plan import read_plan
from cml_bench.study.resolve import resolve
from cml_bench.system import paths
from tests.helpers.cases import said
from tests.helpers.plans import dumped
from tests.helpers.studies import study

ROOT = Path(__file__).parent.parent
DIGEST = "0" * 64


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A home and a scratch folder with dollar signs in their names; work is done elsewhere."""
    for name in ("work", "h$HOME", "s$$x"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "h$HOME"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "s$$x"))
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.delenv("CML_BENCH_PLAN", raising=False)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "h$HOME"


WRITTEN = [
    "~/a b",
    "$SCRATCH/a",
    "${SCRATCH}a/b",
    "~",
    "a/~b",
    "a/~nobody-here",
    "$$x/y",
    "a$",
    "$5",
    "a/../b/",
]


def meant(text: str, home: Path) -> str:
    """The paths that are meant, written by hand."""
    scratch = str(home.parent / "s$$x")
    text = text.replace("${SCRATCH}", scratch).replace("$SCRATCH", scratch)
    return {"~": str(home), "~/a b": f"{home}/a b", "$$x/y": "$x/y"}.get(text, text)


@pytest.mark.parametrize("text", WRITTEN)
def test_a_path_is_expanded_once_and_alike_everywhere(text, home):
    wanted = meant(text, home)
    assert paths.expanded(text, "results") == wanted
    sources = {"omniglot": {"images_background.zip": {"path": text, "sha256": DIGEST}}}
    parsed = config.parse(
        study(results=text, data_dir=text, published=text, sources=sources), "my.yaml"
    )
    copy = parsed.sources["omniglot"]["images_background.zip"]
    assert [parsed.results, parsed.data_dir, parsed.published, copy.path] == [wanted] * 4
    args = argparse.Namespace(
        results=Path(text), config=[Path(text), Path("b")], tables=["$UNSET"], data_dir=None
    )
    paths.from_command_line(args)
    assert args == argparse.Namespace(
        results=Path(wanted), config=[Path(wanted), Path("b")], tables=["$UNSET"], data_dir=None
    )
    assert paths.given(text, "run") == paths.given(Path(text), "run") == Path(wanted)


def test_the_home_of_a_user_who_is_named(monkeypatch):
    monkeypatch.setenv("WHO", "root")
    home = os.path.expanduser("~root")
    assert [paths.expanded(text, "x") for text in ("~root/a", "~$WHO/a")] == [f"{home}/a"] * 2
    monkeypatch.setenv("SCRATCH", "~root")  # a value from a file, not expanded by a shell
    assert paths.expanded("$SCRATCH/a", "x") == f"{home}/a"


UNMEANT = {
    "$UNSET/a": "the variable 'UNSET' is not set here",
    "a/${UNSET}": "the variable 'UNSET' is not set here",
    "$EMPTY/a": "the variable 'EMPTY' is not set here",
    "${}/a": "the variable '' is not set here",
    "${NOT A NAME}": "the variable 'NOT A NAME' is not set here",
    "~nobody-here/a": "there is no home folder ~nobody-here here",
    "~\ud800/a": "there is no home folder",
}


@pytest.mark.parametrize("text", UNMEANT)
def test_what_means_nothing_here_is_refused_by_key(text):
    sources = {"omniglot": {"images_background.zip": {"path": text, "sha256": DIGEST}}}
    places = {"results": text, "data_dir": text, "published": text, "include": [text]}
    for key, value in [*places.items(), ("sources", sources)]:
        named = "sources.omniglot.images_background.zip.path" if key == "sources" else key
        with pytest.raises(UserError) as caught:
            config.parse(config.included(study(**{key: value}), "my.yaml"), "my.yaml")
        if "\ud800" not in text:  # half a character is refused as no text
            assert str(caught.value).startswith(
                f"my.yaml: {named} is {text!r}, and {UNMEANT[text]}"
            )
    for name, call in {
        "run": lambda: cml_bench.load(text),
        "results": lambda: cml_bench.load("0123abcd", results=text),
        "data_dir": lambda: cml_bench.load("0123abcd", data_dir=Path(text)),
        "folder": lambda: open_data("glyphs", folder=text, size=16),
    }.items():
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value).startswith(f"{name} is {text!r}, and {UNMEANT[text]}")


COMMANDS = {
    "results": ["status", "--config", "my.yaml", "--results"],
    "config": ["plan", "--config", "my.yaml"],
    "plan": ["table", "--plan"],
    "data-dir": ["fetch", "glyphs", "--data-dir"],
    "stamp": ["fetch", "glyphs", "--stamp"],
    "out": ["plan", "--config", "my.yaml", "--out"],
    "reference": ["check", "--reference"],
    "run-folder": ["evaluate"],
    "spec": ["train"],
}


@pytest.mark.parametrize("option", COMMANDS)
def test_every_path_of_a_command_is_checked_before_anything_is_done(option, home, capsys):
    told = said(capsys, *COMMANDS[option], "$UNSET/a")
    assert (
        f"error: {option} is '$UNSET/a', and the variable 'UNSET' is not set here: set it" in told
    )
    assert "there is no home folder ~nobody-here here" in said(
        capsys, *COMMANDS[option], "~nobody-here/a"
    )
    assert not list(Path.cwd().iterdir())


@pytest.fixture
def made(monkeypatch) -> list[Path]:
    """The data folders in which glyphs were to be prepared."""
    folders = []
    monkeypatch.setattr(
        registry.datasets.get("glyphs"),
        "prepare",
        lambda self, folder, local: folders.append(folder),
    )
    return folders


def test_commands_find_and_write_what_the_text_means(home, made, capsys):
    assert main(["fetch", "glyphs", "--data-dir", "$SCRATCH/d", "--stamp", "~/s.json"]) == 0
    assert made == [home.parent / "s$$x" / "d"]
    assert "there is no file " + str(home / "run.json") in said(capsys, "train", "~/run.json")
    assert [path.name for path in home.iterdir()] == ["s.json"]
    assert not list(Path.cwd().iterdir())


def test_what_the_workflow_starts_is_given_paths_that_are_expanded_already(home, made, monkeypatch):
    monkeypatch.setenv("CML_BENCH_PLAN", "results/plans/a.json")
    stamp = home / "$HOME" / "~" / "s.json"
    assert main(["fetch", "glyphs", "--data-dir", "$UNSET/d", "--stamp", str(stamp)]) == 0
    assert stamp.exists()
    assert made == [Path("$UNSET/d")]


def test_a_plan_holds_paths_as_they_are(home):
    content = study(results="~/r", data_dir="$SCRATCH/d")
    plan = resolve(config.parse(content, "t"), "t")
    wanted = (f"{home}/r", f"{home.parent}/s$$x/d")
    assert (plan.study.results, plan.study.data_dir) == wanted
    Path("plan.json").write_text(dumped(plan), encoding="utf-8")
    again = read_plan(Path("plan.json")).study
    assert (again.results, again.data_dir) == wanted
    assert list(plan.specs) == list(resolve(config.parse(study(), "t"), "t").specs)


def test_a_variable_that_means_another_folder_is_another_plan(home, monkeypatch):
    made = resolve(config.parse(study(), "t"), "t")
    monkeypatch.setattr(plan, "_resolved_apart", lambda *_: made)
    content = study(results="r", data_dir="$SCRATCH/d")
    one = plan.cached(content, "t").path
    assert plan.cached(content, "t").path == one
    monkeypatch.setenv("SCRATCH", str(home))
    assert plan.cached(content, "t").path != one


def test_included_files_are_found(home):
    (home / "part.yaml").write_text(yaml.safe_dump({"tables": study()["tables"]}), encoding="utf-8")
    for text in ("~/part.yaml", ["$HOME/part.yaml"], ["${HOME}/part.yaml"]):
        content = {key: value for key, value in study().items() if key != "tables"}
        assert config.included({**content, "include": text}, "t")["tables"] == study()["tables"]


@pytest.mark.slow
def test_a_study_lands_in_one_folder(home):
    """Under Snakemake, the plan and the jobs' files are in the same folder."""
    content = study(results="$SCRATCH/r", data_dir="~/d")
    (home / "tiny.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--cores",
        "1",
        "-s",
        str(ROOT / "Snakefile"),
    ]
    command += ["--configfile", str(home / "tiny.yaml"), "--config", "results=~/r"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    assert {path.name for path in home.iterdir()} - {".cache"} == {"r", "tiny.yaml"}
    (planned,) = set((home / "r" / "plans").glob("*.json")) - set(
        (home / "r" / "plans").glob("*.config.json")
    )
    kept = json.loads(planned.read_text(encoding="utf-8"))["study"]
    assert (kept["results"], kept["data_dir"]) == (f"{home}/r", f"{home}/d")
    assert set(re.findall(r"(\S*/)logs/", done.stdout)) == {f"{home}/r/"}
    assert not list((home.parent / "s$$x").iterdir())
    assert {path.name for path in Path.cwd().iterdir()} <= {".snakemake"}
