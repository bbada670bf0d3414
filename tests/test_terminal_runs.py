"""Snakemake on a small study as a user sees it: in a pipe, on a terminal, at Ctrl-C."""

import fcntl
import math
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import yaml

from tests.helpers.checkouts import changed, start

pytestmark = pytest.mark.slow

CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(folder: Path, config: str, stop_at: str = "") -> tuple[int, str, str]:
    """The exit code of Snakemake on a terminal of 100 columns, and what it showed before and after
    Ctrl-C, which is pressed when ``stop_at`` is shown, and once more after 90 seconds.
    """
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", config],
        cwd=folder,
        stdin=other,
        stdout=other,
        stderr=other,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color"},
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
    )
    os.close(other)
    seen, before, end, pressed = b"", b"", time.monotonic() + 900, math.inf
    while time.monotonic() < end:
        if select.select([main], [], [], 0.5)[0]:
            try:
                seen += os.read(main, 65536)
            except OSError:  # its last process has closed the terminal
                break
        if stop_at and not before and stop_at in CONTROLS.sub("", seen.decode(errors="replace")):
            before, pressed = seen, time.monotonic()
            os.write(main, b"\x03")
        if time.monotonic() > pressed + 90:  # a job that was about to start has not heard it
            pressed = math.inf
            os.write(main, b"\x03")
    else:
        os.killpg(process.pid, signal.SIGKILL)  # with its trainings
        pytest.fail(seen[-3000:].decode(errors="replace"))
    os.close(main)
    code = process.wait()
    texts = [
        CONTROLS.sub("", part.decode(errors="replace")) for part in (seen, seen[len(before) :])
    ]
    return code, texts[0], texts[1]


def test_a_target_in_a_pipe_has_a_line_an_event_its_cost_and_its_table(checkout):
    done = start(checkout, {**changed(), "study": "piped", "results": "piped"}, "--", "sinusoid_n1")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stderr.splitlines()[1:]  # after the name of the profile, by Snakemake itself
    known = (
        "jobs to do: trainings 2, tables 1",
        "started: ",
        "finished: ",
        "rendering sinusoid_n1",
    )
    assert all(line.startswith(known) for line in lines), done.stderr
    ended = [line for line in lines if line.startswith("finished: ")]
    assert len(ended) == 2
    assert all("seed 0: test MSE " in line for line in ended)
    assert ended[-1].endswith("(2 of 2 runs done)")
    assert done.stdout.startswith("study piped: 2 runs in 2 jobs")
    assert "Finished: 2 runs." in done.stdout
    assert done.stdout.rstrip().endswith("Open piped/piped/tables/sinusoid_n1.md")
    again = start(
        checkout, {**changed(), "study": "piped", "results": "piped"}, "--", "sinusoid_n1"
    )
    assert "MAML + CML" in again.stdout, "the table is shown where nothing is left to do"


def test_ctrl_c_on_a_terminal_ends_with_three_lines_and_the_same_command_goes_on(checkout):
    config = {**changed(steps=2_000_000), "study": "stopped", "results": "stopped", "seeds": 1}
    config["experiments"]["sinusoid"]["protocol_options"]["val_every"] = 1_000_000
    (checkout / "stopped.yaml").write_text(yaml.safe_dump(config))
    # A job that Snakemake is only about to start would not get the signal.
    code, shown, after = on_a_terminal(checkout, "stopped.yaml", stop_at="val MSE")
    assert code != 0
    assert "0 of 2 runs done, 1 running" in shown
    said = [line.strip() for line in after.splitlines() if line.strip()]
    last = said[-3:]
    assert last[0] == "Finished: 0 of 2 runs."
    assert last[1].startswith("Interrupted: ")
    assert last[2].endswith("snakemake --cores 1 --configfile stopped.yaml")
    others = [line for line in said[:-3] if "on sinusoid" not in line and "━" not in line]
    assert not [line for line in others if line != "^C"], after
    for key in ("steps", "protocol_options"):
        config["experiments"]["sinusoid"][key] = changed()["experiments"]["sinusoid"][key]
    (checkout / "stopped.yaml").write_text(yaml.safe_dump(config))
    code, shown, _ = on_a_terminal(checkout, "stopped.yaml")
    assert code == 0, shown[-3000:]
    assert "2 of 2 runs done" in shown
    assert re.search(r"finished: maml on sinusoid.*: test MSE \d", shown)
    assert shown.rstrip().endswith("Open stopped/stopped/report.html")
