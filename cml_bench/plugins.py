"""Plug-ins of users: files and folders outside the package, imported as the package's own are.

A configuration names them under ``plugins``, a command by ``--plugins``, Python by
:func:`cml_bench.use_plugins`; an installed package declares entry points of the group
``cml_bench.plugins``. :func:`use` only notes where they stand, so it needs no torch. The first
look-up of a method, a data set or a network imports them.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import sys
import traceback
import types
from collections.abc import Iterable, Iterator
from pathlib import Path

from cml_bench.errors import UserError
from cml_bench.system import sources

GROUP = "cml_bench.plugins"
_HOME = "cml_bench_plugins"  # the package that plug-ins from paths seem to be in
_due: list[str] = []  # modules of plug-ins that are not imported yet


def use(paths: Iterable[Path | str], where: str) -> None:
    """Note the plug-ins at these paths: a file, or a folder whose files are scanned.

    A UserError, which begins with ``where``, for a path that is none and for two plug-ins of one
    name.
    """
    _use_installed()
    for path in map(Path, paths):
        _check(path, where)
        whole = path.resolve()
        if whole not in sources.PLUGINS.values():
            name = _word(whole)
            if other := sources.PLUGINS.get(name):
                raise UserError(
                    f"{where}: two plug-ins are called {name!r}: {shown(other)} and"
                    f" {shown(whole)}. Rename one of them."
                )
            # Also under its own name, by which its files may import each other.
            sources.PLUGINS |= {f"{_HOME}.{name}": whole, name: whole}
            _due.append(f"{_HOME}.{name}")


def _check(path: Path, where: str) -> None:
    if not path.exists():
        raise UserError(
            f"{where}: there is no plug-in {path}: paths are from the working folder, {Path.cwd()}."
        )
    if path.is_dir() and not any(_files(path)):
        raise UserError(f"{where}: the plug-in {path} is a folder without any .py file.")
    if path.is_file() and path.suffix != ".py":
        raise UserError(f"{where}: the plug-in {path} is no .py file and no folder.")
    if _word(path.resolve()) == sources.PACKAGE.name:
        raise UserError(f"{where}: no plug-in can be called {sources.PACKAGE.name}. Rename {path}.")


def _word(path: Path) -> str:
    """The name of a plug-in, as a module may have it."""
    return "".join(c if c.isidentifier() or c.isdigit() else "_" for c in path.stem)


def shown(path: Path) -> Path:
    """A path from the working folder, if the file is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@functools.cache
def _use_installed() -> None:
    """Note the plug-ins of installed packages."""
    for point in importlib.metadata.entry_points(group=GROUP):
        top = point.module.partition(".")[0]
        spec = importlib.util.find_spec(top)
        if spec and spec.submodule_search_locations:
            sources.PLUGINS[top] = Path(next(iter(spec.submodule_search_locations)))
        elif spec and spec.origin:
            sources.PLUGINS[top] = Path(spec.origin)
        _due.append(point.module)


def load() -> None:
    """Import the plug-ins that are noted and not imported. A UserError says what fails."""
    _use_installed()
    while _due:
        module = _due.pop(0)
        try:
            _import(module)
        except (Exception, SystemExit) as error:  # a script may end with sys.exit()
            told = _told(module)
            said = f"the plug-in {told} cannot be imported: {cause(error)}. Correct it."
            _forget(module)
            if isinstance(error, UserError):
                raise
            raise UserError(said) from error


def _import(module: str) -> None:
    """Import a plug-in's file, or every file of its folder whose name begins with no ``_``."""
    found = sources.PLUGINS.get(module)
    if found and module.startswith(f"{_HOME}."):
        sys.modules.setdefault(_HOME, _package(_HOME, []))
        if found.is_dir() and not (found / "__init__.py").exists():
            sys.modules[module] = _package(module, [str(found)])
        else:
            _import_file(module, found)
    else:
        importlib.import_module(module)
    package = sys.modules[module]
    for inner in pkgutil.iter_modules(getattr(package, "__path__", ())):
        if not inner.name.startswith("_"):
            importlib.import_module(f"{module}.{inner.name}")


def _package(name: str, path: list[str]) -> types.ModuleType:
    """A package without a file of its own."""
    package = types.ModuleType(name)
    package.__path__ = path
    return package


def _import_file(module: str, path: Path) -> None:
    file = path / "__init__.py" if path.is_dir() else path
    spec = importlib.util.spec_from_file_location(module, file)
    if spec and spec.loader:  # every .py file has them
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])


def _forget(module: str) -> None:
    """So that it may be used again once it is corrected."""
    path = sources.PLUGINS.get(module)
    if module.startswith(f"{_HOME}."):
        for name in [name for name, other in sources.PLUGINS.items() if other == path]:
            del sources.PLUGINS[name]
    for name in [n for n in sys.modules if n == module or n.startswith(f"{module}.")]:
        del sys.modules[name]


def _told(module: str) -> str:
    if module.startswith(f"{_HOME}."):
        return str(shown(sources.PLUGINS[module]))
    return f"{module} (an entry point {GROUP} of an installed package)"


def cause(error: BaseException) -> str:
    """An error with the last place of a plug-in that it went through, if there is one.

    ``NameError in mine/a.py, line 3: name 'x' is not defined``.
    """
    if isinstance(error, SyntaxError) and error.filename:
        place, text = f" in {shown(Path(error.filename))}, line {error.lineno}", error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f" in {shown(Path(f.filename))}, line {f.lineno}" for f in frames if _is_own(f)]
        place, text = own[-1] if own else "", str(error)
    return f"{type(error).__name__}{place}: {text}".replace("\n", " ").rstrip(".: ")


def _is_own(frame: traceback.FrameSummary) -> bool:
    path = Path(frame.filename)
    return any(path == root or root in path.parents for root in sources.PLUGINS.values())


# -- what they are made of


def _files(root: Path) -> Iterator[Path]:
    """The .py files of a plug-in: of a folder and of the packages in it."""
    if root.is_file():
        yield root
        return
    with contextlib.suppress(PermissionError):
        for path in sorted(root.iterdir()):
            if path.suffix == ".py" and path.is_file():
                yield path
            elif (path / "__init__.py").is_file():
                yield from _files(path)


def source_hash() -> str:
    """SHA-256 over the files of all plug-ins in use; empty: there are none."""
    if not sources.PLUGINS:
        return ""
    digest = hashlib.sha256()
    for name, root in sorted(sources.PLUGINS.items()):
        for path in _files(root):
            at = os.path.relpath(path, root)
            digest.update(f"{name}\0{at}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def is_plugin(module: str) -> bool:
    """Whether a module is a plug-in's."""
    return sources.plugin_of(module) is not None


def file_of(module: str) -> str:
    """The file of a module of the package or a plug-in, as a user would name it.

    Of other modules the name.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    ours = is_plugin(module) or module.startswith(f"{sources.PACKAGE.name}.")
    return str(shown(Path(file))) if file and ours else module


def check_known(files: Iterable[str], folder: Path) -> None:
    """A UserError if a run needs a plug-in that is not in use.

    ``files`` are those of its record's source, ``folder`` is the run's.
    """
    known = {root.name for root in sources.PLUGINS.values()}
    parts = [name.split("/") for name in files if name.startswith(sources.IN_RECORDS)]
    if missing := sorted({own for _, own, *_ in parts} - known):
        raise UserError(
            f"{folder}: this run is of the plug-in {missing[0]!r}: say where it is, on the command"
            " line by --plugins PATH, in Python by cml_bench.use_plugins(PATH)."
        )
