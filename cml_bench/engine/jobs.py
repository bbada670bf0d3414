"""Several runs in one process: each keeps its own lock, log, checkpoints, and its own failure.

A run is a generator (:func:`cml_bench.engine.run.stages`): it takes its lock, yields a training
that is ready to begin, and, when it is asked again after that has ended, tests, and returns the
record. One alone is trained in between by itself; seeds of one program wait there for each other
and are trained by :class:`Together`, whose own generator says which of them has ended, and with
what error if any.
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
from cml_bench.readings import reading_and_steps
from cml_bench.records import Record, Store, write_failure
from cml_bench.spec import RunSpec
from cml_bench.system.files import write_json


def run_all(specs: list[RunSpec], settings: Settings, stamp: Path | None = None) -> None:
    """Run all; then write the stamp, or raise one UserError that names every run that failed and
    its log.
    """
    done, failed = {}, []
    for number, (spec, found) in enumerate(_made(specs, settings), 1):
        if isinstance(found, Exception):  # one run's failure must not take the others with it
            failed.append(_explain(spec, settings, found))
            continue
        done[spec.id] = found.status
        results = found.content["results"].items()
        shown = "  ".join(
            f"{key} {value:.4f}"
            for key, value in results
            if reading_and_steps(key)[0] in ("meta", "co")
        )
        settings.report(
            f"run {number} of {len(specs)} {found.status}: {spec.title}  test: {shown or 'none'}"
        )
        if (
            found.status == "diverged" and stamp is None
        ):  # under a stamp the study goes on, and its tables say so
            failed.append(_diverged(found))
    if failed:
        raise UserError("; ".join(failed))
    if stamp is not None:
        tasks = {spec.id: spec.evaluation.tasks for spec in specs}
        write_json(stamp, {"runs": {spec.id: done[spec.id] for spec in specs}, "tasks": tasks})


def _made(specs: list[RunSpec], settings: Settings) -> Iterator[tuple[RunSpec, Record | Exception]]:
    """Each run's record, or what went wrong, as soon as it is there."""
    for together in _batches(specs, settings):
        if len(together) > 1:
            yield from _made_together(together, settings)
            continue
        try:
            found: Record | Exception = run(together[0], settings)
        except Exception as error:
            found = error
        yield together[0], found


def _batches(specs: list[RunSpec], settings: Settings) -> list[list[RunSpec]]:
    """Runs that one program makes: those that differ in the seed alone, where a program is
    compiled.
    """
    found: dict[str, list[list[RunSpec]]] = {}
    for spec in specs:
        twins = (
            spec.model_copy(update={"seed": 0}).model_dump_json()
            if _shares(spec, settings)
            else spec.id
        )
        parts = found.setdefault(twins, [[]])
        if len(parts[-1]) == (settings.seeds_at_once or len(specs)):
            parts.append([])
        parts[-1].append(spec)
    return [part for parts in found.values() for part in parts]


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
        stack.enter_context(
            computing(specs[0].precision, "cpu")
        )  # each run sets it too, and sets back what it found
        begun = {}
        for place, spec in enumerate(specs):
            parts = stack.enter_context(contextlib.closing(stages(spec, settings)))
            found = _next(parts)
            if isinstance(found, Training):
                begun[place] = spec, parts, found
            else:
                yield spec, found
        if begun:
            settings.report(
                f"{len(specs)} seeds in one program: {specs[0].title.rpartition(',')[0]}"
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
    step = (record.content.get("curves", {}).get("step") or ["?"])[-1]
    return (
        f"{record.spec.title}: diverged, its loss is not finite at step {step} (its record stands"
        f" in {record.folder}); try a smaller inner_lr or outer_lr"
    )


def _memory(spec: RunSpec, settings: Settings, error: Exception) -> str:
    """What helps when a device's memory does not suffice. The run goes on from its last
    checkpoint.
    """
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
