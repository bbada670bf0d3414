"""What is told of a first run: measured in a fresh clone, shown in the README and on a page."""

import json
import subprocess

import pytest

from benchmarks import __main__ as benchmarks_main
from benchmarks import first_run, measure, show
from cml_bench.errors import UserError

MAKEFILE = """\
setup:
\t@mkdir -p .venv; head -c 3000000 /dev/zero > .venv/package
demo: setup
\t@mkdir -p results; head -c 2000000 /dev/zero > results/$(TORCH_INDEX)page; echo "$$PYTHONPATH."
test: setup
\t@test ! -e uncommitted
"""


def project(folder, makefile=MAKEFILE):
    """A repository whose work tree holds more than its commit."""
    (folder / "Makefile").write_text(makefile)
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("init", "--quiet"), ("add", "."), (*author, "commit", "--quiet", "-m", "all")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    (folder / "uncommitted").touch()
    return folder


@pytest.fixture
def folders(tmp_path):
    for name in ("source", "empty"):
        (tmp_path / name).mkdir()
    return tmp_path / "source", tmp_path / "empty"


def test_a_first_run_is_of_the_commit_and_tells_time_and_disk_of_each_target(folders, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    source, empty = folders
    said = []
    rows = first_run.measure(empty, "index-", said.append, project(source))
    assert [row["target"] for row in rows] == [*first_run.TARGETS]
    assert [line.partition(":")[0] for line in said] == ["make setup", "make demo", "make test"]
    assert all(0 <= row["minutes"] < 1 for row in rows)
    assert {round(row["venv_bytes"] / 1e6) for row in rows} == {3}
    assert [round(row["left_bytes"] / 1e6) for row in rows] == [0, 2, 0]
    assert (empty / "clone" / "results" / "index-page").exists()
    assert (empty / "demo.log").read_text().splitlines()[-1] == "."


def test_a_first_run_that_fails_shows_the_end_of_its_output(folders):
    source, empty = folders
    project(source, "setup:\n\t@echo no index; exit 3\n")
    with pytest.raises(UserError, match=r"`make setup` failed in a fresh clone:\nno index"):
        first_run.measure(empty, "", print, source)


def result(**changes):
    rows = [
        {"target": "setup", "minutes": 3.2, "venv_bytes": 5_900_000_000, "left_bytes": 40_000},
        {"target": "demo", "minutes": 5.01, "venv_bytes": 5_900_000_000, "left_bytes": 9_000_000},
        {"target": "test", "minutes": 1.0, "venv_bytes": 5_900_000_000, "left_bytes": 21_000_000},
    ]
    machine = {"processor": "a processor", "cores": 2, "load_before": 0.1, "load_after": 1.9}
    made = {"date": "2026-01-02", "commit": "abc", "provisional": "", "torch_index": ""}
    return {"machine": machine, **made, "rows": rows, **changes}


def test_the_readme_tells_minutes_and_disk_only_where_they_are_measured():
    text = show.first(result())
    assert "make demo     # embedded data, no GPU: 6 minutes\n" in text
    assert "make test     # the fast tests: 1 minute\n" in text
    assert "`.venv`: 4 minutes and" in text
    assert "5.9 GB of disk." in text
    assert "both leave 30 MB." in text
    assert "2 cores of a processor, torch from pip's index." in text
    doubted = show.first(result(provisional="load 2", torch_index="https://x.org"))
    assert "torch from https://x.org, provisional: load 2." in doubted
    assert "minute" not in show.first(None)
    assert show.first(None).startswith("```sh\nmake demo ")


def test_the_page_on_hardware_has_a_line_for_each_target():
    text = show.first_table(result())
    assert "commit abc, 2026-01-02: on 2 cores of a processor" in text
    assert "load 0.1 before and 1.9 after" in text
    assert [line.split()[1:3] for line in text.splitlines() if "`make " in line] == [
        ["`make", f"{target}`"] for target in first_run.TARGETS
    ]
    assert show.first_table(None) == ""


def test_both_pages_show_the_committed_first_run():
    file = benchmarks_main.FIRST
    began = json.loads(file.read_text()) if file.exists() else None
    for page, told in (
        (benchmarks_main.README, show.first),
        (benchmarks_main.HARDWARE, show.first_table),
    ):
        begin, end = show.FIRST
        _, marked, rest = page.read_text().partition(begin)
        assert marked
        assert rest.partition(end)[0].strip() == told(began).strip()


def test_one_command_measures_and_tells(folders, monkeypatch):
    source, out = folders
    for name, page in (("README", "README.md"), ("HARDWARE", "hardware.md")):
        (out / page).write_text(f"before\n{show.FIRST[0]}\n{show.FIRST[1]}\nafter\n")
        monkeypatch.setattr(benchmarks_main, name, out / page)
    monkeypatch.setattr(benchmarks_main, "FIRST", out / "first_run.json")
    monkeypatch.setattr(first_run.measure, "__defaults__", (project(source),))
    monkeypatch.setattr("sys.argv", ["benchmarks", "first", "--torch-index", "i-"])
    benchmarks_main.main()
    made = json.loads((out / "first_run.json").read_text())
    assert made["torch_index"] == "i-"
    assert made["commit"] == measure.commit()
    assert {"cores", "processor", "load_before", "load_after"} <= made["machine"].keys()
    assert "no GPU: 1 minute\n" in (out / "README.md").read_text()
    assert "`make demo`" in (out / "hardware.md").read_text()
