"""Methods, data sets, networks, kinds of figures and tables: one file each, found by scanning.

A file registers its class with ``@methods.register("name")``. Methods, data sets and networks may
also stand in files of users' own: see :mod:`cml_bench.plugins`. ``maml+cml`` has no file:
``cooperative.py`` registers a function that makes it from the class of ``maml``, and so for every
method that accepts a co-learner.
"""

import importlib
import pkgutil
import re
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from cml_bench import plugins
from cml_bench.errors import UserError, unknown
from cml_bench.spec import NAME

if TYPE_CHECKING:  # for annotations alone: these rooms stand above this module
    from cml_bench.data.base import DataSet
    from cml_bench.methods.base import Method
    from cml_bench.networks.base import Network
    from cml_bench.study.figure_config import FigureConfig
    from cml_bench.study.table_kind import TableKind

    MethodMaker = Callable[[type[Method]], type[Method]]

CML = "+cml"

PlugIn = TypeVar("PlugIn")
Class = TypeVar("Class", bound=type[Any])  # so that a decorated class keeps its own type

# Options of a data set that are paths of the user. They are expanded where a configuration is read,
# and what changes below them makes a new plan. A class declares them left out of the run's id.
PATHS = ("root", "lists")

# Titles, tables and plans read these options by name. Of each: the type that they rely on, and
# what the option is.
_RESERVED: dict[str, dict[str, tuple[type, str]]] = {
    "data set": {
        "split": (str, "the class split, a word"),
        **dict.fromkeys(PATHS, (str, "a folder of the user, a path")),
    },
    "method": {
        "cml": (BaseModel, "the options of a co-learner, with gamma"),
        "inner_steps": (int, "the number of inner steps, a whole number"),
        "inner_lr": (float, "the inner step size, a number"),
        "inner_lr_init": (float, "the inner step size at the start, a number"),
    },
}


class Registry(Generic[PlugIn]):
    """The classes of one kind of plug-in, by name; their folder is imported at the first
    look-up.

    ``outside``: users may have classes of this kind in files of their own.
    """

    def __init__(self, kind: str, package: str, outside: bool = False):
        self.kind, self.package, self.outside = kind, package, outside
        self._entries: dict[str, type[PlugIn]] = {}
        self._scanned = False

    def register(self, name: str) -> Callable[[Class], Class]:
        """Class decorator: make the class known under ``name``.

        A UserError for a name that is no folder's or is taken by another class, and for an option
        that has a reserved name and another type.
        """

        def add(cls: Class) -> Class:
            self._check(name, cls)
            other = self._entries.get(name)
            if other is not None and (other.__module__, other.__qualname__) != (
                cls.__module__,
                cls.__qualname__,
            ):
                raise _twice(f"{self.kind} {name!r}", other, cls)
            cls.name = name
            self._entries[name] = cls
            return cls

        return add

    def _check(self, name: str, cls: type[Any]) -> None:
        """A UserError for a name that cannot be a folder's, and for an option of a reserved name
        and another type.
        """
        place = f"{plugins.file_of(cls.__module__)}: the {self.kind} {name!r}"
        if not self.outside and plugins.is_plugin(cls.__module__):
            raise UserError(
                f"{place} cannot be a plug-in, which are methods, data sets and networks: put its"
                f" file into {self.package.replace('.', '/')}."
            )
        if not re.fullmatch(NAME, name):
            raise UserError(
                f"{place} cannot be called so: folders are, so use a-z, 0-9 and _. Rename it."
            )
        for option, (kind, meaning) in _RESERVED.get(self.kind, {}).items():
            field = cls.Options.model_fields.get(option)
            if field is not None and not _is(field.annotation, kind):
                raise UserError(
                    f"{place} has an option {option!r} of another kind: that name is for {meaning}."
                    " Rename it."
                )

    def _scan(self) -> None:
        if not self._scanned:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    importlib.import_module(f"{self.package}.{module.name}")
            self._scanned = True
        if self.outside:
            plugins.load()

    def names(self) -> list[str]:
        """All names, sorted."""
        self._scan()
        return sorted(self._entries)

    def get(self, name: str) -> type[PlugIn]:
        """The class registered under ``name``; else a UserError with the nearest name."""
        self._scan()
        if name not in self._entries:
            raise unknown(self.kind, name, self.names())
        return self._entries[name]


def _twice(named: str, first: type[Any], second: type[Any]) -> UserError:
    """The error for two classes of one name."""
    files = [plugins.file_of(cls.__module__) for cls in (first, second)]
    if files[0] == files[1]:
        return UserError(
            f"{files[0]} registers the {named} twice. If another file imports it by the folder's"
            " name, import it with a dot: from .file import ..."
        )
    return UserError(
        f"two files register the {named}: {files[0]} and {files[1]}. Rename one of them."
    )


def _is(annotation: Any, kind: type) -> bool:
    """Whether every value of the annotated type is of this kind; ``int`` counts as ``float``.

    A ``BaseModel`` must have the field ``gamma``, as the options of a co-learner have.
    """
    if typing.get_origin(annotation) is typing.Literal:
        return all(isinstance(value, kind) for value in typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return all(_is(part, kind) for part in typing.get_args(annotation))
    if kind is BaseModel:
        return (
            isinstance(annotation, type)
            and issubclass(annotation, kind)
            and "gamma" in annotation.model_fields
        )
    return annotation in ((int, float) if kind is float else (kind,))


_wrappers: dict[str, "MethodMaker"] = {}


def wraps(suffix: str) -> Callable[["MethodMaker"], "MethodMaker"]:
    """Decorator of a function that makes the class ``<name><suffix>`` from the class ``<name>``."""

    def add(make: "MethodMaker") -> "MethodMaker":
        _wrappers[suffix] = make
        return make

    return add


methods: "Registry[Method]" = Registry("method", "cml_bench.methods", outside=True)
networks: "Registry[Network]" = Registry("network", "cml_bench.networks", outside=True)
datasets: "Registry[DataSet]" = Registry("data set", "cml_bench.data", outside=True)
# What a configuration can name, by the words of `list` and `new`.
by_kind: "dict[str, Registry[Any]]" = {"methods": methods, "data": datasets, "networks": networks}
figures: "Registry[FigureConfig]" = Registry("kind of figure", "cml_bench.figures.kinds")
tables: "Registry[TableKind]" = Registry("kind of table", "cml_bench.report.kinds")


def method(name: str) -> "type[Method]":
    """The class of a method's name, ``maml+cml`` included; else a UserError with the nearest."""
    if name.endswith(CML) and name.removesuffix(CML) in methods.names():
        return _wrappers[CML](methods.get(name.removesuffix(CML)))
    if name not in methods.names():
        raise unknown("method", name, method_names())
    return methods.get(name)


def method_names() -> list[str]:
    """The names of all methods; behind each that accepts a co-learner its ``+cml``."""
    every = []
    for name in methods.names():
        every.append(name)
        if methods.get(name).accepts_colearner:
            every.append(name + CML)
    return every
