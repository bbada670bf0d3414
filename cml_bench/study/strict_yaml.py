"""The one reader of YAML files. It refuses what PyYAML would drop or misread without a word.

As YAML 1.1 says, PyYAML keeps the last of two equal keys, and reads ``010`` as 8 and ``1:30`` as
90. A merge key (``<<``) may be overridden: that is what it is for.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from cml_bench.errors import UserError

_TAG = "tag:yaml.org,2002:"
_LEADING_ZERO = re.compile(r"[-+]?0o?[0-9_]+")


def read(path: Path | str, missing: str = "") -> Any:
    """The content of a YAML or JSON file in UTF-8, with or without a byte-order mark.

    A UserError names the file, and the line where there is one. ``missing``: what to say if there
    is no such file.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(missing or f"there is no file {path}.") from None
    except IsADirectoryError:
        raise UserError(f"{path}: Is a directory, not a file.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8. Save the"
            " file as UTF-8."
        ) from None
    return parse(text, str(path))


def parse(text: str, where: str) -> Any:
    """As :func:`read`, for a text from the file ``where``."""
    is_json, content = _json(text)
    try:
        # A tab is white space in JSON, and an error in YAML.
        loader = yaml.SafeLoader(text.replace("\t", " ") if is_json else text)
        node = loader.get_single_node()
        _check(node, where, {})
        return content if is_json or node is None else loader.construct_document(node)
    # ValueError: 2024-02-31, an endless number; RecursionError: [[[[[[...
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where} is not readable as YAML: {error}".replace("\n", " ")) from None


def _json(text: str) -> tuple[bool, Any]:
    """Whether the text is JSON, and its content.

    JSON is read apart because PyYAML misreads a character that JSON escapes as two surrogates.
    """
    try:
        return True, json.loads(text)
    except (ValueError, RecursionError):
        return False, None


def _check(node: yaml.Node | None, where: str, seen: dict[yaml.Node, bool]) -> None:
    """Refuse what is ambiguous in a node and in all below it.

    ``seen`` holds the nodes before it, and of each whether this node lies inside it.
    """
    if node is None:
        return
    if node in seen:
        if seen[node]:
            raise UserError(
                f"{_line(node, where)}: this part holds itself, by the alias of an anchor. Write it"
                " out."
            )
        return
    seen[node] = True
    if isinstance(node, yaml.ScalarNode):
        _check_number(node, _line(node, where))
    elif isinstance(node, yaml.MappingNode):
        _check_keys(node, where)
    for part in node.value if not isinstance(node, yaml.ScalarNode) else ():
        for inner in part if isinstance(part, tuple) else (part,):
            _check(inner, where, seen)
    seen[node] = False


def _check_keys(node: yaml.MappingNode, where: str) -> None:
    keys: dict[tuple[str, str], yaml.Node] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}merge":
            continue
        if key.tag == f"{_TAG}bool":
            truth = yaml.SafeLoader.bool_values[key.value.lower()]
            raise UserError(
                f"{_line(key, where)}: the key {key.value} would be read as {truth}: put it in"
                " quotes."
            )
        first = keys.setdefault((key.tag, key.value), key)
        if first is not key:
            raise UserError(
                f"{_line(key, where)}: the key {key.value!r} stands in line"
                f" {first.start_mark.line + 1} already, and only one of the two would count: remove"
                " or rename one."
            )


def _check_number(node: yaml.ScalarNode, place: str) -> None:
    number = node.tag in (f"{_TAG}int", f"{_TAG}float")
    if number and ":" in node.value:
        meant = f"{yaml.SafeLoader('').construct_object(node):g}"
        raise UserError(
            f"{place}: {node.value} would be read as {meant}, in base 60: write {meant}, or put"
            " quotes on it."
        )
    # 08 and 0o10 are words to YAML, but a model that wants a number would still read one.
    if (number or (node.tag == f"{_TAG}str" and node.style is None)) and _LEADING_ZERO.fullmatch(
        node.value
    ):
        decimal = node.value.replace("o", "").replace("_", "").lstrip("+-0") or "0"
        raise UserError(
            f"{place}: {node.value} begins with 0, and some readers would take it for a number in"
            f" base 8: write {'-' * node.value.startswith('-')}{decimal}, or put it in quotes if it"
            " is a word."
        )


def _line(node: yaml.Node, where: str) -> str:
    return f"{where}, line {node.start_mark.line + 1}"
