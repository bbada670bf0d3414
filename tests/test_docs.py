"""The documentation is right: links, commands, configuration files and targets exist.

Its worked examples are run.
"""

import ast
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

import cml_bench
from benchmarks import hours
from cml_bench import command_line
from cml_bench.__main__ import COMMANDS
from cml_bench.evidence import stats
from cml_bench.report import publish
from cml_bench.study import config, schema, targets
from cml_bench.study.resolve import resolve
from tests.helpers.documents import anchor, worked_examples

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = [*PAGES, ROOT / "CHANGELOG.md"]
by_name = pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)


def prose(page: Path) -> str:
    """A page's text without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(page: Path, program: str) -> list[str]:
    """The commands in shell blocks and inline code that call ``program``.

    They come without their comments.
    """
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]
    parts = [part for line in (*lines, *inline) for part in line.split(" && ")]
    return [part for part in parts if f"{part} ".startswith(f"{program} ")]


@by_name
def test_relative_links_and_pictures_are_there(page):
    links = [unquote(link) for link in re.findall(r"\]\(([^)\s]+)\)", prose(page))]
    local = [link for link in links if not re.match(r"https?://", link)]
    for link in local:
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if fragment:
            assert fragment in map(
                anchor, re.findall(r"^#+ (.+)$", target.read_text(), flags=re.MULTILINE)
            ), link
    assert local or page.name == "CHANGELOG.md"


@by_name
def test_every_command_of_the_package_is_one_that_it_takes(page):
    """Sub-commands and options are parsed as on the command line; nothing is run."""
    parser = command_line.parser("", COMMANDS, "")
    for command in commands(page, "python -m cml_bench"):
        words = shlex.split(command.partition(" > ")[0])[3:]
        if words[1:]:
            parser.parse_args(words)
        else:  # a command without words, such as `python -m cml_bench plan`
            with pytest.raises(SystemExit) as stop:
                parser.parse_args([*words, "--help"])
            assert stop.value.code == 0, command
    named = set(re.findall(r"python -m\s+cml_bench\s+([a-z]+)", page.read_text()))
    assert named <= {command.name for command in COMMANDS}


def test_no_command_of_the_package_is_undocumented():
    assert {command.name for command in COMMANDS} == {
        command.split()[3] for page in PAGES for command in commands(page, "python -m cml_bench")
    }


@by_name
def test_configuration_files_profiles_and_tests_that_are_named_are_there(page):
    text = page.read_text()
    for path in re.findall(
        r"\b((?:configs|profiles|tests|benchmarks|workflow|results/reference)/[\w/.-]*\w)", text
    ):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"(?<![\w/])(environment\.yml|pyproject\.toml|requirements\.txt)", text):
        assert (ROOT / name).exists()


@by_name
def test_targets_of_make_are_there(page):
    makefile = (ROOT / "Makefile").read_text()
    for command in commands(page, "make"):
        for word in shlex.split(command)[1:]:
            name, variable, _ = word.partition("=")
            pattern = rf"\$\((call q,)?{name}\)" if variable else rf"^{re.escape(name)}:"
            assert re.search(pattern, makefile, flags=re.MULTILINE), command


@pytest.fixture(scope="module")
def names():
    """Configuration file -> its targets: tables, figures and their parts."""

    @functools.cache
    def known(path: str) -> set[str]:
        resolved = resolve(config.read(path), path)
        groups = {*targets.groups(resolved), *targets.figure_groups(resolved)}
        return {*targets.parts(resolved), *groups, *resolved.figures, *config.TARGETS}

    return known


def test_targets_and_options_of_snakemake_are_there(names, monkeypatch):
    """Options are parsed as by Snakemake; targets must be those of the named configuration."""
    from snakemake.cli import get_argument_parser

    monkeypatch.chdir(ROOT)  # the paths in `include` are relative to it
    parser, targets_seen = get_argument_parser(), set()
    for page in PAGES:
        for command in commands(page, "snakemake"):
            words = ["2" if word == "N" else word for word in shlex.split(command)[1:]]
            asked = parser.parse_args(words)
            path = str((asked.configfile or ["configs/paper.yaml"])[0])
            if path.startswith("configs/"):
                assert set(asked.targets) <= names(path), command
                targets_seen |= set(asked.targets)
            keys = {setting.partition("=")[0] for setting in asked.config or ()}
            assert keys <= {*schema.Study.model_fields, "shard", "set"}, command
    assert targets_seen >= {"table1", "table2_cifar_fs", "cifar_fs"}


def test_published_studies_stand_on_the_page_and_the_others_are_empty():
    """The content of the blocks is compared in test_publish.py."""
    text = (ROOT / publish.RESULTS).read_text()
    studies = {path.parent.name for path in (ROOT / publish.PUBLISHED).glob("*/report.html")}
    blocks = dict(
        re.findall(r"<!-- (\w+):begin[^\n]*-->\n(.*?)<!-- \1:end -->", text, flags=re.DOTALL)
    )
    assert {name for name, content in blocks.items() if content} == studies
    configs = dict(
        re.findall(r"<!-- (\w+):begin \(python -m cml_bench publish --config (\S+)\) -->", text)
    )
    assert {name: config.read(ROOT / path).study for name, path in configs.items()} == {
        name: name for name in blocks
    }


def test_the_readme_is_short_and_its_first_screen_says_what_holds():
    """What is generated counts, too."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    first = "\n".join(lines[:60])
    pictures = ("docs/heads.svg", "docs/page.png", "/figures/forest.png")
    wanted = ("make demo", "make test", "<!-- claims:begin", "What † gains with", *pictures)
    assert [text for text in wanted if text not in first] == []
    assert (ROOT / "docs" / "page.png").stat().st_size < 150_000
    for source in re.findall(r'src="([^"]+)"', first):
        assert (ROOT / source).exists(), source


def test_what_a_first_start_leaves_out_is_said_with_the_numbers_of_the_plan(monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = resolve(config.read(hours.STUDY), hours.STUDY)
    left = hours.waiting(plan)
    assert set(left) == {"miniimagenet", "corafull"}
    each = (f"{left['miniimagenet']} of MiniImagenet", f"{left['corafull']} of CoraFull")
    start, readme = (
        " ".join((ROOT / page).read_text().partition("\n## The")[0].split())
        for page in ("docs/reproduce.md", "README.md")
    )
    assert f"leaves out {sum(left.values())} of {len(plan.runs):,} runs" in start
    assert all(text in start for text in each)
    assert f"leaves out {each[0].replace(' of', ' runs of')} and {each[1]}." in readme


def test_the_glossary_has_every_sign_and_is_linked():
    text = (ROOT / "docs" / "glossary.md").read_text()
    signs = (*"ψθφγ±‡", "CML†", "CL⋆", stats.UP, stats.DOWN, "(c)")
    assert [sign for sign in signs if sign not in text] == []
    for page in ("README.md", "docs/results.md", "docs/evidence.md", "docs/claims.md"):
        assert "glossary.md)" in (ROOT / page).read_text(), page


@by_name
def test_python_examples_parse_and_name_what_is_there(page):
    for block in re.findall(
        r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL
    ):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("cml_bench"):
                names = [alias.name for alias in node.names]
                module = __import__(node.module, fromlist=names)  # loads modules among the names
                assert all(hasattr(module, name) for name in names), node.module


def test_the_data_frame_example_runs(monkeypatch):
    """It reads committed records, so that everyone can try it."""
    monkeypatch.chdir(ROOT)
    section = (ROOT / "docs" / "usage.md").read_text().split("## Results as a data frame")[1]
    (block,) = re.findall(r"^```python\n(.*?)^```", section.split("\n## ")[0], re.M | re.S)
    ran = {}
    exec(block, ran)
    assert ran["gain"].n == 6
    assert ran["gain"].p < 0.05
    assert not ran["curves"].empty
    assert not ran["episodes"].empty


def test_studies_that_share_runs_are_named_where_runs_are_copied():
    """The second copy would take the place of the first."""
    runs = {
        path.parent.name: {*os.listdir(path)}
        for path in (ROOT / "results").glob("reference/*/runs")
    }
    assert len(runs) >= 8
    sharing = {a for a in runs for b in runs if a != b and runs[a] & runs[b]}
    told = (ROOT / "docs" / "compare.md").read_text().split("not two that share ids")[1]
    assert {*re.findall(r"`(\w+)`", told.split("\n\n")[0])} == sharing


def test_the_methods_data_sets_and_networks_that_the_readme_lists_are_those_that_exist():
    from cml_bench import registry

    text = (ROOT / "README.md").read_text()
    listed = set(
        re.findall(r"`(\w+)`", text[text.index("\nMethods: ") : text.index("What each one is")])
    )
    known = {*registry.method_names(), *registry.datasets.names(), *registry.networks.names()}
    # Another test of this process may have registered the template.
    assert listed == {name for name in known if "+" not in name} - {"template"}


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", project["version"])
    assert (citation["title"], citation["license"]) == (project["name"], project["license"])
    assert cml_bench.__version__ == project["version"]
    paper = citation["references"][0]
    assert (paper["volume"], paper["start"], paper["end"], paper["year"]) == (244, 3198, 3210, 2024)
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(
        rf"^## \[(Unreleased|{re.escape(project['version'])})\]", changes, flags=re.MULTILINE
    )
    assert project["version"] in changes


TRAIN = """
import json
from pathlib import Path
from cml_bench import load
from cml_bench.__main__ import main

for study in ("digits", "digit_graph"):
    assert main(["plan", "--config", f"{study}.yaml", "--out", "plan.json"]) == 0
    plan = json.loads(Path("plan.json").read_text())
    for data in plan["data"]:
        assert main(["fetch", data["name"], "--options", json.dumps(data["options"])]) == 0
    for job in plan["jobs"]:
        assert main(["train", "plan.json", "--job", job["id"]]) == 0
    main(["table", "--plan", "plan.json"])
for folder in Path("results/runs").glob("lslr*"):
    base = load(folder).groups["base"]
    named = {name for name in base if not name.endswith(".rate")}
    assert named == {name.removesuffix(".rate") for name in base} - {""}
    assert all(base[name + ".rate"].shape == () for name in named)
    assert float(base["head.weight.rate"]) != 0.5  # learned
"""


def written(folder: Path) -> list[str]:
    """The files of docs/extending.md, written into ``folder`` beside the package; their paths."""
    examples = worked_examples()
    homes = ["methods", "data", "networks", "", "data", "", "kinds"]
    assert [Path(name).parent.name for name in examples] == homes
    for name, content in examples.items():
        assert not (folder / name).exists()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return list(examples)


@pytest.mark.parametrize("tool", [("check",), ("format", "--check")], ids=["check", "format"])
def test_the_worked_examples_of_extending_are_clean(tool, tmp_path):
    sources = [name for name in written(tmp_path) if name.endswith(".py")]
    arguments = [*tool, "--config", str(ROOT / "pyproject.toml"), *sources]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_worked_examples_of_extending_are_trained(tmp_path):
    """Each file is used as it stands on the page, in a copy of the package."""
    shutil.copytree(
        ROOT / "cml_bench", tmp_path / "cml_bench", ignore=shutil.ignore_patterns("__pycache__")
    )
    written(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    records = [
        json.loads(path.read_text())
        for path in (tmp_path / "results" / "runs").glob("*/record.json")
    ]
    score = {name: [] for name in ("gmeta", "gmeta+cml", "lslr", "lslr+cml")}
    for record in records:
        own_steps = record["spec"]["options"]["inner_steps"]
        score[record["spec"]["method"]].append(record["results"][f"meta@{own_steps}"])
    assert [len(values) for values in score.values()] == [2, 2, 2, 2]
    assert min(score["lslr"] + score["lslr+cml"]) > 0.4, "chance is one third"
    assert min(score["gmeta"] + score["gmeta+cml"]) > 0.7, "chance is a half"
    assert "LSLR + CML†" in done.stdout
    assert "t intervals over class splits" in done.stdout
