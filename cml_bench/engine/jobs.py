"""Several runs in one process: each keeps its own lock, log, checkpoints, and its own failure."""

import sys
import traceback
from pathlib import Path

from cml_bench.engine.precision import out_of_memory
from cml_bench.engine.run import run
from cml_bench.engine.train import Settings
from cml_bench.errors import UserError
from cml_bench.files import write_json
from cml_bench.records import Record, Store, write_failure
from cml_bench.spec import RunSpec


def run_all(specs: list[RunSpec], settings: Settings, stamp: Path | None = None) -> None:
    """Run all; then write the stamp, or raise one UserError that names every run that failed and its log."""
    done, failed = {}, []
    for number, spec in enumerate(specs, 1):
        try:
            record = run(spec, settings)
        except Exception as error:  # one run's failure must not take the others with it
            failed.append(_explain(spec, settings, error))
            continue
        done[spec.id] = record.status
        results = record.content["results"].items()
        shown = "  ".join(f"{key} {value:.4f}" for key, value in results if key.startswith(("meta@", "co@")))
        settings.report(f"run {number} of {len(specs)} {record.status}: {spec.title}  test: {shown or 'none'}")
        if record.status == "diverged" and stamp is None:  # under a stamp the study goes on, and its tables say so
            failed.append(_diverged(record))
    if failed:
        raise UserError("; ".join(failed))
    if stamp is not None:
        tasks = {spec.id: spec.evaluation.tasks for spec in specs}
        write_json(stamp, {"runs": done, "tasks": tasks})


def _diverged(record: Record) -> str:
    step = (record.content.get("curves", {}).get("step") or ["?"])[-1]
    return (
        f"{record.spec.title}: diverged, its loss is not finite at step {step} (its record stands in {record.folder}); "
        "try a smaller inner_lr or outer_lr"
    )


def _memory(spec: RunSpec, settings: Settings, error: Exception) -> str:
    """What helps when a device's memory does not suffice. The run goes on from its last checkpoint."""
    fewer = f"fewer trainings a GPU (runs_per_gpu is {settings.runs_per_gpu}), " if settings.runs_per_gpu > 1 else ""
    told = str(error).splitlines()[0]
    text = (
        f"{spec.title}: the memory of the device did not suffice ({told}). What needs less and computes the same: "
        f"{fewer}fewer tasks at once (--config tasks_at_once=1; equal up to rounding, so train pairs alike). What "
        "needs less and makes another run: precision bf16, a smaller meta_batch, first_order. It goes on from its last "
        "checkpoint when started again"
    )
    write_failure(Store(settings.results).folder(spec), f"{text}\n{''.join(traceback.format_exception(error))}")
    return text


def _explain(spec: RunSpec, settings: Settings, error: Exception) -> str:
    if out_of_memory(error):
        return _memory(spec, settings, error)
    known = isinstance(error, UserError)
    text = f"{error}\n" if known else "".join(traceback.format_exception(error))
    try:
        path = write_failure(Store(settings.results).folder(spec), text)
    except OSError as problem:  # a full disk: the message is all that is left
        return f"{spec.title}: {error} (and no error.log: {problem})"
    if known:
        return f"{spec.title}: {error}"
    print("".join(traceback.format_exception_only(error)), file=sys.stderr)
    return f"{spec.title}: {type(error).__name__}: {error} (traceback in {path})"
