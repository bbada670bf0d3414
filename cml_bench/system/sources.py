"""Which source code makes a run: the commit, and digests of the files that compute its numbers.

Imports no torch: files are read, not imported.
"""

import ast
import functools
import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
# How the names of a plug-in's modules begin -> its file or folder; filled by cml_bench/plugins.py.
PLUGINS: dict[str, Path] = {}
IN_RECORDS = "plugins/"  # how the names of plug-ins' files begin in records
_ROOMS = ("methods", "networks", "data")
_DIGITS = 16
_GIT_SECONDS = 20


def modules_of(classes: Iterable[type]) -> tuple[str, ...]:
    """Names of the package's and of plug-ins' modules in which these classes and their bases
    stand.
    """
    names = {base.__module__ for cls in classes for base in cls.__mro__}
    return tuple(sorted(name for name in names if _is_ours(name)))


def files_of(modules: Iterable[str]) -> dict[str, str]:
    """Path below the package, or ``plugins/`` and path from a plug-in's own name on -> digest, of
    these modules and what they import.

    Counted are methods, networks, data sets and the drawing of numbers (``seeding.py``), and of
    each its code: comments, docstrings and layout do not matter. Left out are files of data whose
    names begin with ``_``: they fetch and decode, and what comes out has a digest of its own in the
    record. So are specification and recipes, which the record holds resolved, and the engine: its
    paths are tested to be equal, and the commit tells it. Of a plug-in every file counts.
    """
    found: dict[str, str] = {}
    due = list(modules)
    while due:
        module = due.pop()
        path, name = _path(module)
        if name and name not in found:
            code = _code(path)
            found[name] = hashlib.sha256(ast.unparse(code).encode()).hexdigest()[:_DIGITS]
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            due += _imports(code, package)
    return dict(sorted(found.items()))


@functools.cache
def loaded(modules: tuple[str, ...]) -> dict[str, str]:
    """:func:`files_of` at the first call of this process, thus of the code that it has loaded."""
    return files_of(modules)


def plugin_of(module: str) -> tuple[Path, list[str]] | None:
    """The file or folder of a module's plug-in, and the names below it; None: it is of none."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if root := PLUGINS.get(".".join(parts[:end])):
            return root, parts[end:]
    return None


def _is_ours(module: str) -> bool:
    return module.startswith("cml_bench.") or plugin_of(module) is not None


def _path(module: str) -> tuple[Path, str]:
    """The file of a module, and its name in records; an empty name: it does not count."""
    if found := plugin_of(module):
        root, parts = found
        path = root.joinpath(*parts)
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        name = path.relative_to(root.parent).as_posix()
        return path, IN_RECORDS + name if path.is_file() else ""
    path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return path, path.relative_to(PACKAGE).as_posix() if _counts(path) else ""


def _counts(path: Path) -> bool:
    room, *inside = path.relative_to(PACKAGE).parts
    if not path.is_file() or (room == "data" and path.name.startswith("_")):
        return False
    return room == "seeding.py" or (room in _ROOMS and bool(inside))


def _code(path: Path) -> ast.Module:
    """A file without its docstrings, and without imports for annotations alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            kept = [part for part in node.body[documented:] if not _for_types(part)]
            node.body = kept or [ast.Pass()]
    return tree


def _for_types(part: ast.stmt) -> bool:
    return isinstance(part, ast.If) and ast.unparse(part.test) == "TYPE_CHECKING"


def _imports(code: ast.Module, package: str) -> Iterator[str]:
    """What a file of this package imports of ours; some names are of classes, not of modules."""
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if _is_ours(name))


@functools.cache
def commit() -> tuple[str, bool | None]:
    """The commit of the package's checkout, and whether the package is as committed.

    ``("", None)`` where nobody can tell: without git, or where the package is no part of a
    checkout. An installed copy inside somebody else's checkout is none.
    """
    try:
        _git("ls-files", "--error-unmatch", "__init__.py")
        name = _git("rev-parse", "HEAD").strip()
        return name, not _git("--no-optional-locks", "status", "--porcelain", "--", ".").strip()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return "", None


def _git(*arguments: str) -> str:
    # A hook of git sets GIT_DIR and the like, which would point to another checkout.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    return subprocess.run(
        ["git", *arguments],
        cwd=PACKAGE,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
        timeout=_GIT_SECONDS,
    ).stdout
