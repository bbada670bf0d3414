"""Letters beyond ASCII in every output and every file name, under any locale."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from cml_bench.system import utf8
from tests.helpers.plans import dumped
from tests.helpers.studies import changed

ROOT = Path(__file__).parent.parent
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES = {
    "none": ASCII,
    "plain C": {"LC_ALL": "C"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "none, and latin-1": ASCII | {"PYTHONIOENCODING": "latin-1"},
}


def started(locale: dict[str, str], *command: str) -> subprocess.CompletedProcess:
    """Run a program under a locale; its output must be UTF-8."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("LC_", "LANG", "PYTHONUTF8", "PYTHONIO"))
    }
    environment = {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **locale}
    command = (sys.executable, "-m", *command)
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", env=environment
    )


def content(folder: Path) -> dict:
    """A study whose title, labels and folders have letters beyond ASCII."""
    made = changed("tables.sinusoid.title", "Größe ± 1, γ und ψ⋆")
    made["tables"]["sinusoid"]["rows"][1]["label"] = "CML† 🚀"
    return made | {"results": str(folder / "größe"), "data_dir": str(folder / "dätä")}


@pytest.mark.parametrize("locale", LOCALES.values(), ids=LOCALES)
def test_tables_are_utf8_in_every_locale(locale, tmp_path):
    made = content(tmp_path)
    path = tmp_path / "plän.json"
    path.write_text(dumped(resolve(parse(made, "my.yaml"), "my.yaml")), encoding="utf-8")
    done = started(locale, "cml_bench", "table", "--plan", str(path))
    assert done.returncode == 0, done.stderr
    assert "Größe ± 1, γ und ψ⋆" in done.stdout
    assert "CML† 🚀" in done.stdout
    assert "Größe ± 1" in (tmp_path / "größe" / "small" / "tables" / "sinusoid.md").read_text(
        encoding="utf-8"
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["größe", "plän.json"], (
        "one folder, one spelling"
    )


def test_errors_are_utf8_in_a_locale_of_ascii(tmp_path):
    bad = started(ASCII, "cml_bench", "table", "--plan", str(tmp_path / "nö.json"))
    assert (bad.returncode, bad.stderr) == (2, f"error: there is no file {tmp_path / 'nö.json'}.\n")


@pytest.mark.slow
def test_snakemake_plans_in_a_locale_of_ascii_and_refuses_what_its_own_reader_drops(tmp_path):
    path = tmp_path / "gröf.yaml"
    text = yaml.safe_dump(content(tmp_path), allow_unicode=True)
    path.write_text("\ufeff" + text, encoding="utf-8")
    options = ("snakemake", "-n", "--cores", "1", "--configfile", str(path))
    done = started(ASCII, *options)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'größe'}/small/report.html" in done.stdout + done.stderr
    assert "UnicodeEncodeError" not in done.stdout + done.stderr
    assert [entry.name for entry in (tmp_path / "größe").iterdir()] == ["plans"]

    for line, told in (
        ("study: small", "the key 'study' stands in line"),
        ("device: 010", "010 begins with 0"),
    ):
        path.write_text(f"{text}{line}\n", encoding="utf-8")
        done = started(ASCII, *options)
        assert done.returncode != 0
        assert f"gröf.yaml, line {len(text.splitlines()) + 1}: {told}" in done.stderr + done.stdout
    path.write_text(text, encoding="utf-8")
    done = started(ASCII, *options, "--config", "inner_lr=0.1")
    told = "unknown key 'inner_lr': it belongs under experiments.NAME.methods.NAME.options"
    assert done.returncode != 0
    assert told in done.stderr + done.stdout


def test_streams_are_set_to_utf8_and_never_fail(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    # A captured stream, as in a notebook, stays as it is.
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    utf8.streams()
    print("†", os.fsdecode(b"gr\xf6\xdf"), flush=True)
    assert raw.getvalue() == "† gr\\udcf6\\udcdf\n".encode()


@pytest.mark.parametrize(
    ("encoding", "mode", "again"),
    [("ascii", 0, True), ("iso8859-1", 0, True), ("utf-8", 0, False), ("ascii", 1, False)],
)
def test_a_program_starts_again_only_where_names_are_spelt_otherwise(
    encoding, mode, again, monkeypatch
):
    class Flags:
        utf8_mode = mode

    asked = []
    monkeypatch.setattr(sys, "flags", Flags)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "cml_bench", "list", "data"])
    monkeypatch.setattr(os, "execv", lambda *given: asked.append(given))
    monkeypatch.setenv("PYTHONUTF8", "0")
    utf8.restart()
    python = sys.executable
    assert asked == [(python, [python, "-X", "utf8", "-m", "cml_bench", "list", "data"])] * again
    assert os.environ["PYTHONUTF8"] == "1", "what is started from here is in that mode, too"
