"""Reads other people's pickles without running anything that they ask for.

A pickle is a program: it names functions, and the reader calls them. Here a name leads only to one
of the few stand-ins in this file, which make arrays of plain numbers and plain containers. numpy's
own loaders are not used: a crafted description of an array's type can make them read foreign
memory.
"""

import collections
import pickle
import types
from collections.abc import Collection
from typing import IO, Any, Literal

import numpy as np

from cml_bench.data._archives import escaped
from cml_bench.errors import UserError

_KINDS = "biufcSU"  # of types: booleans, numbers and strings of fixed length, never objects


class Refused(UserError):
    """The pickle asks for something that arrays and plain containers do not need."""


class _Type:
    """Stands in for numpy.dtype: a kind from _KINDS, and a byte order."""

    def __init__(self, code: Any, align: bool = False, copy: bool = False):
        real = np.dtype(code) if isinstance(code, str) else None
        if real is None or real.kind not in _KINDS or real.shape or real.names:
            raise Refused(f"an array of type {code!r}")
        self.real: np.dtype[Any] = real

    def __setstate__(self, state: tuple) -> None:
        """Take numpy's (version, byte order, subarray, names, fields, size, alignment, flags)."""
        order, parts = state[1], state[2:5]
        if any(part is not None for part in parts) or order not in ("<", ">", "|", "="):
            raise Refused("an array whose type has parts")
        if order in "<>":
            self.real = self.real.newbyteorder(order)


class _Array(np.ndarray):
    """Stands in for numpy.ndarray: it takes its content only with a :class:`_Type`."""

    def __setstate__(self, state: tuple) -> None:
        """Take numpy's (version, shape, type, Fortran order, bytes).

        In a pickle of Python 2 the bytes come as a latin1 string.
        """
        version, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or not isinstance(content, bytes | str):
            raise Refused("an array of objects")
        real = (version, shape, kind.real, fortran, content)
        # numpy takes the latin1 string, too; its type stub knows bytes alone.
        super().__setstate__(real)  # type: ignore[arg-type]


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    return np.ndarray.__new__(_Array, (0,), np.uint8)


def _frombuffer(
    buffer: Any,
    kind: _Type,
    shape: tuple[int, ...],
    order: Literal["A", "C", "F", "K"],
    axes: tuple[int, ...] | None = None,
) -> np.ndarray:
    flat = np.frombuffer(buffer, kind.real)
    if order == "K":  # since numpy 2.3: the numbers as in memory, and the order of the axes there
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order=order)


def _scalar(kind: _Type, content: bytes | str) -> Any:
    return np.frombuffer(
        content.encode("latin1") if isinstance(content, str) else content, kind.real
    )[0]


def _encode(text: str, encoding: str) -> bytes:
    """Stands in for the call by which Python 3 writes bytes that Python 2 can read."""
    if encoding != "latin1":
        raise Refused(f"a decoder, {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stands in for ``bytes()``, by which Python 3 writes empty bytes for Python 2."""
    return b""


def _record(kind: Any, base: Any = None, state: Any = None) -> Any:
    """Stands in for the call that makes an object in older protocols.

    It makes only objects of the classes that the reader admits by name.
    """
    if kind is not types.SimpleNamespace:
        raise Refused("an object")
    return kind()


_KNOWN = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
    ("copyreg", "_reconstructor"): _record,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("builtins", "bytes"): _no_bytes,
    **{("builtins", kind.__name__): kind for kind in (list, dict, set, frozenset, tuple, object)},
}
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # since Python 2


class _Reader(pickle._Unpickler):
    """The reader that is written in Python, since the one in C makes room for as many remembered
    objects as a damaged number says: some bytes of a file can fill the memory of the machine.
    """

    def __init__(self, file: IO[bytes], records: Collection[tuple[str, str]]):
        # latin1 is the only encoding that keeps the bytes of Python 2's strings.
        super().__init__(file, encoding="latin1")
        self.records = records

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name. Raises :class:`Refused` if there is none; imports nothing."""
        if (module, name) in self.records:
            return types.SimpleNamespace
        place = _RENAMED.get(module, module)
        place = place.replace("numpy._core", "numpy.core", 1)  # numpy 2 renamed it
        if (place, name) not in _KNOWN:
            raise Refused(f"{module}.{name}")
        return _KNOWN[place, name]


def load(file: IO[bytes], where: str, records: Collection[tuple[str, str]] = ()) -> Any:
    """The content of a pickle of any protocol, from Python 2 or 3.

    Arrays come as numpy arrays, and strings of Python 2 as str (to get their bytes, encode them as
    latin1). ``records`` are classes, as (module, name): their objects come as a ``SimpleNamespace``
    of their attributes, and the class is not imported. A UserError if the pickle asks for anything
    else, of which nothing is executed; it names the pickle by ``where``. A damaged pickle raises
    errors of many kinds.
    """
    try:
        return _Reader(file, records).load()
    except Refused as error:
        held = escaped(str(error))[:200]
        raise UserError(
            f"{where} is refused: it holds {held}, where only arrays and plain containers belong."
            " Nothing of it was executed. Do not use this file; get it from the published source."
        ) from None
    except MemoryError:
        raise UserError(
            f"{where} asks for more memory than there is: it is damaged, or this machine too small."
        ) from None


def field(content: Any, key: str) -> Any:
    """``content[key]``, where the key may be str or bytes. A KeyError if there is none."""
    return content[key] if key in content else content[key.encode()]


def text(name: Any) -> Any:
    """A name as str if it was written as bytes, else as it is."""
    return name.decode("utf-8") if isinstance(name, bytes) else name
