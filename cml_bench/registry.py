"""Methods, data sets and networks: one file each, found by scanning their folders.

A file registers its class with ``@methods.register("name")``. ``+cml`` is no
method of its own: ``cooperative.py`` registers how it is made around any method that accepts a co-learner.
"""

import importlib
import pkgutil
from collections.abc import Callable

from cml_bench.errors import UserError, unknown

CML = "+cml"


class Registry:
    """Names of one kind of plug-in; the folder is imported at the first look-up."""

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package
        self._entries: dict[str, type] = {}
        self._scanned = False

    def register(self, name: str) -> Callable[[type], type]:
        """Class decorator: make the class known under ``name``."""

        def add(cls: type) -> type:
            other = self._entries.get(name)
            if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise UserError(
                    f"two files register the {self.kind} {name!r}: {other.__module__} and {cls.__module__}. "
                    "Rename one of them."
                )
            cls.name = name
            self._entries[name] = cls
            return cls

        return add

    def _scan(self) -> None:
        if not self._scanned:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    importlib.import_module(f"{self.package}.{module.name}")
            self._scanned = True

    def names(self) -> list[str]:
        """All names, sorted."""
        self._scan()
        return sorted(self._entries)

    def get(self, name: str) -> type:
        """The class registered under ``name``; an error with the nearest name otherwise."""
        self._scan()
        if name not in self._entries:
            raise unknown(self.kind, name, self.names())
        return self._entries[name]


_wrappers: dict[str, Callable[[type], type]] = {}


def wraps(suffix: str) -> Callable[[Callable[[type], type]], Callable[[type], type]]:
    """Decorator of a function that makes the class of ``<name><suffix>`` from the class of ``<name>``."""

    def add(make: Callable[[type], type]) -> Callable[[type], type]:
        _wrappers[suffix] = make
        return make

    return add


methods = Registry("method", "cml_bench.methods")
networks = Registry("network", "cml_bench.networks")
datasets = Registry("data set", "cml_bench.data")


def method(name: str) -> type:
    """The class of a method name, ``maml+cml`` included."""
    if name.endswith(CML) and name.removesuffix(CML) in methods.names():
        return _wrappers[CML](methods.get(name.removesuffix(CML)))
    if name not in methods.names():
        raise unknown("method", name, method_names())
    return methods.get(name)


def method_names() -> list[str]:
    """Every method, and the ``+cml`` of each that accepts a co-learner."""
    found = []
    for name in methods.names():
        found.append(name)
        if methods.get(name).accepts_colearner:
            found.append(name + CML)
    return found
