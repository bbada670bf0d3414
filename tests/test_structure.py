"""The shape of the code: imports, sizes of files and functions, layout, encodings, pins."""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

from tests.helpers.processes import loaded

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cml_bench"


def linted(*arguments: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )


def test_nothing_imports_upwards_and_planning_and_the_report_import_no_torch():
    done = linted("--no-cache")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "2 kept, 0 broken" in done.stdout


def test_every_room_says_what_it_is_for():
    rooms = [path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    assert len(rooms) == 11
    for room in rooms:
        assert len(ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or "") > 60, (
            room.name
        )


def source_files() -> list[Path]:
    """Every file of code: the package, benchmarks, tests and the workflow."""
    logger = ROOT / "snakemake_logger_plugin_cml_bench"
    folders = (PACKAGE, logger, ROOT / "benchmarks", ROOT / "tests")
    python = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return [*python, *sorted((ROOT / "workflow").rglob("*.smk")), ROOT / "Snakefile"]


def test_no_source_file_is_longer_than_400_lines():
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in source_files()}
    assert not {str(path): length for path, length in lengths.items() if length > 400}


def functions_in(path: Path) -> list[tuple[str, int]]:
    """Each function's name and number of lines.

    A file of the workflow is no Python as a whole: a function there ends where the next line of
    the same or a smaller indentation begins.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, functions)]
        return [(node.name, node.end_lineno - node.lineno + 1) for node in nodes]
    body = r"(?:\1[ \t]+.*\n|[ \t]*\n)*"
    matches = re.finditer(rf"^([ \t]*)def (\w+).*\n{body}", text + "\n", flags=re.MULTILINE)
    return [(match[2], len(match[0].rstrip().splitlines())) for match in matches]


def test_no_function_is_longer_than_50_lines():
    long = [
        (str(path.relative_to(ROOT)), name, lines)
        for path in source_files()
        for name, lines in functions_in(path)
        if lines > 50
    ]
    assert not long


def test_functions_of_the_workflow_are_measured(tmp_path):
    (tmp_path / "a.smk").write_text("def one(a):\n    b\n\n    c\n\n\nrule x:\n    input: 1\n")
    assert functions_in(tmp_path / "a.smk") == [("one", 4)]


def layouts_kept_by_hand(source: str) -> list[list[tokenize.TokenInfo]]:
    """The tokens of each statement that ruff's formatter leaves as it is."""
    statements, tokens = [], []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        tokens.append(token)
        if token.type == tokenize.NEWLINE:
            if any(t.type == tokenize.COMMENT and "fmt: skip" in t.string for t in tokens):
                statements.append([t for t in tokens if t.string.strip()])
            tokens = []
    return statements


def is_of_numbers(tokens: list[tokenize.TokenInfo]) -> bool:
    """Whether a statement has more numbers than strings: a matrix, maybe with names of its rows."""
    numbers = sum(token.type == tokenize.NUMBER for token in tokens)
    return numbers > sum(token.type == tokenize.STRING for token in tokens)


def test_only_numbers_are_laid_out_by_hand():
    """Ruff's formatter lays out everything else; it would put each number on a line of its own."""
    for path in (path for path in source_files() if path.suffix == ".py"):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"^ *# fmt: off", source, flags=re.MULTILINE), path
        for tokens in layouts_kept_by_hand(source):
            assert is_of_numbers(tokens), f"{path}, line {tokens[0].start[0]}"


def test_words_laid_out_by_hand_are_found():
    words, numbers = 'a = [\n    "x", "y", 1,\n]  # fmt: skip\n', "b = [1,\n  2]  # fmt: skip\n"
    assert [is_of_numbers(s) for s in layouts_kept_by_hand(words + numbers)] == [False, True]


def laid_out() -> list[Path]:
    """The files whose width no formatter holds: the workflow's, and what people edit by hand."""
    folders = (("workflow", "*.smk"), ("configs", "*.yaml"), ("profiles", "*.yaml"))
    files = [path for folder, name in folders for path in sorted((ROOT / folder).rglob(name))]
    return [*files, ROOT / "Snakefile", ROOT / "Makefile", ROOT / "pyproject.toml"]


def is_unbreakable(line: str) -> bool:
    """Whether a line is one long word (an address, a digest) or a row of numbers."""
    words = line.split()
    return max(map(len, words)) > 60 or bool(re.fullmatch(r"[-\[\]{}\d.,e+ ]+", line))


def test_no_line_is_wider_than_100_columns():
    """Ruff passes over Python lines that end in a long word or a pragma. A tab is one column."""
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in {*laid_out(), *source_files()}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 100 and not is_unbreakable(line)
    ]
    assert not wide


def imported(path: Path) -> set[str]:
    """The modules that a file names in its imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_no_test_imports_a_test_module():
    """Helpers of several tests are in tests/helpers, fixtures in tests/conftest.py."""
    for path in (ROOT / "tests").rglob("*.py"):
        assert not {name for name in imported(path) if ".test_" in f".{name}"}, path


HEAVY = {"torch", "torchvision", "pandas", "scipy", "matplotlib", "sklearn"}


@pytest.mark.parametrize("module", ["study.plan", "study.config", "records", "spec", "registry"])
def test_parsing_and_records_import_nothing_heavy(module):
    assert not loaded(f"import cml_bench.{module}") & HEAVY


@pytest.mark.parametrize(
    "module", ["evidence.build", "figures.style", "report.charts", "report.write", "report.publish"]
)
def test_the_report_side_imports_no_torch(module):
    assert "torch" not in loaded(f"import cml_bench.{module}")


def pins(text: str) -> dict[str, str]:
    matches = re.findall(r"^\s*(?:- )?([A-Za-z0-9_.-]+)==(\S+)$", text, flags=re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in matches}


def test_conda_users_get_the_locked_versions():
    lock = pins((ROOT / "requirements.txt").read_text())
    conda = pins((ROOT / "environment.yml").read_text())
    assert len(conda) > 15
    assert {name: lock.get(name) for name in conda} == conda


def test_the_lock_file_has_every_declared_dependency_and_fits_it():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = pins((ROOT / "requirements.txt").read_text())
    conda = pins((ROOT / "environment.yml").read_text())
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    for text in [*project["dependencies"], *extras]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(lock[requirement.name.lower()]), text
        assert requirement.name.lower() in conda
    assert project["requires-python"] == ">=3.11,<3.14"


def test_no_cuda_package_is_locked():
    """torch pins CUDA packages itself, and a CPU build of torch has none."""
    assert not [
        name
        for name in pins((ROOT / "requirements.txt").read_text())
        if name.startswith(("nvidia", "cuda", "triton"))
    ]


def _unsaid_encodings(source: str) -> list[int]:
    """Lines that open text, or run a process that talks text, without naming the encoding."""
    numbers = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        given = {keyword.arg for keyword in node.keywords}
        is_method = isinstance(node.func, ast.Attribute)
        modes = [
            a.value
            for a in node.args
            if isinstance(a, ast.Constant) and re.fullmatch(r"[rwax]\+?", str(a.value))
        ]
        opens = name in {"open", "fdopen"} and (
            bool(modes) or (not is_method and len(node.args) == 1)
        )
        reads = is_method and name in {"read_text", "write_text"}
        talks = name in {"run", "Popen", "check_output"} and given & {"text", "universal_newlines"}
        if (opens or reads or talks) and "encoding" not in given:
            numbers.append(node.lineno)
    return numbers


@pytest.mark.parametrize(
    "path", [*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))], ids=str
)
def test_the_encoding_of_text_is_said(path):
    assert not _unsaid_encodings(path.read_text(encoding="utf-8")), f"{path}: say encoding='utf-8'"


@pytest.mark.parametrize(
    "line",
    [
        "open(path)",
        "open(path, 'w')",
        "path.open('a+')",
        "path.read_text()",
        "path.write_text(text)",
        "os.fdopen(number, 'w')",
        "subprocess.run(command, text=True)",
    ],
)
def test_an_unsaid_encoding_is_found(line):
    assert _unsaid_encodings(line) == [1]
    said = (
        line.removesuffix(")") + "encoding='utf-8')"
        if line.endswith("()")
        else line[:-1] + ", encoding='utf-8')"
    )
    assert not _unsaid_encodings(said)


def test_the_picture_of_the_rooms_is_of_this_code():
    from tests.make_rooms import PAGE, picture

    assert picture() in PAGE.read_text(encoding="utf-8"), "python -m tests.make_rooms"
