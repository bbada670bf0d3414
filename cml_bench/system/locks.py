"""Locked files: one process at a time, freed by the kernel when its holder dies.

Not the library `filelock`: where a file system has no locks it goes over to files that outlive a
killed holder, and it does not say who holds a lock. What is left to write is these few lines.
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

# NFS without its lock service, Lustre without `-o flock`, FUSE; EINVAL: a file system that locks no
# file at all.
_NONE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_HOW = "NFS needs version 4 or its lock service, Lustre the mount option `flock`"


def try_lock(file: TextIO, instead: str, shared: bool = False) -> bool:
    """Lock an open file; False if another holds it. It is held until the file is closed.

    ``instead``: what names another folder, such as "`data_dir` in the configuration". ``shared``:
    only look whether another holds it; unlike a lock to hold, this needs no file that is open for
    writing on NFS. A UserError, and not a wait that never ends, where the file system has no locks
    or fails.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:  # EWOULDBLOCK; unlike lockf(), flock() never says EACCES for it
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
    """Write into a file that this process has locked who holds it."""
    file.truncate(0)
    file.write(f"{os.getpid()} {platform.node()}")
    file.flush()


def holder(file: TextIO) -> tuple[str, str]:
    """Who holds a file: ``process 12 on host``, and how to stop it: by ``kill`` on this host
    only.
    """
    file.seek(0)
    pid, _, host = file.read().strip().partition(" ")
    if not pid:  # not signed yet
        return "another process", ""
    if not host:  # by a version that did not keep it
        return f"process {pid}", ""
    stop = f"kill {pid}" if host == platform.node() else f"on {host}"
    return f"process {pid} on {host}", stop


_POLL_SECONDS = 0.5
_GLANCE_SECONDS = 0.1  # longer than another process needs to look whether a run is being written


@contextlib.contextmanager
def run_lock(
    folder: Path, wait: Callable[[str], None] | None = None, setting: str = "`results`"
) -> Iterator[None]:
    """Hold the run's lock. The kernel frees it when the holder dies.

    A second process gets a UserError, or waits for the first if it says where to announce that
    (``wait``). So it does where the file system has no locks, which names ``setting``: where
    another folder is set.
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
        for half in folder.glob(
            ".*.tmp"
        ):  # of a writer that was killed; nobody else writes here now
            half.unlink(missing_ok=True)
        yield


def being_written(folder: Path) -> bool:
    """Whether a process holds the run's lock just now. A UserError where that cannot be told."""
    try:
        with open(folder / ".lock", encoding="utf-8") as file:
            return not try_lock(file, "`results`", shared=True)
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise UserError(f"{folder / '.lock'} cannot be read ({error.strerror}).") from None
