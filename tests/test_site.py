"""The documentation as a site: its links, its order, its Python reference, and its build."""

import ast
import importlib.util
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

from tests.helpers.documents import anchor

ROOT = Path(__file__).parent.parent
SITE = ROOT / "docs" / "site"
PYTHON = ROOT / ".venv-docs" / "bin" / "python"
ADDRESS = "https://code.example/us/cml_bench"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", SITE / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = loaded()
PAGES = [*hooks.PAGES, *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


class Links(HTMLParser):
    """Relative addresses and ids of a page."""

    def __init__(self, page: Path):
        super().__init__()
        self.links, self.ids = set[str](), set[str]()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "id":
                self.ids.add(value)
            elif key in ("href", "src") and value and not re.match(r"[a-z]+:|//", value):
                self.links.add(unquote(value))


# -- links; these tests need no package of the site


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_of_a_page_leads_to_a_file_and_a_heading(page):
    found = []
    hooks.relinked((ROOT / page).read_text("utf-8"), lambda link: found.append(link) or link)
    for link in found:
        path, fragment = hooks.target(link, page)
        assert (ROOT / path).exists(), link
        if path.endswith(".md"):
            assert hooks.place(path, ADDRESS), f"{path} is no page of the site: see PAGES"
        if path.endswith(".md") and fragment:
            text = re.sub(r"^```.*?^```", "", (ROOT / path).read_text("utf-8"), flags=re.M | re.S)
            assert fragment[1:] in map(anchor, re.findall(r"^#+ (.+)$", text, flags=re.M)), link


@pytest.mark.parametrize(
    ("link", "page", "there", "without_address"),
    [
        ("data.md#terms-of-use", "docs/usage.md", "data.md#terms-of-use", None),
        ("docs/data.md", "README.md", "data.md", None),
        ("../README.md#using-it", "docs/usage.md", "index.md#using-it", None),
        ("../docs/faq.md", "benchmarks/README.md", "faq.md", None),
        (
            "../results/a%20b.png",
            "docs/usage.md",
            f"{ADDRESS}/blob/HEAD/results/a%20b.png",
            "nowhere:",
        ),
        (
            "../configs/ci.yaml",
            "docs/usage.md",
            f"{ADDRESS}/blob/HEAD/configs/ci.yaml",
            "configs/ci.yaml",
        ),
        (
            "docs/site/hooks.py",
            "CONTRIBUTING.md",
            f"{ADDRESS}/blob/HEAD/docs/site/hooks.py",
            "docs/site/hooks.py",
        ),
        ("../configs", "docs/usage.md", f"{ADDRESS}/blob/HEAD/configs", "nowhere:configs"),
        (
            "../results/reference/demo/report.html",
            "docs/results.md",
            "results/reference/demo/report.html",
            None,
        ),
    ],
)
def test_a_link_out_of_docs_leads_to_a_copy_or_to_the_repository(
    link, page, there, without_address
):
    here = hooks.place(page, ADDRESS)
    assert hooks.led(link, page, here, ADDRESS) == there
    assert hooks.led(link, page, here, "").startswith(without_address or there)


def test_a_link_that_leads_to_no_file_is_told(caplog):
    hooks.led("../configs/gone.yaml", "docs/usage.md", "usage.md", ADDRESS)
    assert "docs/usage.md links to configs/gone.yaml, which is not in the repo" in caplog.text


def test_only_relative_links_outside_code_are_changed():
    text = (
        '[a](x.md) ![b](p.png) <img src="q.png"> [c](https://a.b) [d](#e) `[f](g.md)`\n'
        '```\n[h](i.md)\n```\n[`dir`](folder) <a href="j.md#k">'
    )
    lead = {"x.md": "X", "p.png": "P", "q.png": "Q", "j.md#k": "J.md#k", "folder": "nowhere:folder"}
    assert hooks.relinked(text, lead.__getitem__) == (
        '[a](X) ![b](P) <img src="Q"> [c](https://a.b) [d](#e) `[f](g.md)`\n'
        '```\n[h](i.md)\n```\n`dir` <a href="J.html#k">'
    )


@pytest.mark.parametrize("address", ["", ADDRESS], ids=["from disk", "published"])
def test_a_copied_page_leads_to_copies_and_to_pages_of_the_site(address, tmp_path):
    path = "results/reference/demo/report.html"
    (page := tmp_path / "report.html").write_text(hooks.report(path, address))
    beside = hooks.reports([path])[path]
    there = {link.partition("#")[0] for link in Links(page).links} - {""}
    assert {"../../../evidence.html", "records.csv", "tables/table1.csv"} <= there
    for link in there - {f"../../../{name[:-3]}.html" for name in os.listdir(ROOT / "docs")}:
        target = os.path.normpath(f"results/reference/demo/{link}")
        assert target in beside, link
        assert hooks.is_copied(target, address), link


def test_a_new_page_is_shown_without_an_edit():
    order = hooks.order({"index.md", "usage.md", "new.md", "claims.md"})
    assert order == [
        {"Home": "index.md"},
        {"Use": ["usage.md"]},
        {"What holds": ["claims.md"]},
        {"More": ["new.md"]},
    ]


# -- the Python reference


def named() -> set[str]:
    """The objects of the Python reference."""
    text = (ROOT / "docs" / "reference.md").read_text("utf-8")
    return set(re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE))


def found(path: str) -> object:
    return pkgutil.resolve_name(path)


@pytest.mark.parametrize("path", sorted(named()))
def test_what_the_reference_names_is_there_and_says_what_it_is(path):
    assert inspect.getdoc(found(path))
    assert not any(part.startswith("_") for part in path.split("."))


def test_the_reference_has_every_class_and_function_that_the_examples_import():
    used = {"cml_bench.load"}
    for page in PAGES:
        blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S)
        for node in (node for block in blocks for node in ast.walk(ast.parse(block))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("cml_bench."):
                used |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {
        path
        for path in used
        if (inspect.isclass(found(path)) or inspect.isfunction(found(path)))
        and found(path).__module__.startswith("cml_bench")
    }
    assert len(ours) > 10
    assert ours <= named()


def test_every_package_of_the_site_is_pinned():
    lines = (ROOT / "requirements-docs.txt").read_text("utf-8").splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in packages)
    assert {"mkdocs-material", "mkdocstrings-python"} <= {line.split("==")[0] for line in packages}


# -- the build


def built(home: Path, out: Path, address: str = "") -> subprocess.CompletedProcess:
    if not PYTHON.exists():
        pytest.skip("the packages of the site are not here: `make docs` sets them up")
    environment = {**os.environ, "DOCS_REPOSITORY": address, "NO_MKDOCS_2_WARNING": "1"}
    environment.pop("PYTHONPATH", None)
    command = [str(PYTHON), "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    return subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, encoding="utf-8"
    )


@pytest.mark.slow
@pytest.mark.parametrize("address", ["", ADDRESS], ids=["from disk", "published"])
def test_the_site_is_built_and_has_no_dead_link(address, tmp_path):
    done = built(ROOT, tmp_path, address)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path: Links(path) for path in tmp_path.glob("*.html") if path.name != "404.html"}
    assert {tmp_path / f"{hooks.place(page, '')[:-3]}.html" for page in PAGES} <= set(pages)
    for page, content in pages.items():
        for link in content.links:
            path, _, fragment = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            if fragment and target in pages:
                assert fragment in pages[target].ids, f"{page.name}: {link}"
    copied = sorted((tmp_path / "results").rglob("*.html"))
    assert len(copied) > 3
    for page in copied:
        for link in Links(page).links:
            path, _, fragment = link.partition("#")
            assert not path or (page.parent / path).exists(), f"{page}: {link}"
            target = (page.parent / path).resolve()
            assert not path or target not in pages or fragment in pages[target].ids, link
    reference = (tmp_path / "reference.html").read_text("utf-8")
    assert "Open a finished run" in reference
    assert ":func:<code>" not in reference
    assert "Holm" in (tmp_path / "search" / "search_index.json").read_text("utf-8")
    usage = (tmp_path / "usage.html").read_text("utf-8")
    assert f'href="{address}/blob/HEAD/configs/paper.yaml"' in usage or not address


@pytest.mark.slow
def test_dead_links_end_the_build(tmp_path):
    home = tmp_path / "clone"
    shutil.copytree(ROOT / "docs", home / "docs")
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("docs", "site"):
            (home / path.name).symlink_to(path)
    with (home / "docs" / "faq.md").open("a", encoding="utf-8") as page:
        page.write("\n[a](gone.md) [b](data.md#gone) [c](../configs/gone.yaml)\n")
    done = built(home, tmp_path / "site")
    assert done.returncode != 0
    told = done.stdout + done.stderr
    assert "docs/gone.md, which is not in the repository" in told
    assert "configs/gone.yaml, which is not in the repository" in told
    assert "'data.md#gone'" in told
