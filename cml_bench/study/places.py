"""Says where a misplaced key of a configuration belongs.

Nothing is listed by hand: the places follow from the models of the configuration and from the
options of every plug-in. Imports torch only when asked.
"""

import functools
import itertools
import typing
from collections.abc import Iterator

from pydantic import BaseModel

from cml_bench.spec import Belongs, Protocol
from cml_bench.study.schema import Study

DATA, NETWORK = "experiments.NAME.data_options", "experiments.NAME.network_options"
METHOD, PROTOCOL = "experiments.NAME.methods.NAME.options", "experiments.NAME.protocol_options"
FIGURE = "figures.NAME"
_SHOWN = 3


def instead_of(here: str = "") -> Belongs:
    """A function from the path of an unknown key below ``here`` to the place where it belongs.

    The place is empty where no such key is known.

    ``instead_of()(("inner_lr",))`` is ``experiments.NAME.methods.NAME.options``.
    """
    return lambda path: _place((*filter(None, here.split(".")), *map(str, path)))


def _place(path: tuple[str, ...]) -> str:
    *home, key = path
    places = [
        place
        for place, keys in (*_of_models(), *_of_plugins())
        if key in keys and not _is(place, keys, home)
    ]
    places.sort(key=lambda place: not place.startswith("experiments"))
    return " or ".join(list(dict.fromkeys(place or "the top level" for place in places))[:_SHOWN])


def _is(place: str, keys: frozenset[str], home: list[str]) -> bool:
    """Whether ``home`` is this place, or one item of a list or mapping there; such a key must not
    be sent back to it.
    """
    pattern = list(filter(None, place.split(".")))
    same = len(pattern) <= len(home) and all(
        w in ("NAME", h) for w, h in zip(pattern, home, strict=False)
    )
    more = home[len(pattern) :]
    return same and (not more or (len(more) == 1 and more[0] not in keys))


@functools.cache
def _of_models() -> list[tuple[str, frozenset[str]]]:
    return [*_below("", Study), *_below(PROTOCOL, Protocol)]


@functools.cache
def _of_plugins() -> list[tuple[str, frozenset[str]]]:
    from cml_bench import registry

    methods, networks = map(registry.method, registry.method_names()), registry.networks
    models: list[tuple[str, type[BaseModel]]] = [
        *((FIGURE, registry.figures.get(name)) for name in registry.figures.names()),
        *((METHOD, method.Options) for method in methods),
        *((NETWORK, networks.get(name).Options) for name in networks.names()),
        *((DATA, registry.datasets.get(name).Options) for name in registry.datasets.names()),
    ]
    known = itertools.chain.from_iterable(_below(place, model) for place, model in models)
    return list(dict.fromkeys(known))


def _below(place: str, model: type[BaseModel]) -> Iterator[tuple[str, frozenset[str]]]:
    """The keys of a model and of the models in it, each with its place."""
    yield place, frozenset(model.model_fields)
    for name, field in model.model_fields.items():
        for names, inner in _models(field.annotation):
            yield from _below(".".join(filter(None, (place, name, *names))), inner)


def _models(annotation: object) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """The models in a type, each with ``NAME`` for every mapping around it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield (), annotation
    names = ("NAME",) if typing.get_origin(annotation) is dict else ()
    for part in typing.get_args(annotation):
        yield from (((*names, *more), model) for more, model in _models(part))
