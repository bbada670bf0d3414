"""Of which source finished runs are: told from each other, and from what is here.

A method may be edited without a new ``version``. Its runs keep their ids then, so nothing else
tells that a table holds runs of two sources. Records hold the digests of the files that made them
(:mod:`cml_bench.system.sources`); those of earlier versions do not, and are of unknown source.
Imports no torch.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cml_bench.content import Source
from cml_bench.records import Record
from cml_bench.spec import RunSpec
from cml_bench.system import sources

if TYPE_CHECKING:
    from cml_bench.study.plan import Plan

UNKNOWN = "unknown"
_NAMED = 3  # files in a line


def modules(spec: RunSpec) -> tuple[str, ...]:
    """The modules of a run's method, network and data set; loads the plug-ins, thus torch."""
    from cml_bench import registry

    classes: list[type] = [registry.method(spec.method), registry.datasets.get(spec.data.name)]
    if spec.network:
        classes.append(registry.networks.get(spec.network.name))
    return sources.modules_of(classes)


def source(spec: RunSpec) -> Source:
    """Of which source a run is that this process makes."""
    commit, clean = sources.commit()
    return Source(commit=commit, clean=clean, files=sources.loaded(modules(spec)))


def kind(spec: RunSpec) -> str:
    """``maml+cml conv4 omniglot``: runs of one kind have the same modules."""
    return " ".join([spec.method, spec.network.name if spec.network else "-", spec.data.name])


def by_kind(specs: Iterable[RunSpec]) -> dict[str, tuple[str, ...]]:
    """:func:`kind` -> :func:`modules`, for a plan."""
    first = {kind(spec): spec for spec in specs}
    return {key: modules(spec) for key, spec in first.items()}


class Here:
    """The source that is here, for the runs of a plan."""

    def __init__(self, plan: "Plan"):
        self.plan = plan
        self._files: dict[str, dict[str, str]] = {}

    def compared(self, record: Record) -> str:
        """Empty: the run is of the source that is here. Else ``unknown``, or the files that
        differ.
        """
        key = kind(record.spec)
        if record.source is None or key not in self.plan.modules:
            return UNKNOWN
        if key not in self._files:
            self._files[key] = sources.files_of(self.plan.modules[key])
        here = self._files[key]
        then = [record.source.files, *([record.source.begun] if record.source.begun else [])]
        return _listed(
            sorted(
                name
                for files in then
                for name in files.keys() | here.keys()
                if files.get(name) != here.get(name)
            )
        )


def _listed(names: Iterable[str]) -> str:
    different = [*dict.fromkeys(names)]
    more = len(different) - _NAMED
    return ", ".join(different[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def told(compared: Iterable[str]) -> list[str]:
    """Lines for `status`, from what :meth:`Here.compared` says of each finished run."""
    lines = []
    for text, count in Counter(filter(None, compared)).items():
        if text == UNKNOWN:
            lines.append(f"of unknown source: {_runs(count)}, whose records hold none")
        else:
            lines.append(
                f"of other source than here: {_runs(count)} ({text}); to train them anew: python -m"
                " cml_bench retrain METHOD"
            )
    return lines


def sentences(records: Iterable[Record]) -> list[str]:
    """Whether the runs of a table are of unlike source; nothing if they are alike."""
    every = {record.id: record.source for record in records}
    known = [source for source in every.values() if source]
    if not known:
        return []
    said = []
    if missing := len(every) - len(known):
        said.append(f"{missing} of {len(every)} runs do not say which code made them.")
    digests: dict[str, Counter[str]] = {}
    for made in known:
        for files in (made.files, made.begun or {}):
            for name, digest in files.items():
                digests.setdefault(name, Counter())[digest] += 1
    if unlike := {name: counts for name, counts in digests.items() if len(counts) > 1}:
        told = "; ".join(
            f"{name} in {len(counts)} versions ({', '.join(map(str, counts.values()))} runs)"
            for name, counts in sorted(unlike.items())
        )
        said.append(f"Runs of unlike source, so a difference may be the source's: {told}.")
    return said


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count > 1)}"


def commit_of(record: Record) -> str:
    """``caff8b7``, ``caff8b7 with changes``, or ``unknown``."""
    made = record.source
    if made is None or not made.commit:
        return UNKNOWN
    return made.commit[:12] + ("" if made.clean else " with changes")
