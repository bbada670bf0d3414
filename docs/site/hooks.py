"""Hooks of mkdocs: pages from outside docs/, the order of all pages, links that leave docs/.

The pages are written for the repository, where every relative link works as it stands. On the site
a link to a page, picture or report leads to its copy there. A link to any other file leads to the
repository, whose address is ``repo_url``; without an address the file is copied, too.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

ROOT = Path(__file__).parent.parent.parent
# Pages outside docs/ -> their places on the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "tests/fixtures/README.md": "fixtures.md",
}
# The order of pages. A page of docs/ that is not named comes last, so a new one needs no edit here.
SECTIONS = {
    "Use": ("usage", "sweeps", "reproduce", "compare", "data", "hardware", "faq"),
    "What holds": ("claims", "results", "figures", "evidence", "protocols", "glossary"),
    "Build on it": ("extending", "reference", "architecture", "benchmarks", "fixtures"),
    "The project": ("contributing", "changelog"),
}
COPIED = (".png", ".svg", ".html", ".pdf", ".csv", ".tex")
# A code block or code in a line, which stay as they are; or the address of a link or picture.
_LINK = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]+`)|(?P<before>\]\(|\b(?:src|srcset|href)=\")(?P<to>[^)\s\"]+)",
    re.MULTILINE | re.DOTALL,
)
# A relative address in HTML; an address in a script's template has a brace.
_HREF = re.compile(r"""(?P<before>\b(?:href|src)=")(?P<to>(?![a-z]+:)[^"#{}\s][^"{}\s]*)(?=")""")
_LOG = logging.getLogger("mkdocs.hooks.site")  # a warning ends a strict build
_NOWHERE = "nowhere:"
_ROLE = re.compile(r":(?:func|class|meth|mod|attr):(<code>)~?")


def relinked(text: str, lead: Callable[[str], str]) -> str:
    """Markdown with ``lead`` of every relative address in place of the address."""

    def one(match: re.Match[str]) -> str:
        to = match["to"]
        if match["code"] or re.match(r"[a-z]+:|#", to):
            return match[0]
        there = lead(to)
        if match["before"] != "](":  # mkdocs leaves the addresses of HTML as they are
            there = re.sub(r"\.md(?=#|$)", ".html", there)
        return match["before"] + there

    # A link that leads nowhere becomes its words.
    return re.sub(rf"\[([^\]]*)\]\({_NOWHERE}[^)]*\)", r"\1", _LINK.sub(one, text))


def target(link: str, page: str) -> tuple[str, str]:
    """Path in the repository and fragment of a relative link on a page of the repository."""
    path, hash_sign, fragment = unquote(link).partition("#")
    joined = os.path.normpath((PurePosixPath(page).parent / path).as_posix()) if path else page
    return joined, hash_sign + fragment


def links(page: str) -> set[str]:
    """Paths in the repository to which a page of the repository links."""
    found: list[str] = []
    text = (ROOT / page).read_text(encoding="utf-8")
    relinked(text, lambda link: found.append(link) or link)
    return {target(link, page)[0] for link in found}


def is_of_docs(path: str) -> bool:
    """Whether a path of the repository is one of those that mkdocs takes; see ``exclude_docs``."""
    return path.startswith("docs/") and not path.startswith("docs/site/")


def is_copied(path: str, address: str) -> bool:
    """Whether the site gets a copy of a file that a page links to."""
    if path in PAGES or is_of_docs(path) or path.endswith(".md"):
        return False
    return (ROOT / path).is_file() and (path.endswith(COPIED) or not address)


def place(path: str, address: str) -> str:
    """Where the site has a path of the repository; empty: nowhere."""
    if path in PAGES:
        return PAGES[path]
    if is_of_docs(path):
        return path.removeprefix("docs/")
    return path if is_copied(path, address) else ""


def led(link: str, page: str, here: str, address: str) -> str:
    """The link on the site, from ``here``, for a link on a page of the repository."""
    path, fragment = target(link, page)
    if not (ROOT / path).exists():
        _LOG.warning("%s links to %s, which is not in the repository", page, path)
    if there := place(path, address):
        return quote(os.path.relpath(there, PurePosixPath(here).parent)) + fragment
    return f"{address}/blob/HEAD/{quote(path)}{fragment}" if address else _NOWHERE + path


def reports(paths: Iterable[str]) -> dict[str, set[str]]:
    """The copied HTML pages among these paths -> the paths to which they link."""
    found: dict[str, set[str]] = {}
    for path in paths:
        if path.endswith(".html"):
            text = (ROOT / path).read_text(encoding="utf-8")
            found[path] = {target(match["to"], path)[0] for match in _HREF.finditer(text)}
    return found


def report(path: str, address: str) -> str:
    """A copied HTML page with its links as they are on the site."""

    def one(match: re.Match[str]) -> str:
        there = led(match["to"], path, path, address)
        if there.startswith(_NOWHERE):  # a table in Markdown, which is no page of the site
            return f"{match['before']}#"
        if not there.startswith(address or _NOWHERE):
            there = re.sub(r"\.md(?=#|$)", ".html", there)
        return match["before"] + there

    return _HREF.sub(one, (ROOT / path).read_text(encoding="utf-8"))


def order(pages: set[str]) -> list[Any]:
    """The navigation over pages of the site, such as ``usage.md``."""
    named = {f"{name}.md" for names in SECTIONS.values() for name in names} | {"index.md"}
    sections = {title: [f"{name}.md" for name in names] for title, names in SECTIONS.items()}
    sections["More"] = sorted(pages - named)
    shown = {
        title: [page for page in listed if page in pages] for title, listed in sections.items()
    }
    return [{"Home": "index.md"}, *({title: listed} for title, listed in shown.items() if listed)]


# -- what mkdocs calls --


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from outside docs/ and what is copied, and set the order of pages."""
    from mkdocs.structure.files import File

    address = config.repo_url or ""
    sources = [f"docs/{file.src_uri}" for file in files.documentation_pages()] + list(PAGES)
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    linked = {path for path in set().union(*map(links, sources)) if is_copied(path, address)}
    pages = reports(linked)
    beside = {path for path in set().union(*pages.values()) if is_copied(path, address)}
    for path in sorted(linked | beside):
        if path in pages:
            files.append(File.generated(config, path, content=report(path, address)))
        else:
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    config.nav = order({file.src_uri for file in files.documentation_pages()})
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page with its links as they are on the site."""
    own = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()
    return relinked(markdown, lambda link: led(link, own, page.file.src_uri, config.repo_url or ""))


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """The page with code in place of the roles of docstrings, such as :func:`load`."""
    return _ROLE.sub(r"\1", html)
