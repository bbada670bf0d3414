"""Whether the user has asked this process to stop: Ctrl-C, or SIGTERM.

Snakemake ends alike after Ctrl-C and after a failure, so its end cannot tell the two apart.
"""

import signal
import threading
from types import FrameType
from typing import Any

asked = threading.Event()


def notice() -> None:
    """Set ``asked`` at either signal, then do what was done before. For the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)

        def handle(number: int, frame: FrameType | None, before: Any = before) -> None:
            asked.set()
            if callable(before):
                before(number, frame)
            elif before == signal.SIG_DFL:
                raise SystemExit(128 + number)

        signal.signal(number, handle)
