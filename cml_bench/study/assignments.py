"""Options of a configuration that are set beside it: ``glyphs.maml+cml.cml.gamma=0.2,0.5,1``.

An assignment names an experiment, a method of it, and an option as a sweep does (``inner_lr``,
``cml.gamma``, ``network.filters``, ``protocol.outer_lr``). One value takes the place of what the
configuration says. Several make a sweep over them, or a further option of the sweep that is there.
They come from ``--set``, or from the key ``set`` at the top level, by which Snakemake hands them
on. Imports no torch.
"""

from collections.abc import Sequence
from typing import Any

import yaml

from cml_bench.errors import UserError, unknown
from cml_bench.study.sweeps import put

_EXAMPLE = "such as glyphs.maml+cml.cml.gamma=0.2,0.5,1"


def assigned(content: Any, where: str) -> Any:
    """The configuration with what its key ``set`` says, and without that key.

    A UserError names an assignment that cannot be read, or an experiment or method that is not
    there. Whether the option exists is known when the plan is made.
    """
    if not isinstance(content, dict) or "set" not in content:
        return content
    whole: dict[str, Any] = _unshared({k: v for k, v in content.items() if k != "set"})
    for word in listed(content["set"]):
        if not isinstance(word, str):
            raise UserError(f"{where}: set holds {word!r}, which is no assignment, {_EXAMPLE}.")
        _assign(whole, word, f"{where}: set {word}")
    return whole


def listed(given: Any) -> Sequence[Any]:
    """The assignments under a key ``set``, which has them as a list or as one text."""
    return given.split() if isinstance(given, str) else given or ()


def _unshared(value: Any) -> Any:
    """A copy in which no mapping stands in two places, as one that YAML's anchors repeat does.

    So what is set in one place stays there. A deep copy would keep them shared.
    """
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _assign(whole: dict[str, Any], word: str, place: str) -> None:
    path, equals, text = word.partition("=")
    parts = path.split(".", 2)
    if not equals or len(parts) < 3 or not all(parts) or not all(text.split(",")):
        raise UserError(f"{place} is not EXPERIMENT.METHOD.OPTION=VALUE[,VALUE...], {_EXAMPLE}.")
    name, method, option = parts
    experiment = _inside(whole, "experiments", name, place, "experiment")
    entry = _inside(experiment, "methods", method, place, f"method of {name}")
    values = [_value(one, place) for one in text.split(",")]
    if len(values) == 1:
        put(entry, option, values[0])
        return
    sweep = experiment["sweep"] = experiment.get("sweep") or {}
    sweep["methods"] = sweep.get("methods") or {}
    sweep["methods"][method] = {**(sweep["methods"].get(method) or {}), option: values}


def _inside(outer: dict[str, Any], key: str, name: str, place: str, kind: str) -> dict[str, Any]:
    """``outer[key][name]``, made a mapping if it is empty."""
    every = outer.get(key)
    if not isinstance(every, dict) or name not in every:
        known = list(map(str, every)) if isinstance(every, dict) else []
        raise UserError(f"{place}: {unknown(kind, name, known)}")
    if every[name] is None:
        every[name] = {}
    if not isinstance(every[name], dict):
        raise UserError(f"{place}: {key}.{name} is no mapping of keys to values.")
    inside: dict[str, Any] = every[name]
    return inside


def _value(text: str, place: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = {}
    if isinstance(value, dict | list):
        raise UserError(f"{place}: {text!r} is no number or word.")
    return value
