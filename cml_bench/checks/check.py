"""Which laws apply to a method, a data set or a network of this name, and whether they hold."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cml_bench import plugins, registry
from cml_bench.checks import laws, trace
from cml_bench.checks.subject import Subject, opened, way_of
from cml_bench.checks.tiny import Place, Study, by_workflow, in_process
from cml_bench.data.base import DataSet
from cml_bench.errors import UserError, unknown
from cml_bench.registry import CML
from cml_bench.study import offers
from cml_bench.system.files import write_json

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


def check(
    name: str, data_dir: Path, accept: bool = False, workflow: bool = False
) -> Iterator[Outcome]:
    """Try the laws of every method, data set and network of this name, one after another.

    Files that are fetched are looked for in ``data_dir``; everything else is made in a temporary
    folder. ``accept``: where all laws hold, keep the golden trace of a plug-in as it is now.
    ``workflow``: make the tiny study by Snakemake, with its tables. A UserError for a name that
    nothing has, and for data that is not prepared.
    """
    kinds = {"methods": _of_method, "networks": _of_network, "data": _of_data}
    known = {kind: registry.by_kind[kind].names() for kind in kinds}
    if not any(name in names for names in known.values()):
        raise unknown(
            "method, data set or network", name, {n for own in known.values() for n in own}
        )
    for kind, names in known.items():
        if name in names:
            with tempfile.TemporaryDirectory() as folder:
                study, failed = by_workflow if workflow else in_process, False
                for outcome in kinds[kind](name, Path(folder), data_dir, study):
                    failed |= bool(outcome.said and not outcome.left_out)
                    yield outcome
                yield _golden(kind, name, Path(folder), data_dir, accept, failed)


def text(outcome: Outcome) -> str:
    """A line for the terminal."""
    word = "left out" if outcome.left_out else "FAILS" if outcome.said else "holds"
    return f"{word:10s}{outcome.law}{': ' if outcome.said else ''}{outcome.said}"


def _golden(
    kind: str, name: str, folder: Path, data_dir: Path, accept: bool, failed: bool
) -> Outcome:
    """What became of the golden trace: held, kept, or left out with the reason."""
    named, cls = "golden trace", registry.by_kind[kind].get(name)
    path = trace.path_of(cls, name)
    if kind == "methods" and not cls.learns:
        return Outcome(named, "it does not learn", left_out=True)
    if path is None:
        return _of_project(named, kind, name)
    if accept and failed:
        return Outcome(named, "it is not kept, since other checks fail", left_out=True)
    if not accept and not path.exists():
        return Outcome(named, f"there is none: --accept keeps it in {path}", left_out=True)

    def held() -> None:
        now = _trace(kind, name, folder, data_dir)
        if accept:
            write_json(path, now, indent=1)
        trace.hold(now, path)

    return _tried(f"{named}{' is kept' if accept else ''}", held)


def _of_project(named: str, kind: str, name: str) -> Outcome:
    """Of the package's own: in a clone, a method must have a trace, which its tests hold."""
    if kind != "methods" or not trace.OF_PROJECT.is_dir():
        return Outcome(named, "the tests of the project hold it", left_out=True)
    path = trace.OF_PROJECT / f"{name}.json"
    shown = path.relative_to(trace.OF_PROJECT.parents[2]).as_posix()
    if not path.is_file():
        return Outcome(named, f"{shown} is not there: `make traces` writes it")
    return Outcome(named, f"{shown}, held by the project's tests", left_out=True)


def _trace(kind: str, name: str, folder: Path, data_dir: Path) -> trace.Trace:
    if kind == "data":
        files = registry.datasets.get(name).files
        data = _prepared(name, data_dir) if files else opened(name, folder)
        return trace.of_data(data, way_of(data))
    if kind == "methods":
        place = _PLACES[registry.methods.get(name).needs or "images"]
        return trace.of_method(_subjects(place, folder), name)
    method = _METHODS[registry.networks.get(name).takes]
    return trace.of_method(_subjects(_place_of(name), folder), method)


def _subjects(place: Place, folder: Path) -> laws.Make:
    network, options, data, data_options = place
    source = opened(data, folder, data_options)
    return functools.partial(Subject, network=network, data=source, network_options=options)


def _place_of(network: str) -> Place:
    """What a network is tried on."""
    cls = registry.networks.get(network)
    _, _, data, options = _PLACES[cls.takes]
    if cls.takes == "images":
        options = {"size": max(16, cls.smallest)}
    return network, {}, data, options


def _tried(named: str, law: Callable[..., None], *arguments: Any) -> Outcome:
    try:
        law(*arguments)
    except (laws.Broken, UserError) as error:
        return Outcome(named, str(error).rstrip("."))
    except Exception as error:
        return Outcome(named, plugins.cause(error))
    return Outcome(named)


def _of_method(name: str, folder: Path, data_dir: Path, study: Study) -> Iterator[Outcome]:
    cls = registry.methods.get(name)
    yield _tried("it says what it is", _is_told, cls)
    takes = cls.needs or "images"
    if cls.learns:
        make = smooth = _subjects(_PLACES[takes], folder)
        if takes == "images" and not cls.needs_classes:
            waves = opened("sinusoid", folder)
            smooth = functools.partial(Subject, network="mlp", data=waves, network_options=_SMOOTH)
        yield _tried("tasks do not meet", laws.tasks_do_not_meet, make, name)
        yield _tried("fast and plain path are equal", laws.paths_are_equal, make, name)
        yield _exact(smooth, name)
        named = "it equals its reference"
        if cls.reference:
            yield _tried(named, laws.equals_its_reference, make, name)
        else:
            yield Outcome(named, "its class has no `reference`", left_out=True)
        yield from _with_colearner(make, name)
    yield _tried("a tiny study", study, name, _PLACES[takes], folder)


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


def _of_network(name: str, folder: Path, data_dir: Path, study: Study) -> Iterator[Outcome]:
    cls = registry.networks.get(name)
    yield _tried("it says what it is", _is_told, cls)
    method, place = _METHODS[cls.takes], _place_of(name)
    if "filters" in cls.Options.model_fields:  # its shape is the same, and all is quicker
        place = (name, {"filters": 4}, *place[2:])
    make = _subjects(place, folder)
    yield _tried("shapes are as it says", laws.shapes_are_told, make, method)
    yield _tried("tasks do not meet", laws.tasks_do_not_meet, make, method)
    yield _tried("fast and plain path are equal", laws.paths_are_equal, make, method)
    yield _exact(make, method)
    named = "a co-learner of any depth learns"
    yield _tried(named, laws.colearner_has_any_depth, make, method + CML)
    yield from _with_colearner(make, method)
    yield _tried("a tiny study", study, method, place, folder)


def _of_data(name: str, folder: Path, data_dir: Path, study: Study) -> Iterator[Outcome]:
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
    yield _tried("a tiny study", study, _METHODS[takes], place, folder, home)


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
