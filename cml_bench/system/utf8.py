"""UTF-8 in and out, whatever the locale: our tables have ±, † and γ, and folders may have any
letter.

Every file is opened as UTF-8 anyway. What is left to the locale is the standard streams, and how
Python spells the names of files and the arguments of other programs. The latter is decided when
Python starts and cannot be changed.
"""

import io
import os
import sys


def streams() -> None:
    """Standard output and error in UTF-8; of a file's name that is none, a byte is shown as
    ``\\udcf6``.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not so where it is captured, in a notebook say
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def restart() -> None:
    """Start this program again, in its place, in UTF-8 mode, if the locale spells the names of
    files otherwise.

    Only for a program that has done nothing yet. All that it starts is in UTF-8 mode, too.
    """
    os.environ["PYTHONUTF8"] = "1"
    if not sys.flags.utf8_mode and sys.getfilesystemencoding() != "utf-8":
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
