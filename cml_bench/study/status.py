"""How far a study is: the state of every run, counted per table.

Imports no torch, and starts nothing.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from cml_bench.errors import UserError
from cml_bench.records import Store, read_progress
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
    ``unknown``, or the files that differ.
    """

    run: str
    title: str
    state: str
    more: str = ""
    source: str = ""


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
    if record is not None and not (lacks := record.lacks(run.spec.evaluation)):
        return State(run.id, run.title, record.status, source=here.compared(record))
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
    return State(run.id, run.title, "not run" if reason else "missing", reason or more)


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
