"""Locks: a process waits only for a file that another holds.

On a file system without locks it says so at once.
"""

import errno
import fcntl
import os
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cml_bench.data import _source
from cml_bench.data._source import RemoteFile
from cml_bench.data.glyphs import Glyphs
from cml_bench.engine.build import Settings
from cml_bench.engine.jobs import run_all
from cml_bench.engine.run import extend, run
from cml_bench.errors import UserError
from cml_bench.records import Progress, Store, write_progress
from cml_bench.study import status
from cml_bench.system import locks
from cml_bench.system.hardware import claim
from cml_bench.system.locks import being_written, run_lock
from tests.helpers.fetched import obtain
from tests.helpers.simulated import study
from tests.helpers.specs import sinusoid_spec

WITHOUT = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL]
BROKEN = [errno.EIO, errno.ESTALE, errno.EACCES, errno.EBADF]


def never(text: str) -> None:
    pytest.fail(f"waits: {text}")


def hold_a_run(folder: Path) -> None:
    with run_lock(folder / "runs" / "r", wait=never):
        pass


def train(folder: Path) -> None:
    run(sinusoid_spec(), Settings(results=folder, report=never, wait=True))


def prepare(folder: Path) -> None:
    Glyphs(Glyphs.Options(size=16)).prepare(folder)


def download(folder: Path) -> None:
    obtain(RemoteFile("a.bin", ("http://127.0.0.1:9/a.bin",), 3, "0" * 64), folder, say=never)


def claim_a_gpu(folder: Path) -> None:
    with claim([0], folder=folder, say=never):
        pass


TAKERS = {
    hold_a_run: "`results`",
    train: "`results`",
    prepare: "`data_dir`",
    download: "`data_dir`",
    claim_a_gpu: "`TMPDIR`",
}


def failing(number: int):
    def flock(*_) -> None:
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("number", [*WITHOUT, *BROKEN], ids=errno.errorcode.get)
@pytest.mark.parametrize("take", TAKERS, ids=lambda take: take.__name__)
def test_a_file_system_that_cannot_lock_ends_in_one_sentence_at_once(
    take, number, tmp_path, monkeypatch
):
    monkeypatch.setattr(fcntl, "flock", failing(number))
    monkeypatch.setattr(_source, "to_stderr", never)
    with pytest.raises(UserError) as caught:
        take(tmp_path)
    text = str(caught.value)
    assert text.startswith(f"nothing can be locked in {tmp_path}")
    assert f"({os.strerror(number)})" in text
    assert ("its file system has no file locks; NFS needs" in text) == (number in WITHOUT)
    assert f"name a folder on another file system by {TAKERS[take]}" in text


@pytest.mark.parametrize("number", {errno.EWOULDBLOCK, errno.EAGAIN}, ids=errno.errorcode.get)
def test_what_another_holds_is_waited_for(number, tmp_path, monkeypatch):
    said: list[str] = []
    left = [failing(number)] * 4
    monkeypatch.setattr(fcntl, "flock", lambda *_: left.pop()() if left else None)
    monkeypatch.setattr("cml_bench.system.locks._POLL_SECONDS", 0)
    with run_lock(tmp_path, wait=said.append):
        assert said == [f"waiting for another process, which is writing {tmp_path}"]


# -- who holds it


def held(folder: Path, content: str | None = None) -> str:
    """The error of a second process about a run that is held.

    ``content`` is what the holder wrote into the lock file.
    """
    with run_lock(folder):
        if content is not None:
            (folder / ".lock").write_text(content)
        with pytest.raises(UserError) as caught, run_lock(folder):
            pass
    return str(caught.value)


def test_the_holder_is_named_with_its_host_and_kill_is_for_this_host_only(tmp_path):
    me, here = os.getpid(), platform.node()
    assert held(tmp_path).endswith(
        f"by process {me} on {here}. Wait for it, or stop it (kill {me})."
    )
    assert held(tmp_path, "12 far").endswith(
        "by process 12 on far. Wait for it, or stop it (on far)."
    )
    assert held(tmp_path, "12").endswith("by process 12. Wait for it."), (
        "of a version that did not keep the host"
    )
    assert held(tmp_path, "").endswith("by another process. Wait for it."), "not signed yet"


def test_who_waits_for_a_gpu_is_told_who_has_it(tmp_path):
    said: list[str] = []
    taken = threading.Event()

    def second() -> None:
        with claim([0], 2, tmp_path, said.append):
            taken.set()

    with claim([0], 2, tmp_path), claim([0], 2, tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        while not said and thread.is_alive():
            taken.wait(0.02)
    thread.join(timeout=30)
    me = f"process {os.getpid()} on {platform.node()}"
    assert said == [f"waiting for a GPU: all 2 places are taken, by {me}, {me} (see {tmp_path})"]
    assert taken.is_set()


def test_machines_that_share_a_folder_for_temporary_files_have_places_of_their_own(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("cml_bench.system.hardware.tempfile.gettempdir", lambda: str(tmp_path))
    with claim([0], say=never):
        monkeypatch.setattr(platform, "node", lambda: "another")
        with claim([0], say=never):
            assert len(list(tmp_path.rglob("gpu0-slot0.lock"))) == 2


def test_a_folder_for_places_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"no place on a GPU can be claimed: .*file/places.* `TMPDIR`"
    ):
        claim_a_gpu(tmp_path / "file" / "places")


# -- status


@pytest.fixture
def begun(tmp_path):
    """A study whose first run has a lock file, progress and a checkpoint.

    The second run has a lock file only.
    """
    resolved, store = study(seeds=1), Store(tmp_path)
    first, second = (store.folder(run.spec) for run in resolved.runs[:2])
    for folder in (first, second):
        with run_lock(folder):
            pass
    (first / "checkpoint-a.pt").write_bytes(b"x")
    write_progress(first, Progress(step=7, steps=9))
    return resolved, first, second


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.ENOSYS, errno.ESTALE], ids=errno.errorcode.get
)
def test_status_calls_nothing_running_where_nothing_can_be_locked(
    begun, number, tmp_path, monkeypatch
):
    resolved, first, _ = begun
    monkeypatch.setattr(fcntl, "flock", failing(number))
    states = list(status.states(resolved, tmp_path).values())
    assert [state.state for state in states] == ["interrupted", "missing", "missing", "missing"]
    sentence = f"whether it is running cannot be told: nothing can be locked in {first}"
    assert states[0].more.startswith(f"step 7 of 9; {sentence}")
    text = status.text(resolved, tmp_path)
    assert text.count("whether it is running cannot be told") == 2
    assert "running:" not in text


def test_status_says_so_where_the_lock_may_not_be_read(begun, tmp_path, monkeypatch):
    resolved, first, _ = begun
    real = open

    def guarded(path, *args, **kwargs):
        if Path(path).name == ".lock":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", guarded)
    assert f"{first / '.lock'} cannot be read" in status.text(resolved, tmp_path)


def test_looking_needs_no_file_that_is_open_for_writing_and_disturbs_nobody(begun, monkeypatch):
    """On NFS, an exclusive flock() needs a file that is open for writing; otherwise EBADF."""
    _, first, _ = begun
    real = fcntl.flock

    def as_on_nfs(file, how) -> None:
        if how & fcntl.LOCK_EX and not file.writable():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    assert not being_written(first)
    with open(first / ".lock", encoding="utf-8") as another:
        assert locks.try_lock(another, "", shared=True)
        assert not being_written(first), "somebody else only looks"
        looks = threading.Timer(0.03, another.close)
        looks.start()
        with run_lock(first):  # somebody who only looks does not stop a writer
            assert being_written(first)
        looks.join()


# -- without monkeys

NO_LOCKS = "#include <errno.h>\nint flock(int file, int how) { errno = ENOLCK; return -1; }\n"
SNIPPET = """
import sys
from pathlib import Path
from cml_bench.data._source import RemoteFile, obtain_all
from cml_bench.errors import UserError
from cml_bench.system.hardware import claim
from cml_bench.system.locks import being_written, run_lock
folder = Path(sys.argv[1])
remote = RemoteFile("a.bin", ("http://127.0.0.1:9/a",), 3, "0" * 64)
(folder / "seen").mkdir()
(folder / "seen" / ".lock").write_text("")
takers = [
    lambda: run_lock(folder / "run", wait=print).__enter__(),
    lambda: obtain_all((remote,), folder / "data", {}),
    lambda: claim([0], folder=folder / "places").__enter__(),
    lambda: being_written(folder / "seen"),
]
for take in takers:
    try:
        print("went on", take())
    except UserError as error:
        print(error)
"""


def test_with_a_c_library_whose_flock_finds_no_locks(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler, or no LD_PRELOAD")
    (tmp_path / "none.c").write_text(NO_LOCKS)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", tmp_path / "none.so", tmp_path / "none.c"], check=True
    )
    done = subprocess.run(
        [sys.executable, "-c", SNIPPET, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "LD_PRELOAD": str(tmp_path / "none.so")},
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    for line, folder in zip(lines, ("run", "data", "places", "seen"), strict=True):
        assert line.startswith(f"nothing can be locked in {tmp_path / folder} (No locks available)")


# -- what is finished takes no lock


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(
        sinusoid_spec(),
        Settings(results=tmp_path_factory.mktemp("finished"), report=lambda text: None),
    )


def test_a_finished_run_is_found_without_a_lock(finished, monkeypatch):
    (finished.folder / ".lock").unlink(missing_ok=True)
    before = sorted(finished.folder.iterdir())
    settings = Settings(results=finished.folder.parent.parent, report=lambda text: None)
    monkeypatch.setattr(fcntl, "flock", failing(errno.EROFS))
    assert run(sinusoid_spec(), settings).content == finished.content
    assert extend(finished.folder, {"tasks": 1}, settings).content == finished.content
    assert sorted(finished.folder.iterdir()) == before


def test_more_tasks_of_a_record_without_weights_are_refused_before_anything_is_written(
    finished, tmp_path
):
    results = tmp_path / "results"
    folder = results / "runs" / finished.folder.name
    folder.mkdir(parents=True)
    for name in ("record.json", "episodes.npz"):  # these files of a run are committed
        shutil.copy(finished.folder / name, folder)
    settings = Settings(results=results, report=lambda text: None)
    spec = sinusoid_spec()
    more = spec.evaluation.tasks + 1
    spec = spec.model_copy(
        update={"evaluation": spec.evaluation.model_copy(update={"tasks": more})}
    )
    refused = (
        rf"{folder}: its record is without weights .* test tasks are stored, and {more} are"
        r" asked for"
    )
    with pytest.raises(UserError, match=refused):
        extend(folder, {"tasks": more}, settings)
    with pytest.raises(UserError, match=refused):
        run(spec, settings)
    with pytest.raises(UserError, match=refused):
        run_all([spec], settings, results / "done" / "job.json")
    with pytest.raises(UserError, match=r"no results after 7 inner steps are stored"):
        extend(folder, {"inner_steps": [7]}, settings)
    with pytest.raises(
        UserError, match=r"was tested with \d+ queries a class, and 3 are asked for"
    ):
        extend(folder, {"query": 3}, settings, replace_results=True)
    assert sorted(path.name for path in results.rglob("*")) == sorted(
        ["runs", folder.name, "record.json", "episodes.npz"]
    )
