"""UTF-8 in and out, whatever the locale: tables have ±, † and γ, and folders may have any letter.

The code opens every file as UTF-8. The locale decides the rest: the encoding of the standard
streams, and how Python spells the names of files and the arguments of other programs. The latter is
fixed when Python starts.
"""

import io
import os
import sys


def streams() -> None:
    """Set standard output and standard error to UTF-8.

    A byte of a file's name that is no UTF-8 is shown as ``\\udcf6``.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook, for example, puts its own here
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def restart() -> None:
    """Start this program anew in UTF-8 mode, if the locale gives names of files another encoding.

    Call it before the program has done anything. All programs that it starts are in UTF-8 mode,
    too.
    """
    os.environ["PYTHONUTF8"] = "1"
    if not sys.flags.utf8_mode and sys.getfilesystemencoding() != "utf-8":
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
