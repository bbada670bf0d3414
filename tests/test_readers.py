"""Commands that only read write nothing and need no permission to write.

Files that are written have the mode that the user's umask leaves.
"""

import builtins
import errno
import io
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cml_bench import records
from cml_bench.__main__ import main
from cml_bench.data.glyphs import Glyphs
from cml_bench.data.loader import open_data
from cml_bench.evidence import gate
from cml_bench.study import plan, preflight
from cml_bench.study.resolve import resolve
from cml_bench.system import files, locks
from tests.helpers.checkouts import changed, glyphs_experiment, snakemake, trained
from tests.helpers.fetched import obtain
from tests.helpers.plans import dumped, edited
from tests.helpers.servers import CONTENT, remote, unknown_length
from tests.helpers.simulated import LEVEL, finish, study

DENIED = [errno.EACCES, errno.EPERM, errno.EROFS]


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a folder: times and content by path."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def locked_up(tmp_path, monkeypatch):
    """A function that makes a folder read-only, as far as the package can tell."""

    def lock_up(folder: Path, number: int) -> None:
        def guard(module, name: str, writes) -> None:
            real = getattr(module, name)

            def guarded(path, *args, **kwargs):
                inside = isinstance(path, str | os.PathLike) and Path(
                    path
                ).absolute().is_relative_to(folder)
                if inside and writes(path, *args, *kwargs.values()):
                    raise OSError(number, os.strerror(number), str(path))
                return real(path, *args, **kwargs)

            monkeypatch.setattr(module, name, guarded)

        def opens_to_write(path, *args) -> bool:
            return any(isinstance(a, str) and set(a) & set("wax+") for a in args[:1])

        guard(builtins, "open", opens_to_write)
        guard(io, "open", opens_to_write)
        guard(
            os,
            "open",
            lambda path, *args: args and args[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT),
        )
        guard(os, "mkdir", lambda path, *_: not Path(path).exists())
        for name in ("unlink", "rmdir", "rename", "replace", "utime", "chmod"):
            guard(os, name, lambda *_: True)

    return lock_up


# -- modes


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_what_is_written_has_the_mode_that_the_umask_leaves(umask, tmp_path, server):
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "old.json").chmod(0o600)
    files.write_json(tmp_path / "old.json", {})
    records.write_arrays(tmp_path / "new" / "episodes.npz", {"a": np.zeros(2)})
    records.write_failure(tmp_path / "new", "why")
    with locks.run_lock(tmp_path / "run"):
        pass
    server.behaviour["file.bin"] = unknown_length()
    obtain(remote(f"{server.address}/file.bin"), tmp_path / "downloads", say=lambda text: None)
    modes = {
        path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()
    }
    names = {"old.json", "episodes.npz", "error.log", ".lock", "file.bin"}
    assert modes == dict.fromkeys(names, 0o666 & ~umask)
    assert (tmp_path / "downloads" / "file.bin").read_bytes() == CONTENT
    folders = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {0o777 & ~umask}


def test_threads_that_write_at_once_leave_the_umask_alone(tmp_path):
    before = os.umask(0o027)
    try:
        writers = [
            threading.Thread(target=files.write_text, args=(tmp_path / str(i % 5), "x"))
            for i in range(40)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
        assert len(list(tmp_path.iterdir())) == 5
    finally:
        assert os.umask(before) == 0o027


# -- commands


@pytest.fixture
def made(tmp_path):
    """The results of a study, and its plan in another folder."""
    results = tmp_path / "results"
    resolved = edited(study(seeds=2), lambda plan: plan["study"].update(results=str(results)))
    finish(resolved, results, LEVEL)
    (tmp_path / "plan.json").write_text(dumped(resolved))
    return results, str(tmp_path / "plan.json")


@pytest.mark.parametrize("number", DENIED, ids=errno.errorcode.get)
def test_tables_are_printed_where_nothing_can_be_written(number, made, locked_up, capsys):
    results, path = made
    before = tree(results)
    locked_up(results, number)
    for command, unwritten in (
        ("status", ""),
        ("table", "the files of the tables"),
        ("report", "the page"),
    ):
        assert main([command, "--plan", path]) == 0
        told = capsys.readouterr()
        assert ("all runs: 8 finished" if command == "status" else "MAML + CML") in told.out
        assert told.err.startswith(
            f"{unwritten} cannot be written ({os.strerror(number)}: " if unwritten else ""
        )
        assert told.err.count("\n") == bool(unwritten)
        assert "report.html" not in told.out, "a page that is not there"
    assert main(["status", "--json", "--plan", path]) == 0
    findings = gate.check(plan.read_plan(Path(path)), results)
    assert findings, "`check` reads only, too"
    assert tree(results) == before


def test_another_error_in_writing_is_an_error(made, locked_up, capsys):
    results, path = made
    locked_up(results, errno.ENOSPC)
    for command in ("table", "report"):
        assert main([command, "--plan", path]) == 2
        assert "No space left on device" in capsys.readouterr().err


def test_status_leaves_no_file_beside_records(made):
    results, path = made
    before = tree(results)
    assert main(["status", "--plan", path]) == 0
    assert tree(results) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
def test_a_plan_is_made_where_it_cannot_be_kept(number, tmp_path, locked_up, capsys, monkeypatch):
    content = {**changed(), "results": str(tmp_path / "results")}
    (tmp_path / "results").mkdir()
    locked_up(tmp_path / "results", number)

    def resolved(command, **_):
        out = next(word.removeprefix("--out=") for word in command if word.startswith("--out="))
        Path(out).write_text(dumped(resolve(plan.parse(content, "test"), "test")))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(plan.subprocess, "run", resolved)
    made = plan.cached(content, "test")
    assert len(made.runs) == 4
    assert Path(made.path).parent == tmp_path / "results" / "plans", "where it would be"
    assert (
        capsys.readouterr().err
        == f"the plan cannot be kept in {tmp_path}/results/plans ({os.strerror(number)}): it is"
        " made again each time.\n"
    )
    assert not list((tmp_path / "results").iterdir())


# -- data


@pytest.mark.parametrize("number", DENIED, ids=errno.errorcode.get)
def test_prepared_data_is_used_where_nothing_can_be_written(
    number, data_dir, tmp_path, locked_up, monkeypatch
):
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    shutil.rmtree(folder / "locks")
    before = tree(folder)
    locked_up(folder, number)
    monkeypatch.setattr("fcntl.flock", lambda *_: pytest.fail("takes a lock"))
    Glyphs(Glyphs.Options(size=16)).prepare(folder)
    Glyphs(Glyphs.Options(size=16)).open(folder, torch.device("cpu"), torch.float32)
    assert open_data("glyphs", folder, size=16).sha256
    assert main(["fetch", "glyphs", "--options", '{"size": 16}', "--data-dir", str(folder)]) == 0
    assert tree(folder) == before


def test_prepared_data_of_others_needs_no_stamp(data_dir, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    content = {"study": "s", "data_dir": str(folder), "experiments": {"e": glyphs_experiment()}}
    resolved = resolve(plan.parse(content, "test"), "test")
    [item] = resolved.data
    assert preflight.without_stamp(resolved) == set(), "the folder is ours: the rule makes a stamp"
    monkeypatch.setattr(preflight.os, "access", lambda path, mode: False)
    assert preflight.without_stamp(resolved) == {item.key}
    files.write_json(folder / "ready" / f"{item.key}.json", {})
    assert preflight.without_stamp(resolved) == set()
    shutil.rmtree(folder)
    assert preflight.without_stamp(resolved) == set(), "nothing is prepared there"


# -- under Snakemake


def counted(done: subprocess.CompletedProcess) -> tuple[int, int]:
    """Exit code and number of trainings."""
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.returncode, trained(done)


READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 99
cd "$1"
"$2" -m snakemake --cores 2 -n --configfile read.yaml
"$2" -m cml_bench plan --config read.yaml --calibrate 0 || exit 1
for command in status table report; do "$2" -m cml_bench $command --config read.yaml || exit 1; done
"""


def configured(checkout: Path, config: dict) -> None:
    (checkout / "read.yaml").write_text(yaml.safe_dump(config))


def check_clocks_that_differ(checkout: Path, config: dict) -> None:
    """The stamps of data and runs are from a machine whose clock is an hour ahead."""
    ahead = time.time() + 3600
    [item] = [i for i in resolve(plan.parse(config, "test"), "test").data if i.prepares]
    stamp = f"data/ready/{item.key}.json"
    assert snakemake(checkout, "--keep-going", stamp, config="read.yaml").returncode == 0
    os.utime(checkout / stamp, (ahead, ahead))
    assert counted(snakemake(checkout, config="read.yaml")) == (0, 3)
    for path in (checkout / "read" / "done").iterdir():
        os.utime(path, (ahead, ahead))
    config["tables"]["sinusoid"]["title"] = "Another title"
    configured(checkout, config)
    again = snakemake(checkout, config="read.yaml")
    assert counted(again) == (0, 0), "finished, and only tables are made again"
    assert "Another title" in again.stdout


def check_dry_runs(checkout: Path) -> None:
    """A run was moved away: a dry run counts it, and removes nothing."""
    results = checkout / "read"
    folder = next((results / "runs").glob("maml-glyphs*"))
    folder.rename(checkout / "elsewhere")
    before = tree(results) | tree(checkout / "data")
    assert counted(snakemake(checkout, "-n", config="read.yaml")) == (0, 1)
    assert counted(snakemake(checkout, "-n", "sinusoid", config="read.yaml")) == (0, 0), (
        "it needs no glyphs"
    )
    assert tree(results) | tree(checkout / "data") == before
    (checkout / "elsewhere").rename(folder)


def check_commands_where_nothing_can_be_written(checkout: Path) -> None:
    before = tree(checkout)
    command = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", checkout, sys.executable]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 99:
        pytest.skip("no mounts here; all else of this test has passed")
    assert counted(done) == (0, 0), done.stderr[-3000:]
    assert "all runs: 3 finished" in done.stdout
    assert done.stdout.count("MAML + CML − MAML") == 2, "table and report"
    assert "the files of the tables cannot be written (Read-only file system: " in done.stderr
    assert tree(checkout) == before


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.mark.slow
def test_clocks_that_differ_dry_runs_and_a_folder_for_reading_only(checkout):
    config = {**changed(), "study": "read", "results": "read", "seeds": 1}
    config["experiments"]["glyphs"] = glyphs_experiment()
    configured(checkout, config)
    check_clocks_that_differ(checkout, config)
    check_dry_runs(checkout)
    if not can_mount():
        pytest.skip("mounts need root; all else of this test has passed")
    check_commands_where_nothing_can_be_written(checkout)
    shutil.rmtree(checkout / ".snakemake")
    check_commands_where_nothing_can_be_written(checkout)
