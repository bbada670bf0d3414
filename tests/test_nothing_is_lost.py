"""A kill, a second process or a full disk costs at most the time since the last checkpoint.

No file is ever half written.
"""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from cml_bench import registry
from cml_bench.data import _glyphs
from cml_bench.engine import checkpoint
from cml_bench.engine.build import Settings
from cml_bench.engine.jobs import run_all
from cml_bench.engine.run import run
from cml_bench.errors import UserError
from cml_bench.evidence import gate
from cml_bench.records import Store, read
from cml_bench.report import write
from cml_bench.report.publish import publish
from cml_bench.study.config import parse
from cml_bench.study.resolve import resolve
from cml_bench.system import files
from cml_bench.system.hardware import claim
from cml_bench.system.locks import being_written, run_lock
from tests.helpers.checkouts import snakemake
from tests.helpers.plans import dumped
from tests.helpers.specs import sinusoid_spec
from tests.helpers.waiting import wait_for

STEPS = 900

STUDY = {
    "study": "killed",
    "seeds": 3,
    "experiments": {
        "s": {
            "data": "sinusoid",
            "network": "mlp",
            "way": 1,
            "shots": [5],
            "query": "shot",
            "steps": STEPS,
            "protocol_options": {"val_every": 10, "val_tasks": 4},
            "evaluation": {"tasks": 20, "query": 10},
            "runs_per_job": 3,
            "methods": {"maml+cml": {"options": {"inner_lr": 0.01}}},
        }
    },
    "tables": {
        "t": {
            "kind": "regression",
            "experiment": "s",
            "title": "T",
            "rows": [{"label": "CML", "run": "maml+cml"}],
        }
    },
}


@pytest.fixture(scope="module")
def resolved():
    return resolve(parse(STUDY, "test"), "test")


@pytest.fixture(scope="module")
def untouched(resolved, tmp_path_factory):
    """The same runs, made without interruption."""
    settings = Settings(results=tmp_path_factory.mktemp("untouched"), report=lambda text: None)
    return [run(item.spec, settings) for item in resolved.runs]


def assert_identical(folder: Path, twin) -> None:
    """Check that models, test results and curves are equal bit for bit."""
    record = read(folder)
    for name in ("model", "colearner", "best_co", "last"):
        a, b = (load_file(f / f"{name}.safetensors") for f in (folder, twin.folder))
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[key], b[key]) for key in a), name
    assert all(np.array_equal(record.arrays[key], twin.arrays[key]) for key in twin.arrays)
    assert record.content["curves"] == twin.content["curves"]


def start(tmp_path: Path, resolved) -> subprocess.Popen:
    (tmp_path / "plan.json").write_text(dumped(resolved))
    command = [
        sys.executable,
        "-m",
        "cml_bench",
        "train",
        "plan.json",
        "--job",
        resolved.jobs[0].id,
        "--stamp",
        "done.json",
        "--checkpoint-seconds",
        "0",
    ]
    return subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


# -- kills


@pytest.mark.slow
def test_a_job_killed_in_its_third_run_keeps_two_and_goes_on_in_the_third(
    tmp_path, resolved, untouched
):
    folders = [tmp_path / "results" / "runs" / item.folder for item in resolved.runs]
    process = start(tmp_path, resolved)
    wait_for(lambda: any(folders[2].glob("checkpoint-*.pt")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folders[2] / "record.json").exists(), "killed in time"
    assert not (tmp_path / "done.json").exists()
    before = {
        path: path.read_bytes()
        for folder in folders[:2]
        for path in folder.iterdir()
        if path.is_file()
    }
    again = start(tmp_path, resolved)
    assert again.wait(timeout=600) == 0
    assert set(json.loads((tmp_path / "done.json").read_text())["runs"]) == {
        item.id for item in resolved.runs
    }
    for path, content in before.items():
        if path.name != ".lock":
            assert path.read_bytes() == content, f"{path} was finished"
    assert "resumed at step" in (folders[2] / "run.log").read_text()
    for folder, twin in zip(folders, untouched, strict=True):
        assert_identical(folder, twin)
        assert not list(folder.glob("checkpoint-*")), "checkpoints go when the run is finished"
        assert not (folder / "progress.json").exists()


@pytest.mark.slow
def test_snakemake_killed_and_started_again_while_its_training_goes_on(
    checkout, untouched, resolved
):
    (checkout / "killed.yaml").write_text(yaml.safe_dump(STUDY))
    folders = [checkout / "results" / "runs" / item.folder for item in resolved.runs]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "killed.yaml"],
        cwd=checkout,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    wait_for(lambda: being_written(folders[0]))
    first.send_signal(signal.SIGKILL)  # its training process goes on alone
    first.wait()
    again = snakemake(checkout, config="killed.yaml")
    assert again.returncode == 0, again.stderr[-3000:]
    for folder, twin in zip(folders, untouched, strict=True):
        assert_identical(folder, twin)
        assert (folder / "run.log").read_text().count(f"step 0/{STEPS}") == 1, (
            "trained once, by one process"
        )


# -- two processes


def test_a_second_process_waits_or_is_refused_and_finds_the_run_finished(tmp_path):
    spec, said = sinusoid_spec(), []
    settings = Settings(results=tmp_path, report=said.append)
    folder = Store(tmp_path).folder(spec)
    with run_lock(folder):
        assert being_written(folder)
        with pytest.raises(UserError, match=rf"is being written by process {os.getpid()}"):
            run(spec, settings)
        waiting = threading.Thread(
            target=run, args=(spec, Settings(results=tmp_path, report=said.append, wait=True))
        )
        waiting.start()
        wait_for(lambda: any("waiting for process" in text for text in said))
        assert read(folder) is None
    waiting.join(timeout=60)
    assert read(folder) is not None
    assert not being_written(folder)


def test_a_gpu_has_as_many_places_as_it_is_given(tmp_path):
    said: list[str] = []
    with claim([0, 1], 1, tmp_path) as a, claim([0, 1], 1, tmp_path) as b:
        assert sorted((a, b)) == [0, 1], "the emptiest device comes first"
        got = []

        def third() -> None:
            with claim([0, 1], 1, tmp_path, said.append) as number:
                got.append(number)

        thread = threading.Thread(target=third)
        thread.start()
        wait_for(lambda: bool(said))
        assert not got
    thread.join(timeout=10)
    assert got == [0]
    with (
        claim([0, 1], 2, tmp_path) as a,
        claim([0, 1], 2, tmp_path) as b,
        claim([0, 1], 2, tmp_path) as c,
    ):
        assert [a, b, c] == [0, 1, 0]


# -- a full disk


class FullDisk:
    """A disk that takes ``room`` whole writes and the next one but for its last byte, then no more.

    It counts writes, not bytes: measured seconds have a different number of digits in each run.
    """

    def __init__(self, monkeypatch, room: float = math.inf):
        self.left, self.original, self.made = room, os.fdopen, 0
        monkeypatch.setattr(files.os, "fdopen", self.open)

    def open(self, *args, **kwargs):
        file = self.original(*args, **kwargs)
        write = file.write

        class Limited:
            def __getattr__(inner, name):
                return getattr(file, name)

            def __enter__(inner):
                return inner

            def __exit__(inner, *error):
                file.close()

            def write(inner, content):
                whole = memoryview(content).cast("B")
                if not whole.nbytes:
                    return write(content)
                if self.left < 1:
                    write(bytes(whole[:-1] if self.left == 0 else b""))
                    self.left = -1
                    raise OSError(errno.ENOSPC, "No space left on device")
                self.left -= 1
                self.made += 1
                return write(content)

        return Limited()


def whole(path: Path) -> bool:
    """Whether a file is complete, judged by its kind."""
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            assert all(arrays[name].size for name in arrays.files)
    elif path.suffix == ".safetensors":
        load_file(path)
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    return not path.name.endswith(".tmp")


def everything(resolved, results: Path, data: Path) -> None:
    """Write all that the package writes: data, models, records, stamps, plan, tables, pages."""
    cls = registry.datasets.get("glyphs")
    cls(cls.Options(size=16)).prepare(data)
    often = Settings(results=results, report=lambda text: None, checkpoint_seconds=0.0)
    specs = [item.spec for item in resolved.runs]
    run_all(specs, often, results / "done" / "job.json")
    files.write_json(results / "plans" / "plan.json", resolved.json_values())
    write.tables(resolved, results, [])
    write.figures(resolved, results, [])
    write.page(resolved, results)
    publish(resolved, results, results / "reference", results)
    gate.update(resolved, results, results / "ci.json")


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_file_wherever_it_strikes(tmp_path, monkeypatch):
    small = json.loads(json.dumps(STUDY))
    small["seeds"] = 2
    small["experiments"]["s"] |= {"steps": 3, "network_options": {"hidden": [4, 4]}}
    row = {"label": "CML", "run": "maml+cml"}
    small["figures"] = {
        "f": {"kind": "curves", "experiment": "s", "title": "F", "tasks": [0], "runs": [row]}
    }
    resolved = resolve(parse(small, "test"), "test")
    monkeypatch.setattr(gate, "MIN_REFERENCE_SEEDS", 1)
    # Images are drawn once, not in each of more than a thousand passes.
    images = _glyphs.render(_glyphs.load_class_list(), 16)
    monkeypatch.setattr(_glyphs, "render", lambda classes, size: images)
    with monkeypatch.context() as patch:
        disk = FullDisk(patch)
        everything(resolved, tmp_path / "twin", tmp_path / "twin-data")
    rooms = range(disk.made)  # each write in turn is the first that does not fit
    assert len(rooms) > 50
    results, data = tmp_path / "results", tmp_path / "data"
    for room in rooms:
        with monkeypatch.context() as patch:
            FullDisk(patch, room)
            with pytest.raises((OSError, UserError)):
                everything(resolved, results / str(room), data / str(room))
        for path in (results / str(room), data / str(room)):
            assert all(
                whole(file)
                for file in path.rglob("*")
                if file.is_file() and not file.name.startswith(".lock")
            )
    last = results / str(rooms[len(rooms) // 2])
    everything(resolved, last, data / str(rooms[len(rooms) // 2]))  # there is room again
    twin, again = (min((r / "runs").iterdir()) for r in (tmp_path / "twin", last))
    assert_identical(again, read(twin))


def test_every_write_goes_through_files_py():
    """Other places that open files for writing are listed here with their reason."""
    import ast

    allowed = {
        "locks.py": {"open"},  # the lock
        "watching.py": {"open"},  # the lock of a study that is going on
        "run.py": {"open"},  # the run's log, appended line by line
        "hardware.py": {"open"},  # the slots of GPUs
        "_download.py": {"open"},  # the part of a file that has arrived
        "bundle.py": {"open"},  # a member of an archive in memory
        "files.py": {"fdopen"},
    }
    package = Path(files.__file__).parent.parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else getattr(node.func, "id", "")
            )
            modes = [
                a.value
                for a in [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "mode")]
                if isinstance(a, ast.Constant)
            ]
            writes = name in ("copyfile", "copytree", "fdopen", "tofile") or (
                name == "open"
                and any(isinstance(mode, str) and set(mode) & set("wax+") for mode in modes)
            )
            direct = name in ("write_text", "write_bytes") and isinstance(node.func, ast.Attribute)
            assert not direct, f"{path.name}:{node.lineno} writes a file in place"
            assert not writes or name in allowed.get(path.name, ()), (
                f"{path.name}:{node.lineno} {name}"
            )


def test_checkpoint_files_are_written_in_turn(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, {"step": step})
    (tmp_path / "checkpoint-a.pt").write_bytes((tmp_path / "checkpoint-a.pt").read_bytes()[:-7])
    assert checkpoint.load(tmp_path)["step"] == 2
