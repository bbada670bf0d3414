"""The shape of the package: who may import whom, what short processes load, and pins that agree."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers.processes import loaded

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cml_bench"


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


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
    assert len(rooms) == 10
    for room in rooms:
        assert len(ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or "") > 60, (
            room.name
        )


def test_no_source_file_is_longer_than_500_lines():
    files = [
        *sources(),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "workflow").rglob("*.smk"),
        ROOT / "Snakefile",
    ]
    long = {p.name: n for p in files if (n := len(p.read_text().splitlines())) > 500}
    assert not long


def laid_out() -> list[Path]:
    """The files whose width no formatter holds: the workflow's, and what people edit by hand."""
    folders = (("workflow", "*.smk"), ("configs", "*.yaml"), ("profiles", "*.yaml"))
    files = [path for folder, name in folders for path in sorted((ROOT / folder).rglob(name))]
    return [*files, ROOT / "Snakefile", ROOT / "Makefile", ROOT / "pyproject.toml"]


def is_unbreakable(line: str) -> bool:
    """Whether a line is one long word (an address, a digest) or a row of numbers."""
    words = line.split()
    return max(map(len, words)) > 60 or bool(re.fullmatch(r"[-\[\]{}\d.,e+ ]+", line))


@pytest.mark.parametrize("path", laid_out(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_is_wider_than_100_columns(path):
    """Ruff holds this for Python. A line counts with its tabs as one column each."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > 100 and not is_unbreakable(line)]


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
    """What tests share is in tests/helpers, fixtures are in tests/conftest.py."""
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


def test_training_and_first_evaluation_load_no_report_libraries(tmp_path):
    code = f"""
from pathlib import Path
from tests.helpers.specs import sinusoid_spec
from cml_bench.engine.jobs import run_all
from cml_bench.engine.build import Settings
settings = Settings(results=Path({str(tmp_path)!r}), report=lambda text: None)
run_all([sinusoid_spec("maml+cml")], settings)
"""
    modules = loaded(code)
    assert "torch" in modules
    assert not modules & {"torchvision", "pandas", "scipy", "matplotlib", "sklearn"}


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^\s*(?:- )?([A-Za-z0-9_.-]+)==(\S+)$", text, flags=re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


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
    """torch pins those itself; a CPU build of torch has none."""
    assert not [
        name
        for name in pins((ROOT / "requirements.txt").read_text())
        if name.startswith(("nvidia", "cuda", "triton"))
    ]


def _unsaid_encodings(source: str) -> list[int]:
    """Lines that open text, or start a process that talks text, and leave the encoding to the
    locale.
    """
    found = []
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
            found.append(node.lineno)
    return found


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
