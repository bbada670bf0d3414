"""Locked files: one process at a time holds a lock, and the kernel frees it when that process dies.

The library `filelock` is not used. On a file system without locks it falls back to marker files,
which stay when their holder is killed. Nor does it say who holds a lock.
"""

import contextlib
import errno
import fcntl
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from cml_bench.errors import UserError

# Errors of file systems without locks: NFS without its lock service, Lustre without `-o flock`,
# some of FUSE. EINVAL is said by a file system that can lock no file at all.
_NONE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_HOW = "NFS needs version 4 or its lock service, Lustre the mount option `flock`"


def try_lock(file: TextIO, instead: str, shared: bool = False) -> bool:
    """Lock an open file. False if another process holds the lock.

    The lock is held until the file is closed. ``instead`` is for the error message: the setting
    that names another folder, such as "`data_dir` in the configuration". ``shared`` only looks
    whether another process holds the lock; on NFS this works with a file that is open for reading.
    A UserError if the file system has no locks or fails, since waiting would never end.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:  # EWOULDBLOCK: flock(), unlike lockf(), never says EACCES for this
        return False
    except OSError as error:
        lacks = (
            f"its file system has no file locks; {_HOW}"
            if error.errno in _NONE
            else "its file system fails"
        )
        folder = os.path.dirname(os.path.abspath(file.name))
        raise UserError(
            f"nothing can be locked in {folder} ({error.strerror or error}): {lacks}. Have that"
            f" mended, or name a folder on another file system by {instead}."
        ) from None
    return True


def sign(file: TextIO) -> None:
    """Write the number and the machine of this process into a file that it has locked."""
    file.truncate(0)
    file.write(f"{os.getpid()} {platform.node()}")
    file.flush()


def holder(file: TextIO) -> tuple[str, str]:
    """Who holds a locked file (``process 12 on host``), and how to stop that process.

    The second is ``kill 12`` on this machine, ``on host`` on another, or empty if nobody knows.
    """
    file.seek(0)
    pid, _, host = file.read().strip().partition(" ")
    if not pid:  # not signed yet
        return "another process", ""
    if not host:  # signed by an older version, which did not write it
        return f"process {pid}", ""
    stop = f"kill {pid}" if host == platform.node() else f"on {host}"
    return f"process {pid} on {host}", stop


_POLL_SECONDS = 0.5
_GLANCE_SECONDS = 0.1  # longer than `being_written` of another process holds its shared lock


@contextlib.contextmanager
def run_lock(
    folder: Path, wait: Callable[[str], None] | None = None, setting: str = "`results`"
) -> Iterator[None]:
    """Hold the lock of a run's folder. The kernel frees it when this process dies.

    A second process gets a UserError. If it gives ``wait``, it waits for the first one instead, and
    ``wait`` gets a line about that. A UserError also if the file system has no locks: it names
    ``setting``, the key under which another folder can be set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        glanced = announced = False
        while not try_lock(file, setting):
            if not glanced:
                glanced = True
                time.sleep(_GLANCE_SECONDS)
                continue
            name, stop = holder(file)
            if wait is None:
                stop = f", or stop it ({stop})" if stop else ""
                raise UserError(f"{folder} is being written by {name}. Wait for it{stop}.")
            if not announced:
                wait(f"waiting for {name}, which is writing {folder}")
            announced = True
            time.sleep(_POLL_SECONDS)
        sign(file)
        # Half-written files of a process that was killed: nobody else writes here now.
        for half in folder.glob(".*.tmp"):
            half.unlink(missing_ok=True)
        yield


def being_written(folder: Path) -> bool:
    """Whether some process holds the run's lock now. A UserError if nobody can tell."""
    try:
        with open(folder / ".lock", encoding="utf-8") as file:
            return not try_lock(file, "`results`", shared=True)
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise UserError(f"{folder / '.lock'} cannot be read ({error.strerror}).") from None
