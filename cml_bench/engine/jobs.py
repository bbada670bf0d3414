"""Several runs in one process: each has its own lock, log and checkpoints, and fails alone.

A run is a generator (:func:`cml_bench.engine.run.stages`). It takes its lock and yields a training
that is ready to begin. After the training has ended, the generator is asked again: it tests, and
returns the record. A single run is trained by itself. Seeds of one program wait for each other and
are trained by :class:`Together`, which says of each when it has ended, and with which error if any.
"""

import contextlib
import sys
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path

import torch

from cml_bench import registry
from cml_bench.engine.build import Settings, choose_path
from cml_bench.engine.precision import computing, out_of_memory
from cml_bench.engine.run import run, stages
from cml_bench.engine.seeds import Together, fits
from cml_bench.engine.train import Training
from cml_bench.errors import UserError
from cml_bench.records import Record, Store, write_failure
from cml_bench.spec import RunSpec
from cml_bench.system.files import write_json


def run_all(specs: list[RunSpec], settings: Settings, stamp: Path | None = None) -> None:
    """Make all runs, then write the stamp.

    If runs fail, one UserError at the end names each of them and its log.
    """
    done, failed = {}, []
    for number, (spec, ended) in enumerate(_made(specs, settings), 1):
        if isinstance(ended, Exception):  # one run's failure must not take the others with it
            failed.append(_explain(spec, settings, ended))
            continue
        done[spec.id] = ended.status
        told = f": {ended.told}" if ended.told else ""
        settings.report(f"run {number} of {len(specs)} {ended.status}: {spec.title}{told}")
        if ended.status == "diverged" and stamp is None:
            # With a stamp the study goes on, and its tables say so.
            failed.append(_diverged(ended))
    if failed:
        raise UserError("; ".join(failed))
    if stamp is not None:
        tasks = {spec.id: spec.evaluation.tasks for spec in specs}
        write_json(stamp, {"runs": {spec.id: done[spec.id] for spec in specs}, "tasks": tasks})


def _made(specs: list[RunSpec], settings: Settings) -> Iterator[tuple[RunSpec, Record | Exception]]:
    """Each run with its record or its error, as soon as the run has ended."""
    for together in _batches(specs, settings):
        if len(together) > 1:
            yield from _made_together(together, settings)
            continue
        try:
            ended: Record | Exception = run(together[0], settings)
        except Exception as error:
            ended = error
        yield together[0], ended


def _batches(specs: list[RunSpec], settings: Settings) -> list[list[RunSpec]]:
    """Groups of runs that one compiled program makes: they differ in the seed alone.

    Any other run is a group of its own.
    """
    by_twins: dict[str, list[list[RunSpec]]] = {}
    for spec in specs:
        twins = (
            spec.model_copy(update={"seed": 0}).model_dump_json()
            if _shares(spec, settings)
            else spec.id
        )
        parts = by_twins.setdefault(twins, [[]])
        if len(parts[-1]) == (settings.seeds_at_once or len(specs)):
            parts.append([])
        parts[-1].append(spec)
    return [part for parts in by_twins.values() for part in parts]


def _shares(spec: RunSpec, settings: Settings) -> bool:
    if settings.seeds_at_once == 1 or settings.device.startswith("cuda") or spec.network is None:
        return False
    try:
        network = registry.networks.get(spec.network.name)
        if choose_path(settings.path, spec, network, torch.device("cpu")) != "compiled":
            return False
        return fits(spec, registry.method(spec.method))
    except UserError:  # the run itself says what is wrong
        return False


def _made_together(
    specs: list[RunSpec], settings: Settings
) -> Iterator[tuple[RunSpec, Record | Exception]]:
    with contextlib.ExitStack() as stack:
        # Each run sets the precision, too, and restores the one before it.
        stack.enter_context(computing(specs[0].precision, "cpu"))
        begun = {}
        for place, spec in enumerate(specs):
            parts = stack.enter_context(contextlib.closing(stages(spec, settings)))
            first = _next(parts)
            if isinstance(first, Training):
                begun[place] = spec, parts, first
            else:
                yield spec, first
        if begun:
            settings.report(
                f"{len(specs)} seeds in one program: {specs[0].title.rpartition(', seed ')[0]}"
            )
        trainings = {place: training for place, (_, _, training) in begun.items()}
        for place, problem in Together(trainings, len(specs)).run():
            spec, parts, _ = begun[place]
            made = problem or _next(parts)
            assert not isinstance(made, Training)  # a run has one training
            yield spec, made


def _next(parts: Generator[Training, None, Record]) -> Training | Record | Exception:
    try:
        return next(parts)
    except StopIteration as end:
        return end.value
    except Exception as error:
        return error


def _diverged(record: Record) -> str:
    step = "?" if record.curves.trained is None else record.curves.trained
    return (
        f"{record.spec.title}: diverged, its loss is not finite at step {step} (its record stands"
        f" in {record.folder}); try a smaller inner_lr or outer_lr"
    )


def _memory(spec: RunSpec, settings: Settings, error: Exception) -> str:
    """What helps when a device's memory does not suffice; it is also written to ``error.log``."""
    fewer = (
        f"fewer trainings a GPU (runs_per_gpu is {settings.runs_per_gpu}), "
        if settings.runs_per_gpu > 1
        else ""
    )
    told = str(error).splitlines()[0]
    text = (
        f"{spec.title}: the memory of the device did not suffice ({told}). What needs less and"
        f" computes the same: {fewer}fewer tasks at once (--config tasks_at_once=1; equal up to"
        " rounding, so train pairs alike). What needs less and makes another run: precision bf16,"
        " a smaller meta_batch, first_order. It goes on from its last checkpoint when started"
        " again"
    )
    write_failure(
        Store(settings.results).folder(spec),
        f"{text}\n{''.join(traceback.format_exception(error))}",
    )
    return text


def _explain(spec: RunSpec, settings: Settings, error: Exception) -> str:
    """What is said of a failed run. Its ``error.log`` gets the traceback."""
    if out_of_memory(error):
        return _memory(spec, settings, error)
    known = isinstance(error, UserError)
    folder = Store(settings.results).folder(spec)
    if known and (folder / "record.json").exists():  # what is finished stays as it is
        return f"{spec.title}: {error}"
    text = f"{error}\n" if known else "".join(traceback.format_exception(error))
    try:
        path = write_failure(folder, text)
    except OSError as problem:  # a full disk: the message is all that is left
        return f"{spec.title}: {error} (and no error.log: {problem})"
    if known:
        return f"{spec.title}: {error}"
    print("".join(traceback.format_exception_only(error)), file=sys.stderr)
    return f"{spec.title}: {type(error).__name__}: {error} (traceback in {path})"
