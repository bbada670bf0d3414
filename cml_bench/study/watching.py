"""A study while it runs, read from its files: what is done, what runs, what has just happened.

The terminal of Snakemake and ``status --watch`` show the same, since both read it here. Nothing but
the results folder is read, so it also works on another machine that mounts the folder. Imports no
torch.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cml_bench.errors import UserError
from cml_bench.records import DIVERGED, STATUSES, Progress, Store, read_progress
from cml_bench.study import cost, preflight, selection, status
from cml_bench.study.plan import Job, Plan, PlannedRun
from cml_bench.study.provenance import Here
from cml_bench.system.locks import being_written, try_lock
from cml_bench.texts import controls_escaped, duration, score

_PACE_SECONDS = 10.0  # a shorter time says too little of the pace
_START_HOURS = 10 / 3600  # from a job's start to its first step: benchmarks/results/startup.json


class Event(NamedTuple):
    """Something that happened to a run. ``kind``: a state of ``status``, such as ``running``."""

    kind: str
    text: str


class Row(NamedTuple):
    """A run that is running. ``left``: seconds, None if unknown."""

    job: str
    title: str
    progress: Progress | None
    left: int | None

    @property
    def share(self) -> float:
        """The share of its outer steps that is made, 0 to 1."""
        return self.progress.step / max(1, self.progress.steps) if self.progress else 0.0

    @property
    def score(self) -> str:
        """The last validation's score: ``52.1 %``, or ``MSE 3.212``; empty before the first."""
        if self.progress is None or not (scores := self.progress.validation):
            return ""
        return "" if scores[-1] is None else score(scores[-1], self.progress.kind)


class Watch:
    """The runs of a plan, from poll to poll.

    ``plan``: its ``work`` is used, if it was counted, to say how long all runs will take.
    ``fresh``: the study starts now, so a failure of an earlier start is not counted.
    """

    def __init__(self, plan: Plan, results: Path, fresh: bool = False):
        self.plan, self.results, self.store = plan, Path(results), Store(results)
        self._reasons, self._here = preflight.lost(plan, self.results), Here(plan)
        self._jobs: dict[str, Job] = {run: job for job in plan.jobs for run in job.runs}
        self._fresh, self._polled = fresh, False
        self._states: dict[str, status.State] = {}
        self._weights = {run.id: _weight(run) for run in plan.runs}
        self._pace_from: tuple[float, float] | None = None  # a time, and the work done until then
        self.rows: list[Row] = []
        self.left: float | None = None

    @property
    def counts(self) -> Counter[str]:
        """State -> number of runs."""
        return Counter(state.state for state in self._states.values())

    @property
    def ended(self) -> int:
        """How many runs have ended, be it collapsed or diverged."""
        return sum(self.counts[state] for state in STATUSES)

    @property
    def over(self) -> bool:
        """Whether every run that can start has ended or failed."""
        counts = self.counts
        return not any(counts[state] for state in ("running", "interrupted", "missing"))

    def poll(self) -> list[Event]:
        """Read what has changed. The first poll tells no events."""
        self._select()
        now, rows = time.monotonic(), []
        events: list[Event] = []
        for run in self.plan.runs:
            before = self._states.get(run.id)
            if before and before.state in STATUSES:
                continue
            state = self._state(run, before)
            self._states[run.id] = state
            if state.state == "running":
                rows.append(self._row(run))
            if self._polled and before and before.state != state.state:
                events += self._events(run, state)
        self.rows, self._polled = rows, True
        self._estimate(now)
        return events

    def _select(self) -> None:
        """Watch the runs of selected settings, too, as soon as all that decides has ended."""
        settings = [setting for sweep in self.plan.sweeps for setting in sweep.settings]
        states = [self._states.get(run) for setting in settings for run in setting.tried]
        if not states or not all(state and state.state in STATUSES for state in states):
            return
        plan = selection.narrowed(self.plan, self.store)
        if len(plan.runs) > len(self.plan.runs):
            known = {run.id: run.work for run in self.plan.runs}
            for setting in settings:  # but for the test, a setting costs the same with any seed
                for run in setting.tuned:
                    known.setdefault(run, known.get(setting.tried[0]))
            runs = tuple(run.model_copy(update={"work": known[run.id]}) for run in plan.runs)
            self.plan = plan.model_copy(update={"runs": runs})
            self._reasons, self._here = preflight.lost(self.plan, self.results), Here(self.plan)
            self._jobs = {run: job for job in self.plan.jobs for run in job.runs}
            self._weights = {run.id: _weight(run) for run in self.plan.runs}

    def _state(self, run: PlannedRun, before: status.State | None) -> status.State:
        state = status.state(run, self.store, self._reasons.get(run.id), self._here)
        # A failure of an earlier start stands in its log until the run begins anew.
        earlier = self._fresh and (before is None or before.state == "missing")
        if state.state in ("failed", "interrupted") and earlier:
            return state._replace(state="missing")
        return state

    def _row(self, run: PlannedRun) -> Row:
        folder = self.store.folder(run.spec)
        progress, left = read_progress(folder), None
        if progress and progress.left:
            with contextlib.suppress(OSError):  # the run has ended since
                age = time.time() - (folder / "progress.json").stat().st_mtime
                left = max(0, progress.left - max(0, round(age)))
        return Row(self._jobs[run.id].id, run.title, progress, left or None)

    def _events(self, run: PlannedRun, state: status.State) -> Iterator[Event]:
        if state.state in STATUSES:
            record = self.store.read(run.spec)
            told = f": {record.told}" if record and record.told else ""
            if state.state == DIVERGED:
                told = ": its loss is not finite; try a smaller inner_lr or outer_lr"
            took = f", {duration(sum(record.seconds.parts().values()))}" if record else ""
            yield Event(state.state, f"{state.state}: {run.title}{told}{took}")
        elif state.state == "running":
            yield Event("running", f"started: {run.title}")
        elif state.state in ("failed", "interrupted"):
            more = f": {state.more}" if state.more else ""
            yield Event(state.state, controls_escaped(f"{state.state}: {run.title}{more}"))

    def _estimate(self, now: float) -> None:
        """Seconds until all runs have ended, at the pace since the first of them was seen."""
        share = {row.title: row.share for row in self.rows}
        done = left = 0.0
        for run in self.plan.runs:
            state, weight = self._states[run.id].state, self._weights[run.id]
            part = 1.0 if state in STATUSES else share.get(run.title, 0.0)
            done += part * weight
            if state not in (*STATUSES, "failed", "not run"):
                left += (1 - part) * weight
        if self._pace_from is None and self.rows:
            self._pace_from = now, done
        if self._pace_from is None or now - self._pace_from[0] < _PACE_SECONDS:
            return
        seconds, made = now - self._pace_from[0], done - self._pace_from[1]
        # With few runs left the pace falls: the last one is not helped by a second core.
        longest = max((row.left or 0 for row in self.rows), default=0)
        self.left = max(left * seconds / made, longest) if made > 0 and left > 0 else None


def _weight(run: PlannedRun) -> float:
    """How much of the study's time a run takes, in any unit."""
    if run.work is None:
        return 1.0 + run.spec.steps
    return _START_HOURS + cost.hours([run], gpu=False)


# -- whether a study is going on --


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[None]:
    """Mark a study's folder as that of a study which is going on, as long as this process lives.

    Where files cannot be locked, or another process has marked it, nothing is done.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, UserError):
            folder.mkdir(parents=True, exist_ok=True)
            try_lock(
                stack.enter_context(open(folder / ".lock", "a+", encoding="utf-8")), "`results`"
            )
        yield


def going_on(folder: Path) -> bool | None:
    """Whether the study of this folder is going on; None if nobody can tell."""
    try:
        return being_written(folder)
    except UserError:
        return None
