"""What a study says when it ends: finished, with failures, or stopped by the user.

Imports no torch.
"""

from pathlib import Path

from cml_bench.records import STATUSES
from cml_bench.study import preflight, status
from cml_bench.study.plan import Plan
from cml_bench.texts import controls_escaped


def finished(plan: Plan) -> str:
    """Above the tables: how many runs have ended, and how many cannot start."""
    unable = preflight.lost(plan)
    done = f"Finished: {_runs(len(plan.runs) - len(unable))}."
    return "\n".join([done, *preflight.told_of_lost(unable)])


def failed(plan: Plan, results: Path) -> str:
    """What failed and why. Every run that could be made was made."""
    states = list(status.states(plan, results).values())
    counts = status.counts(plan, {state.run: state for state in states})["all runs"]
    told = ", ".join(f"{n} {state}" for state, n in counts.items())
    wrong = [s for s in states if s.state == "failed"]
    lines = [
        f"Some runs failed: {told}."
        if wrong
        else f"Not all was made, for the reason above: {told}.",
        *(f"  failed: {s.title}: {s.more}" for s in wrong),
        "The tables hold what is finished. The same command tries again what failed.",
    ]
    return controls_escaped("\n".join(lines))


def stopped(plan: Plan, results: Path, command: str) -> str:
    """Three lines after Ctrl-C: what is finished, what is interrupted, how it goes on.

    ``command``: that which the user gave.
    """
    states = status.states(plan, results)
    done = sum(state.state in STATUSES for state in states.values())
    begun = [run for run in plan.runs if states[run.id].state in ("running", "interrupted")]
    kept = [run for run in begun if any((results / "runs" / run.folder).glob("checkpoint-*.pt"))]
    anew = [
        run
        for run in plan.runs
        if run not in kept and (results / "runs" / run.folder / "progress.json").exists()
    ]
    parts = [f"{_runs(len(kept))} with a checkpoint"] * bool(kept)
    parts += [f"{_runs(len(anew))} without {'one' if kept else 'a checkpoint'}"] * bool(anew)
    return "\n".join(
        [
            f"Finished: {done} of {_runs(len(plan.runs))}.",
            f"Interrupted: {' and '.join(parts) or 'no run'}.",
            f"The same command goes on from there: {command}",
        ]
    )


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
