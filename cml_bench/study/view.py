"""A study that runs, on a terminal: one bar, a line for each running job, what happens above them.

In a file or a pipe there are plain lines alone, one an event. Imports no torch.
"""

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cml_bench.study import status, work
from cml_bench.study.plan import Plan
from cml_bench.study.watching import Event, Row, Watch, going_on
from cml_bench.system import stops
from cml_bench.texts import controls_escaped, duration

_BLOCKS = "▁▂▃▄▅▆▇█"
_STYLES = {"failed": "red", "diverged": "yellow", "collapsed": "yellow", "interrupted": "yellow"}


def sparkline(values: Sequence[float | None], width: int = 16) -> str:
    """The values as a line of blocks, from the least to the greatest: at most ``width`` of them.

    More values are averaged; one that is not finite is a space.
    """
    parts = min(width, len(values))
    edges = [round(i * len(values) / parts) for i in range(parts + 1)] if parts else [0]
    means = []
    for start, end in itertools.pairwise(edges):
        known = [v for v in values[start:end] if v is not None and math.isfinite(v)]
        means.append(sum(known) / len(known) if known else None)
    shown = [mean for mean in means if mean is not None]
    low, span = min(shown, default=0.0), (max(shown, default=0.0) - min(shown, default=0.0)) or 1.0
    top = len(_BLOCKS) - 1
    return "".join(" " if m is None else _BLOCKS[round((m - low) / span * top)] for m in means)


def by_job(rows: Sequence[Row]) -> list[Row]:
    """One row for each job. Seeds of one program are told by the one that is least far."""
    jobs: dict[str, list[Row]] = {}
    for row in rows:
        jobs.setdefault(row.job, []).append(row)
    shown = []
    for together in jobs.values():
        row = min(together, key=lambda row: row.share)
        if len(together) > 1:
            title = row.title.partition(", seed ")[0]
            row = row._replace(title=f"{title}, {len(together)} seeds")
        shown.append(row)
    return shown


def summary(watch: Watch) -> str:
    """``3 of 12 runs done, 2 running, 1 failed, about 2:10 left``."""
    counts, total = watch.counts, len(watch.plan.runs) - watch.counts["not run"]
    parts = [f"{watch.ended} of {total} runs done"]
    parts += [f"{counts[s]} {s}" for s in ("running", "interrupted", "failed") if counts[s]]
    if watch.left and round(watch.left):  # less than a second is no time to wait
        parts.append(f"about {duration(watch.left)} left")
    return ", ".join(parts)


class View:
    """What is shown of a :class:`Watch`. ``others``: lines about jobs that are no training.

    ``runs``: a line for each running run, not for each job.
    """

    def __init__(self, watch: Watch, console: Console, runs: bool = False):
        self.watch, self.console, self.runs = watch, console, runs
        self.others: dict[int, str] = {}
        self.live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self.live = Live(
                console=console,
                get_renderable=self._shown,
                refresh_per_second=2,
                transient=True,
                vertical_overflow="crop",
            )

    def start(self) -> None:
        """Begin to show the bar, if this is a terminal."""
        if self.live:
            self.live.start()

    def stop(self) -> None:
        """Take the bar away."""
        if self.live:
            self.live.stop()

    def say(self, text: str, style: str | None = None) -> None:
        """A line that stays, above the bar."""
        self.console.print(Text(controls_escaped(text), style or ""), soft_wrap=True)

    def tell(self, events: Sequence[Event]) -> None:
        """Say what has happened. A terminal does not say what has started: it has a line of its own
        below. A pipe gets the state of the study when runs have ended.
        """
        for number, (kind, text) in enumerate(events, 1):
            if (self.live and kind == "running") or (
                kind == "interrupted" and stops.asked.is_set()
            ):
                continue
            last = number == len(events) and not self.live and kind != "running"
            self.say(text + (f" ({summary(self.watch)})" if last else ""), _STYLES.get(kind))

    def _shown(self) -> RenderableType:
        watch = self.watch
        total = len(watch.plan.runs) - watch.counts["not run"]
        name, told = watch.plan.study.study, summary(watch)
        # One line: where it is too long, first the bar is shorter, then the name is cut.
        room = self.console.width - cell_len(name) - cell_len(told) - 2
        head = Table.grid(padding=(0, 1))
        head.add_column(no_wrap=True, overflow="ellipsis")
        head.add_column()
        head.add_column(min_width=cell_len(told), no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(max(1, total), watch.ended, width=min(20, max(4, room)))
        head.add_row(Text(name, "bold"), bar, Text(told))
        rows = watch.rows if self.runs else by_job(watch.rows)
        place = max(1, self.console.height - len(self.others) - 4)
        lines = Table.grid(padding=(0, 2))
        cells = [_cells(row) for row in rows[:place]]
        for number, column in enumerate(zip(*cells, strict=True)):
            # Where the line is too long, the title alone is cut.
            least = max(map(cell_len, column)) if number else None
            lines.add_column(min_width=least, no_wrap=True, overflow="ellipsis")
        for row in cells:
            lines.add_row(*map(Text, row))
        more = [f"  … and {len(rows) - place} more"] if len(rows) > place else []
        return Group(
            head, lines, *(Text(t) for t in [*more, *map(_indented, self.others.values())])
        )


def _indented(text: str) -> str:
    return f"  {controls_escaped(text)}"


def _cells(row: Row) -> list[str]:
    progress = row.progress
    if progress is None:
        return [_indented(row.title), "starting", "", "", ""]
    testing = progress.step >= progress.steps
    left = f"{duration(row.left)} left" if row.left else ""
    return [
        _indented(row.title),
        "testing" if testing else f"{100 * row.share:.0f} %",
        sparkline(progress.validation),
        f"val {row.score}" if row.score else "",
        "" if testing else left,
    ]


class Poller(threading.Thread):
    """Polls a watch and keeps its view up to date, until it is stopped or ``until`` is true."""

    def __init__(self, view: View, until: Callable[[], bool] = lambda: False):
        super().__init__(daemon=True)
        self.view, self.until, self._stopped = view, until, threading.Event()

    def run(self) -> None:
        """Poll, every second or, where a poll takes long, so that it takes a sixth of the time."""
        while not self._stopped.is_set():
            start = time.monotonic()
            over = self.until()  # before the poll: what ends meanwhile is told
            self.poll()
            if over:
                return
            self._stopped.wait(min(30.0, max(1.0, 5 * (time.monotonic() - start))))

    def poll(self) -> None:
        """Read and tell what has happened since the last poll."""
        try:
            self.view.tell(self.view.watch.poll())
        except OSError as error:  # a file server that is away for a while
            self.view.say(f"warning: the results cannot be read now: {error}", "yellow")

    def stop(self) -> None:
        """Stop after a last poll."""
        self._stopped.set()
        if self.is_alive():
            self.join()
        self.poll()


def follow(plan: Plan, results: Path, console: Console) -> None:
    """Show a study that another process runs, until it ends; then how far it came.

    Ctrl-C ends the showing alone.
    """
    folder = results / plan.study.study
    watch = Watch(work.counted(plan), results)
    view = View(watch, console, runs=True)

    def over() -> bool:
        alive = going_on(folder)
        return (not alive and not watch.rows) if alive is not None else watch.over

    poller = Poller(view, until=over)
    poller.poll()
    if over():
        view.say(f"The study {plan.study.study} is not running. So far:")
    view.start()
    try:
        poller.run()
    except KeyboardInterrupt:
        return
    finally:
        view.stop()
    view.say(status.text(plan, results))
    if (page := folder / "report.html").exists():
        view.say(f"Open {page}")
