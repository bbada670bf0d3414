"""Which laws apply to a method, a data set or a network of this name, and whether they hold."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cml_bench import plugins, registry
from cml_bench.checks import laws
from cml_bench.checks.subject import Subject, opened, way_of
from cml_bench.data.base import DataSet
from cml_bench.engine.build import Settings
from cml_bench.engine.learner import load
from cml_bench.engine.run import run
from cml_bench.errors import UserError, unknown
from cml_bench.registry import CML
from cml_bench.study import offers
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve

# What a method is tried on: network, its options, data, its options.
Place = tuple[str, dict[str, Any], str, dict[str, Any]]
_PLACES: dict[str, Place] = {  # by what the network takes
    "images": ("conv4", {"filters": 4}, "glyphs", {"size": 16}),
    "vectors": ("mlp", {"hidden": (7, 7)}, "sinusoid", {}),
    "nodes": ("gcn", {"hidden": 5}, "sbm", {}),
}
_METHODS = {"images": "maml", "vectors": "maml", "nodes": "gmeta"}
_SMOOTH = {"hidden": (7, 7), "activation": "tanh"}


class Outcome(NamedTuple):
    """What became of one law. ``said``: why it fails or is left out; empty: it holds."""

    law: str
    said: str = ""
    left_out: bool = False


def check(name: str, data_dir: Path) -> Iterator[Outcome]:
    """Try the laws of every method, data set and network of this name, one after another.

    Files that are fetched are looked for in ``data_dir``; everything else is made in a temporary
    folder. A UserError for a name that nothing has, and for data that is not prepared.
    """
    kinds = {"methods": _of_method, "networks": _of_network, "data": _of_data}
    known = {
        "methods": registry.methods.names(),
        "networks": registry.networks.names(),
        "data": registry.datasets.names(),
    }
    if not any(name in names for names in known.values()):
        raise unknown(
            "method, data set or network", name, {n for own in known.values() for n in own}
        )
    for kind, names in known.items():
        if name in names:
            with tempfile.TemporaryDirectory() as folder:
                yield from kinds[kind](name, Path(folder), data_dir)


def text(outcome: Outcome) -> str:
    """A line for the terminal."""
    word = "left out" if outcome.left_out else "FAILS" if outcome.said else "holds"
    return f"{word:10s}{outcome.law}{': ' if outcome.said else ''}{outcome.said}"


def _tried(named: str, law: Callable[..., None], *arguments: Any) -> Outcome:
    try:
        law(*arguments)
    except (laws.Broken, UserError) as error:
        return Outcome(named, str(error).rstrip("."))
    except Exception as error:
        return Outcome(named, plugins.cause(error))
    return Outcome(named)


def _of_method(name: str, folder: Path, data_dir: Path) -> Iterator[Outcome]:
    cls = registry.methods.get(name)
    yield _tried("it says what it is", _is_told, cls)
    takes = cls.needs or "images"
    network, options, data, data_options = _PLACES[takes]
    if cls.learns:
        source = opened(data, folder, data_options)
        make = functools.partial(Subject, network=network, data=source, network_options=options)
        smooth = make
        if takes == "images" and not cls.needs_classes:
            waves = opened("sinusoid", folder)
            smooth = functools.partial(Subject, network="mlp", data=waves, network_options=_SMOOTH)
        yield _tried("tasks do not meet", laws.tasks_do_not_meet, make, name)
        yield _tried("fast and plain path are equal", laws.paths_are_equal, make, name)
        yield _exact(smooth, name)
        yield from _with_colearner(make, name)
    yield _tried("a tiny study", _tiny, name, _PLACES[takes], folder)


def _exact(make: laws.Make, name: str) -> Outcome:
    """Whether the outer gradient is exact, unless the method says that it is not."""
    named, cls = "the outer gradient is exact", registry.method(name)
    if not cls.gradient_is_exact:
        return Outcome(named, "its class says that it is not", left_out=True)
    fields = cls.Options.model_fields
    second = {"first_order": False} if "first_order" in fields else {}
    fixed = second and fields["first_order"].annotation is not bool
    if fixed or cls.second_order is False:  # a property is neither
        return Outcome(named, "it is of first order", left_out=True)
    return _tried(named, laws.gradient_is_exact, functools.partial(make, options=second), name)


def _with_colearner(make: laws.Make, name: str) -> Iterator[Outcome]:
    apart = "the co-learner stays apart from adaptation"
    cls = registry.methods.get(name)
    if not cls.accepts_colearner:
        reason = f": {cls.no_colearner}" if cls.no_colearner else ""
        yield Outcome(f"{name}{CML}", f"it accepts no co-learner{reason}", left_out=True)
        return
    law = laws.gamma_zero_is_the_baseline
    yield _tried(f"{name}{CML} at gamma 0 is {name}", law, make, name)
    if cls.co_in_inner_loop:
        yield Outcome(apart, "its class says co_in_inner_loop", left_out=True)
    else:
        yield _tried(apart, laws.phi_stays_apart, make, name)


def _of_network(name: str, folder: Path, data_dir: Path) -> Iterator[Outcome]:
    cls = registry.networks.get(name)
    yield _tried("it says what it is", _is_told, cls)
    method, (_, _, data, options) = _METHODS[cls.takes], _PLACES[cls.takes]
    if cls.takes == "images":
        options = {"size": max(16, cls.smallest)}
    make = functools.partial(Subject, network=name, data=opened(data, folder, options))
    yield _tried("shapes are as it says", laws.shapes_are_told, make, method)
    yield _tried("tasks do not meet", laws.tasks_do_not_meet, make, method)
    yield _tried("fast and plain path are equal", laws.paths_are_equal, make, method)
    yield _exact(make, method)
    named = "a co-learner of any depth learns"
    yield _tried(named, laws.colearner_has_any_depth, make, method + CML)
    yield from _with_colearner(make, method)
    yield _tried("a tiny study", _tiny, method, (name, {}, data, options), folder)


def _of_data(name: str, folder: Path, data_dir: Path) -> Iterator[Outcome]:
    cls = registry.datasets.get(name)
    yield _tried("it says what it is", _is_told, cls)
    home = data_dir if cls.files else folder
    data = opened(name, home) if not cls.files else _prepared(name, home)
    way = way_of(data)
    law = laws.episodes_follow_from_their_number
    yield _tried("a task follows from its number", law, data, way)
    yield _tried("examples are as it says", laws.examples_have_their_shape, data, way)
    named = "preparing it twice gives the same"
    if data.has_files and not cls.files:
        yield _tried(named, laws.preparing_twice_is_the_same, data, folder / "again")
    takes = data.gives or ("images" if len(data.input_shape) == 3 else "vectors")
    network, options, *_ = _PLACES[takes]
    if takes == "images" and min(data.input_shape[1:]) < registry.networks.get(network).smallest:
        yield Outcome("a tiny study", f"its images are too small for {network}", left_out=True)
        return
    place: Place = (network, options, name, {})
    yield _tried("a tiny study", _tiny, _METHODS[takes], place, folder, home)


def _prepared(name: str, folder: Path) -> DataSet:
    """Data of which the files are fetched: a UserError tells the command, if it is not there."""
    import torch

    cls = registry.datasets.get(name)
    return cls(cls.Options()).open(folder, torch.device("cpu"), torch.float64)


def _is_told(cls: type[Any]) -> None:
    """``list`` shows the first line of the file and what every option says."""
    if not offers.explanation(cls):
        raise laws.Broken("the first line of its file, or of its class, must say what it is")
    for option, field in cls.Options.model_fields.items():
        if not field.description:
            raise laws.Broken(f"the option {option} has no description")
    cls.Options()


def _tiny(
    method: str,
    place: Place,
    folder: Path,
    data_dir: Path | None = None,
) -> None:
    """Plan and make a run of four steps of the method, and of it with a co-learner; reopen them."""
    network, network_options, data, data_options = place
    cls, source = registry.method(method), registry.datasets.get(data)
    pair = [method, *([method + CML] if cls.learns and cls.accepts_colearner else [])]
    experiment = {
        "data": data,
        "data_options": data_options,
        "network": network,
        "network_options": network_options,
        "way": way_of(source(source.Options.read(data_options, data))),
        "shots": [2],
        "query": 2,
        "steps": 4,
        "protocol_options": {"val_every": 2, "val_tasks": 2},
        "evaluation": {"tasks": 4, "query": 2},
        "methods": {name: {} for name in pair},
    }
    study = {"study": "check", "seeds": 1, "experiments": {"tiny": experiment}}
    where, home = "a tiny study", data_dir or folder
    settings = Settings(
        results=folder / "results", data_dir=home, path="fast", report=lambda line: None
    )
    for spec in resolve(parse(study, where), where).specs.values():
        record = run(spec, settings)
        if not record.results:
            raise laws.Broken(f"the run of {spec.method} has no results: it diverged")
        if cls.learns:
            load(record.folder, settings.results, home)
