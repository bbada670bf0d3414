"""The worked examples and templates import public modules alone: no name with an underscore."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
TEMPLATES = sorted((ROOT / "cml_bench").glob("*/_template.py"))


def blocks(page: Path) -> list[str]:
    """The Python code of a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


EXAMPLES = {
    **{f"{page.name}-{i}": code for page in PAGES for i, code in enumerate(blocks(page))},
    **{f"{path.parent.name}/{path.name}": path.read_text("utf-8") for path in TEMPLATES},
}


def private(code: str) -> list[str]:
    """The names of this package that the code imports and that begin with an underscore."""
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module or ''}.{alias.name}" for alias in node.names]
    ours = [name for name in names if name.split(".")[0] in ("cml_bench", "")]
    return [name for name in ours if any(part.startswith("_") for part in name.split("."))]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_imports_no_private_module(name):
    assert private(EXAMPLES[name]) == []


def test_all_examples_and_templates_are_looked_at():
    assert len([name for name in EXAMPLES if name.startswith("extending.md")]) >= 4
    assert len(TEMPLATES) == 3


@pytest.mark.parametrize(
    "code",
    [
        "import cml_bench.data._source",
        "from cml_bench.data._graph import GraphSet",
        "from cml_bench.data import _source",
        "def late():\n    from cml_bench.data.stored import _Prepared",
        "from . import _source",
    ],
)
def test_a_private_import_is_seen(code):
    assert len(private(code)) == 1
