"""A configuration without what belongs to one machine. Imports no torch."""

import json
from pathlib import Path
from typing import Any

from cml_bench.study.plan import Plan
from cml_bench.study.schema import one_or_several

_OF_A_MACHINE = ("results", "data_dir", "sources", "acknowledged")


def portable(plan: Plan, configuration: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a plan, for other machines.

    A plug-in with a full path becomes the file's name. A data set of one's own images has their
    digest instead of the folder, which is enough for what is made of runs that exist.
    """
    kept = {key: value for key, value in configuration.items() if key not in _OF_A_MACHINE}
    if "plugins" in kept:
        kept["plugins"] = [_beside(path) for path in one_or_several(kept["plugins"])]
    for name, methods in plan.members.items():
        runs = [run for by_shot in methods.values() for seeds in by_shot.values() for run in seeds]
        for digest in {plan.specs[run].data.options.get("sha256") for run in runs} - {None}:
            one = kept["experiments"][name]
            options = {k: v for k, v in one.get("data_options", {}).items() if not _is_place(k, v)}
            one = {**one, "data_options": {**options, "sha256": digest}}
            kept["experiments"] = {**kept["experiments"], name: one}
    return kept


def plugins_of(configuration: bytes) -> tuple[str, ...]:
    """The plug-ins that a configuration in JSON names; none where it cannot be read."""
    try:
        named = one_or_several(json.loads(configuration)["plugins"])
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(map(str, named)) if isinstance(named, list) else ()


def _beside(path: str) -> str:
    return f"./{Path(path).name}" if Path(path).is_absolute() else path


def _is_place(key: str, value: Any) -> bool:
    """Whether an option of a data set says where something is: not the name of a shipped list."""
    return key == "root" or (key == "lists" and not str(value).isidentifier())
