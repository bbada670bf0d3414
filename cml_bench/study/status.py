"""How far a study is: the state of every run, counted per table.

Imports no torch, and starts nothing.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from cml_bench.errors import UserError
from cml_bench.records import DIVERGED, Store, read_progress
from cml_bench.study import preflight, provenance
from cml_bench.study.plan import Plan, PlannedRun
from cml_bench.study.provenance import Here
from cml_bench.system.locks import being_written
from cml_bench.texts import controls_escaped, duration

# In the order in which they are shown.
STATES = (
    "finished",
    "diverged",
    "collapsed",
    "running",
    "interrupted",
    "failed",
    "missing",
    "not run",
)


class State(NamedTuple):
    """One run's state. ``more`` is for people: step and time left, the path of a log, a reason.

    ``source`` of a run that has ended is empty if it is of the source that is here, else
    ``unknown``, or the files that differ. ``stored``: ``weights`` if there is a record and the run
    can be tested further, ``record`` if it cannot, empty without a record. ``lacks``: which of the
    test results that are asked for the record has not.
    """

    run: str
    title: str
    state: str
    more: str = ""
    source: str = ""
    stored: str = ""
    lacks: str = ""


def states(plan: Plan, results: Path) -> dict[str, State]:
    """Run id -> its state."""
    store, reasons, here = Store(results), preflight.lost(plan, results), Here(plan)
    return {run.id: state(run, store, reasons.get(run.id), here) for run in plan.runs}


def state(run: PlannedRun, store: Store, reason: str | None, here: Here) -> State:
    """One run's state. ``reason``: why it cannot start, of :func:`preflight.lost`."""
    folder = store.folder(run.spec)
    record, problem = store.usable(run.spec)
    if problem:
        return State(run.id, run.title, "failed", problem)
    stored = "" if record is None else "weights" if record.testable else "record"
    lacks = record.lacks(run.spec.evaluation) if record else ""
    if record is not None and not lacks:
        source = here.compared(record)
        return State(run.id, run.title, record.status, source=source, stored=stored)
    try:
        if being_written(folder):
            return State(run.id, run.title, "running", _progress(folder))
        hidden = ""
    except UserError as error:
        hidden = f"whether it is running cannot be told: {error}"
    if (folder / "error.log").exists():
        last = (
            (folder / "error.log")
            .read_text(errors="replace", encoding="utf-8")
            .strip()
            .splitlines()
        )
        return State(
            run.id, run.title, "failed", f"{last[-1] if last else ''} (see {folder / 'error.log'})"
        )
    if any(folder.glob("checkpoint-*.pt")):
        more = hidden or "goes on from its checkpoint"
        return State(run.id, run.title, "interrupted", f"{_progress(folder, ended=True)}; {more}")
    more = f"{lacks}; the next start tests the stored model further" if record else hidden
    kind = "not run" if reason else "missing"
    return State(run.id, run.title, kind, reason or more, stored=stored, lacks=lacks)


def _progress(folder: Path, ended: bool = False) -> str:
    progress = read_progress(folder)
    if progress is None:
        return "starting"
    text = f"step {progress.step:,} of {progress.steps:,}"
    text += "" if progress.loss is None else f", loss {progress.loss:.3f}"
    left = "" if ended or not progress.left else f", about {duration(progress.left)} left"
    return text + left


def counts(plan: Plan, states_of: dict[str, State]) -> dict[str, dict[str, int]]:
    """Table key -> state -> number of runs; the key ``all runs`` counts the whole study."""
    groups = {"all runs": set(states_of)}
    for cell in plan.cells:
        groups.setdefault(cell.table, set()).update(cell.needs)
    numbers = {key: Counter(states_of[run].state for run in runs) for key, runs in groups.items()}
    return {
        key: {state: by_state[state] for state in STATES if by_state[state]}
        for key, by_state in numbers.items()
    }


def text(plan: Plan, results: Path) -> str:
    """For people: counts per table, then every run that is neither finished nor simply missing."""
    states_of = states(plan, results)
    lines = [
        f"{key}: {', '.join(f'{n} {state}' for state, n in numbers.items())}"
        for key, numbers in counts(plan, states_of).items()
    ]
    lines += provenance.told(s.source for s in states_of.values())
    lines += _already_there(plan, results, states_of)
    for state in STATES:
        if state not in ("finished", "not run"):
            told = [
                s for s in states_of.values() if s.state == state and (s.more or state != "missing")
            ]
            lines += [f"{state}: {s.title}{': ' + s.more if s.more else ''}" for s in told]
    reasons = {s.more for s in states_of.values() if s.state == "not run"}
    return controls_escaped(
        "\n".join([*lines, *(f"not run: {reason}" for reason in sorted(reasons))])
    )


def _already_there(plan: Plan, results: Path, states_of: dict[str, State]) -> list[str]:
    """What was not made by a start of this study: copied or imported runs, or another study's.

    A start leaves a stamp of each job that it has ended.
    """
    stamps = results / "done"
    others = [job for job in plan.jobs if not (stamps / f"{job.id}.json").exists()]
    every = [[states_of[run] for run in job.runs] for job in others]
    # A job that is going on, or has failed, leaves none either.
    own = ("running", "interrupted", "failed")
    there = [s for job in every for s in job if s.stored and not any(x.state in own for x in job)]
    if not there:
        return []
    lines = [
        f"already there: {_runs(there)} that no start of this study made; none is trained again"
    ]
    ended = [s for s in there if not s.lacks]
    if bare := [s for s in ended if s.stored == "record" and s.state != DIVERGED]:
        lines.append(f"without weights: {_runs(bare)} of these, which cannot be tested further")
    if less := [s for s in there if s.lacks]:
        further = sum(s.stored == "weights" for s in less)
        lines.append(
            f"tested on less than is asked for: {_runs(less)} of these; {further} can be tested"
            f" further without training, {len(less) - further} cannot, for want of weights"
        )
    return lines


def _runs(states: list[State]) -> str:
    return f"{len(states)} run{'s' * (len(states) > 1)}"
