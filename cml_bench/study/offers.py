"""What a configuration can name: methods, data sets and networks, for people to read.

What a class says of itself is told: the first line of its file and the descriptions of its options.
"""

import json
import sys
import textwrap
import typing
from collections.abc import Container, Iterator
from typing import Any

from pydantic import BaseModel

from cml_bench import registry
from cml_bench.study import places

KINDS = (*registry.by_kind,)
_NARROWEST = 60  # columns: names of options and their descriptions stand beside each other
_PLACES = {"methods": places.METHOD, "data": places.DATA, "networks": places.NETWORK}


def names(kind: str) -> list[str]:
    """The names of a kind: one of KINDS."""
    if kind == "methods":
        return registry.method_names()
    return registry.by_kind[kind].names()


def text(kind: str, width: int) -> str:
    """Each name of a kind with a line of explanation and its options, in lines of ``width``."""
    width = max(width, _NARROWEST)
    start = f"Options are set under {_PLACES[kind]}; the value behind = is the default."
    blocks = [textwrap.fill(start, width)]
    blocks += [
        _block(title, explanation(plugin), _options(plugin.Options), width)
        for title, plugin in _titled(kind)
    ]
    blocks += [_colearner(width)] if kind == "methods" else []
    return "\n\n".join(blocks)


def brief(width: int) -> str:
    """All kinds: a line for each name, in lines of ``width``, and how to see the options."""
    width, blocks = max(width, _NARROWEST), []
    for kind in KINDS:
        lines = [f"{kind}, with their options: python -m cml_bench list {kind}"]
        for title, plugin in _titled(kind):
            lines += textwrap.wrap(
                f"{title}: {explanation(plugin)}",
                width,
                initial_indent="  ",
                subsequent_indent="      ",
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _titled(kind: str) -> Iterator[tuple[str, Any]]:
    """Each name of a kind as a list shows it, with its class."""
    known = registry.by_kind[kind]
    for name in known.names():
        plugin = known.get(name)
        also = kind == "methods" and plugin.accepts_colearner
        yield f"{name} (and {name}{registry.CML})" if also else name, plugin


def explanation(cls: type) -> str:
    """The first line of the class's file without its name, else of the class; empty: none."""
    line = _first_line(sys.modules[cls.__module__].__doc__)
    start = f"``{getattr(cls, 'name', '')}``:"
    own = line.removeprefix(start) if line.startswith(start) else _first_line(vars(cls)["__doc__"])
    return own.strip()


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().partition("\n")[0]


def _colearner(width: int) -> str:
    """What ``+cml`` adds to the options of a method."""
    joined = next(name for name in registry.method_names() if name.endswith(registry.CML))
    alone = registry.method(joined.removesuffix(registry.CML)).Options.model_fields
    more = _options(registry.method(joined).Options, left_out=alone)
    return _block(
        f"x{registry.CML}",
        "CML around a method x. Its options are those of x, and under cml:",
        more,
        width,
    )


def _options(
    model: type[BaseModel], prefix: str = "", left_out: Container[str] = ()
) -> dict[str, str]:
    """``name = default`` -> description. An option within an option has a dot in its name."""
    told: dict[str, str] = {}
    for name, field in model.model_fields.items():
        if name in left_out:
            continue
        value, choices = field.get_default(), typing.get_args(field.annotation)
        if isinstance(value, BaseModel):
            told |= _options(type(value), f"{prefix}{name}.")
            continue
        words = choices if typing.get_origin(field.annotation) is typing.Literal else ()
        listed = f"({' | '.join(words)}) " if len(words) > 1 else ""
        told[f"{prefix}{name} = {_value(value)}"] = f"{listed}{field.description or ''}"
    return told


def _value(value: Any) -> str:
    """A default as a configuration would write it."""
    return value if isinstance(value, str) else json.dumps(value)


def _block(title: str, said: str, options: dict[str, str], width: int) -> str:
    column = max(map(len, options), default=0) + 2
    lines = textwrap.wrap(f"{title}: {said}", width, subsequent_indent="    ")
    for option, description in options.items():
        lines += textwrap.wrap(
            f"    {option:{column}}{description}",
            width,
            subsequent_indent=" " * (4 + column),
            break_on_hyphens=False,
        )
    return "\n".join(lines)
