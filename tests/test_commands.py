"""What the command line says of itself: examples, lists, completions; and data fetched by study."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from cml_bench import command_line, registry
from cml_bench.__main__ import COMMANDS, main
from cml_bench.methods.base import Method
from cml_bench.study import offers, plan
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.cases import said
from tests.helpers.checkouts import CONFIG

ROOT = Path(__file__).parent.parent
NETWORK_AND_SHOT = ["--method", "maml", "--network", "mlp", "--data", "sinusoid", "--shot", "5"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_help_of_every_command_ends_with_an_example_that_the_command_takes(command, capsys):
    parser = command_line.parser("", COMMANDS, "")
    for line in command.example.splitlines():
        words = shlex.split(line.partition(" > ")[0])
        assert words[:4] == ["python", "-m", "cml_bench", command.name]
        assert parser.parse_args(words[3:]).run is command.run
        assert all((ROOT / word).exists() for word in words if word.startswith("configs/"))
    with pytest.raises(SystemExit):
        parser.parse_args([command.name, "--help"])
    shown = capsys.readouterr().out
    assert all(f"\n  {line}" in shown for line in command.example.splitlines())


def test_the_help_of_the_program_ends_with_examples_that_it_takes(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out.partition("\nexamples:\n")[2].splitlines()
    assert len(shown) >= 2
    for line in shown:
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "cml_bench"]
        assert all((ROOT / word).exists() for word in words if word.startswith("configs/"))
        assert command_line.parser("", COMMANDS, "").parse_args(words[3:])


# -- list and describe


def registered(kind: str) -> list[type]:
    """The classes of a kind."""
    known = {"methods": registry.methods, "data": registry.datasets, "networks": registry.networks}
    return [known[kind].get(name) for name in known[kind].names()]


@pytest.mark.parametrize("kind", offers.KINDS)
def test_list_explains_each_name_and_each_of_its_options(kind, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", kind]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    blocks = {block.split(":")[0].split(" ")[0]: block for block in shown.split("\n\n")}
    for cls in registered(kind):
        words = " ".join(blocks[cls.name].split())
        explained = offers.explanation(cls)
        assert explained, cls.name
        assert explained in words
        for name, field in cls.Options.model_fields.items():
            assert f" {name}" in words
            assert " ".join(field.description.split()) in words or name == "cml"


def test_list_without_a_kind_tells_every_name_of_each_kind_in_short(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.split("\n\n")) == len(offers.KINDS)
    for kind, block in zip(offers.KINDS, shown.split("\n\n"), strict=True):
        assert block.startswith(f"{kind}, with their options: python -m cml_bench list {kind}\n")
        words = " ".join(block.split())
        for cls in registered(kind):
            assert re.search(rf"\n  {cls.name}\b.*:", block), cls.name
            assert offers.explanation(cls) in words
    assert " = " not in shown.replace("y = A", ""), "no options"
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        kind: offers.names(kind) for kind in offers.KINDS
    }


def test_what_a_co_learner_adds_is_told_once():
    shown = offers.text("methods", 100)
    block = shown.split("\n\n")[-1]
    assert "maml (and maml+cml): model-agnostic" in shown
    assert "pixel_nn: nearest" in shown
    assert block.startswith("x+cml: ")
    assert block.count(" = ") == block.count("    cml.") == 4
    assert "cml.norm = own      (own | none | body) what normalises" in block


def test_a_plug_in_is_explained_by_its_class_where_its_file_does_not_name_it():
    assert offers.explanation(registry.methods.get("maml")).startswith("model-agnostic")

    class Plugged(Method):
        """Adapts by a rule of its own."""

    Plugged.__module__ = "builtins"  # whose first line does not name it
    assert offers.explanation(Plugged) == "Adapts by a rule of its own."


def test_describe_asks_for_no_way_where_the_data_has_none(capsys):
    assert main(["describe", *NETWORK_AND_SHOT]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith("maml with mlp on sinusoid/v1, 5-shot\n")
    assert main(["describe", *NETWORK_AND_SHOT, "--way", "1"]) == 0
    assert capsys.readouterr().out == alone
    images = ["describe", "--method", "maml", "--network", "conv4", "--data", "glyphs"]
    assert "error: glyphs has classes: give --way" in said(capsys, *images, "--shot", "1")


# -- completion


def test_a_shell_completes_commands_options_files_and_names(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "cml-bench"
    script.write_text(
        capsys.readouterr().out
        + """
complete -p cml-bench || exit 1
try() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _shtab_cml_bench
    echo "${COMPREPLY[@]}"
}
try cml-bench fe
try cml-bench fetch om
try cml-bench describe --method fom
try cml-bench plan --cal
try cml-bench plan --config pyproj
"""
    )
    done = subprocess.run(
        ["bash", str(script)], capture_output=True, text=True, encoding="utf-8", cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [
        "fetch",
        "omniglot",
        "fomaml fomaml+cml",
        "--calibrate",
        "pyproject.toml",
    ]


# -- fetch


def two_sets(name: str) -> dict:
    """The tiny study, with an experiment on the data set ``name`` besides glyphs and sinusoids."""
    more = json.loads(json.dumps(CONFIG["experiments"]["glyphs"])) | {"data": name}
    more.pop("data_options")
    return CONFIG | {"experiments": CONFIG["experiments"] | {"more": more}}


@pytest.fixture
def fetched(monkeypatch, tmp_path) -> list:
    """Name, size and folder of every image set that was to be prepared; planning is in process."""
    seen: list = []
    monkeypatch.setattr(
        plan, "cached", lambda content, where: resolve(parse(content, where), where)
    )
    for name in ("glyphs", "omniglot", "miniimagenet"):
        monkeypatch.setattr(
            registry.datasets.get(name),
            "prepare",
            lambda self, folder, own: seen.append((self.data_id, str(folder), sorted(own))),
        )
    monkeypatch.chdir(tmp_path)
    return seen


def write(content: dict) -> None:
    Path("my.yaml").write_text(yaml.safe_dump(content))


def test_fetch_prepares_what_a_configuration_needs_as_the_study_would(fetched, capsys):
    own = {"omniglot": {"images_background.zip": {"path": "a.zip", "sha256": "0" * 64}}}
    write(two_sets("omniglot") | {"sources": own, "data_dir": "mine"})
    assert main(["fetch", "--config", "my.yaml"]) == 0
    assert len(fetched) == 2
    assert ("glyphs/v1/16px", "mine", []) in fetched, "with the study's options"
    assert [one[2] for one in fetched if one[0].startswith("omniglot")] == [
        ["images_background.zip"]
    ]
    fetched.clear()
    assert main(["fetch", "glyphs", "--config", "my.yaml", "--data-dir", "other"]) == 0
    assert fetched == [("glyphs/v1/16px", "other", [])]


def test_data_that_cannot_be_had_does_not_keep_other_data_away(fetched, capsys):
    write(two_sets("miniimagenet"))
    assert main(["fetch", "--config", "my.yaml"]) == 2
    reason, end = capsys.readouterr().err.splitlines()
    assert [one[0] for one in fetched] == ["glyphs/v1/16px"]
    assert reason.startswith("error: miniimagenet has terms of use")
    assert end == "error: 1 of 2 data sets are not ready, for the reasons above: miniimagenet."
    assert main(["fetch", "--config", "my.yaml", "--acknowledge", "miniimagenet"]) == 0


def test_fetch_says_what_is_missing_or_too_much(fetched, capsys):
    write(CONFIG)
    assert "error: name data sets (see `list data`), or a study's by" in said(capsys, "fetch")
    assert "data set of the study tiny 'glyph'. Did you mean 'glyphs'?" in said(
        capsys, "fetch", "glyph", "--config", "my.yaml"
    )
    told = said(capsys, "fetch", "--config", "my.yaml", "--options", '{"size": 28}')
    assert "--options are those of a data set: name it" in told
    assert fetched == []
