"""YAML in which something would be lost or misread is refused, with file and line."""

import re
from typing import Literal

import pytest
import yaml
from pydantic import Field

from cml_bench import registry
from cml_bench.data._source import RemoteFile
from cml_bench.data.prepared import LocalCopy
from cml_bench.errors import UserError
from cml_bench.evidence import paper
from cml_bench.spec import Options
from cml_bench.study import config, places, strict_yaml
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from tests.helpers.studies import changed, study


def refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        strict_yaml.parse(text, "my.yaml")
    assert str(caught.value).startswith("my.yaml, line ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "key", "first"),
    [
        ("a: 1\nb: 2\na: 3", 3, "a", 1),
        (
            (
                "experiments:\n  e:\n    methods:\n      maml: {}\n      boil: {}\n      maml:"
                " {steps: 3}"
            ),
            6,
            "maml",
            4,
        ),
        ("tables:\n  t: {}\n  't': {}", 3, "t", 2),
        ("list:\n- {x: 1,\n   y: 2, x: 3}", 3, "x", 2),
        ("b: &b {x: 1}\nc:\n  <<: *b\n  x: 2\n  x: 3", 5, "x", 4),
        ('{"a": {"b": 1,\n\t"b": 2}}', 2, "b", 1),
    ],
)
def test_a_key_given_twice_is_refused(text, line, key, first):
    refused(
        text,
        rf"line {line}: the key '{key}' stands in line {first} already, .* remove or rename one\.",
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("010", "write 10,"),
        ("-0777", "write -777,"),
        ("+010", "write 10,"),
        ("08", "write 8,"),
        ("0o10", "write 10,"),
        ("0_1", "write 1,"),
        ("00", "write 0,"),
        ("!!int '010'", "write 10,"),
        ("1:30", "read as 90, .* write 90"),
        ("1:30.5", "read as 90.5"),
        ("-2:00:01", "read as -7201"),
    ],
)
def test_a_number_that_is_another_in_yaml_is_refused(text, written):
    refused(f"a: 1\nseeds: [1,\n  {text}]", f"my.yaml, line 3: .*{written}")
    refused(f"a: 1\n? {text}\n: x", f"my.yaml, line 2: .*{written}")


@pytest.mark.parametrize("word", ["no", "On", "YES", "true"])
def test_a_key_that_is_a_truth_value_is_refused(word):
    refused(
        f"methods:\n  {word}: {{}}",
        f"line 2: the key {word} would be read as (True|False): put it in quotes",
    )


def test_what_is_plain_is_read_as_before():
    text = """
    a: &a {x: 1, y: 2}
    b: {<<: *a, y: 3}
    c: {<<: [{x: 4}, {x: 5, z: 6}], on time: 1}
    numbers: [0, -0, 10, 0x10, 0b11, 1_000, 0.5, 00.5, 1e-3, 1.5e+3]
    words: ['010', "1:30", "08", ab:cd, 0a, 10:x, v0.1]
    flags: [yes, off]
    again: *a
    """
    assert strict_yaml.parse(text, "x") == yaml.safe_load(text)
    assert strict_yaml.parse(text, "x")["b"] == {"x": 1, "y": 3}
    assert strict_yaml.parse("", "x") is None
    assert strict_yaml.parse('{"a":\n\t"\\ud83d\\ude80", "b": 1e-3}', "x") == {
        "a": "🚀",
        "b": 0.001,
    }


def test_byte_order_marks_and_other_encodings(tmp_path):
    path = tmp_path / "größe.yaml"
    for content in ("study: größe", '{"study": "größe"}'):
        path.write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert strict_yaml.read(path) == {"study": "größe"}
    for encoding, byte in (("latin-1", "0xf6"), ("utf-16", "0xff")):
        path.write_bytes("a: 1\nstudy: größe".encode(encoding))
        with pytest.raises(
            UserError, match=rf"größe\.yaml, line [12]: byte {byte} is not UTF-8\. Save the file as"
        ):
            strict_yaml.read(path)
    with pytest.raises(UserError, match="Is a directory, not a file"):
        strict_yaml.read(tmp_path)


@pytest.mark.parametrize(
    "text", ["a: [1", "a: 2024-02-31", "[" * 400, "a: \x01", "a: 1\n---\nb: 2", "a: !!x y"]
)
def test_what_is_no_yaml_is_one_sentence(text):
    with pytest.raises(UserError, match=r"^my\.yaml is not readable as YAML: ") as caught:
        strict_yaml.parse(text, "my.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["&a [*a]", "study: &a {x: *a}", "a: &a\n- b: &b {c: *a}", "x: &x {y: {<<: *x}}"]
)
def test_a_file_that_holds_itself_is_refused(text):
    refused(text, "line 1: this part holds itself")


def test_configurations_their_parts_and_published_numbers_have_the_one_reader(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part.yaml").write_text("tables:\n  t: {}\n  t: {}\n")
    (tmp_path / "whole.yaml").write_text("study: x\ninclude: part.yaml\n")
    (tmp_path / "more.yaml").write_text("study: x\nseeds: [010]\n")
    for path, line in (("whole.yaml", r"part\.yaml, line 3"), ("more.yaml", r"more\.yaml, line 2")):
        with pytest.raises(UserError, match=line):
            config.read(path)
    with pytest.raises(UserError, match=r"more\.yaml, line 2"):
        config.merged(["whole.yaml", "more.yaml"])
    with pytest.raises(UserError, match=r"part\.yaml, line 3"):
        paper.read("part.yaml")


# -- where a key belongs


@pytest.mark.parametrize(
    ("path", "key", "place"),
    [
        ("", "inner_lr", "experiments.NAME.methods.NAME.options"),
        (
            "experiments.s",
            "inner_steps",
            "experiments.NAME.evaluation or experiments.NAME.methods.NAME.options or tables.NAME",
        ),
        ("experiments.s.methods.maml", "inner_lr", "experiments.NAME.methods.NAME.options"),
        ("", "gamma", "experiments.NAME.methods.NAME.options.cml"),
        ("experiments.s.methods.maml", "filters", "experiments.NAME.network_options"),
        ("", "split", "experiments.NAME.data_options"),
        ("experiments.s", "val_every", "experiments.NAME.protocol_options"),
        ("", "shots", "experiments.NAME or tables.NAME.columns or figures.NAME"),
        ("experiments.s", "tasks", "experiments.NAME.evaluation or figures.NAME"),
        ("experiments.s.methods.maml", "device", "the top level"),
        ("tables.sinusoid.rows.0", "caption", "tables.NAME or figures.NAME"),
    ],
)
def test_an_unknown_key_is_told_where_it_belongs(path, key, place):
    content = changed(f"{path}.{key}".removeprefix("."), 1)
    where = re.escape(f"{path}.{key}".removeprefix("."))
    with pytest.raises(
        UserError, match=rf"my\.yaml: unknown key '{where}': it belongs under {re.escape(place)}\.$"
    ):
        parse(content, "my.yaml")


@pytest.mark.parametrize(
    ("path", "key", "told"),
    [
        ("methods.maml.options", "val_every", "belongs under experiments.NAME.protocol_options"),
        ("methods.maml.options", "cml.inner_lr", "known keys: inner_steps"),
        ("network_options", "inner_lr", "belongs under experiments.NAME.methods.NAME.options"),
        ("network_options", "filters", "known keys: hidden"),  # an option of another network
        ("data_options", "hidden", "belongs under experiments.NAME.network_options"),
        (
            "protocol_options",
            "steps",
            "belongs under experiments.NAME or experiments.NAME.methods.NAME",
        ),
    ],
)
def test_an_unknown_option_is_told_where_it_belongs(path, key, told):
    content = changed(f"experiments.s.{path}", {key: 1})
    with pytest.raises(
        UserError, match=rf"my\.yaml, .*unknown key '{re.escape(key)}'[:;] .*{re.escape(told)}"
    ):
        resolve(parse(content, "my.yaml"), "my.yaml")


def test_what_is_known_nowhere_has_no_place():
    assert places.instead_of()(("sedes",)) == ""
    with pytest.raises(UserError, match=r"unknown key 'sedes'; known keys: study"):
        parse(study(sedes=3), "my.yaml")


# -- digests and reserved names


def test_digests_may_be_in_capitals():
    digest = "0123456789abcdef" * 4
    assert LocalCopy(path="x", sha256=digest.upper()) == LocalCopy(path="x", sha256=digest)
    for wrong in (digest[1:], digest[1:] + "g", digest + "\n", digest + "a"):
        with pytest.raises(UserError, match="sha256: String should match"):
            LocalCopy.read({"path": "x", "sha256": wrong}, "sources")
    assert RemoteFile("x", (), 0, sha256=digest.upper()).digest == f"sha256:{digest}"
    assert RemoteFile("x", (), 0, md5=digest[:32].upper()).digest == f"md5:{digest[:32]}"


def plugin(kind: type, option: str, default: object) -> type:
    return type(
        "Plugin",
        (),
        {"Options": type("O", (Options,), {"__annotations__": {option: kind}, option: default})},
    )


@pytest.mark.parametrize(
    ("entries", "kind", "option"),
    [
        (registry.datasets, list[str], "split"),
        (registry.datasets, int, "split"),
        (registry.methods, int, "cml"),
        (registry.datasets, str | None, "split"),
        (registry.methods, list[float], "inner_lr"),
        (registry.methods, str, "inner_steps"),
        (registry.methods, float | None, "inner_lr_init"),
    ],
)
def test_an_option_with_a_name_that_means_something_else_is_refused(entries, kind, option):
    with pytest.raises(
        UserError,
        match=rf"test_strict_yaml: the .* 'plugin' has an option '{option}' .* Rename it\.",
    ):
        entries.register("plugin")(plugin(kind, option, Field(None)))
    assert "plugin" not in entries.names()


@pytest.mark.parametrize("name", ["My-Set", "a b", "../x", "", "größe"])
def test_a_plug_in_has_a_name_that_can_be_a_folder(name):
    with pytest.raises(UserError, match="cannot be called so"):
        registry.datasets.register(name)(plugin(int, "size", 28))
    assert name not in registry.datasets.names()


@pytest.mark.parametrize(("kind", "default"), [(str, "r0"), (Literal["a", "b"], "a")])
def test_a_class_split_is_an_option_like_others(kind, default, monkeypatch):
    monkeypatch.setattr(registry.datasets, "_entries", dict(registry.datasets._entries))
    registry.datasets.register("plugin")(plugin(kind, "split", default))
    assert "plugin" in registry.datasets.names()
