"""One whole run: lock, train or resume, test, store. A finished run is never trained again."""

import datetime
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from cml_bench import plugins, registry
from cml_bench.content import Engine
from cml_bench.data.episodes import Episodes
from cml_bench.engine import checkpoint
from cml_bench.engine.build import (
    Settings,
    build_data,
    build_method,
    check_data_of,
    tested_at_once,
)
from cml_bench.engine.content import content_of, evaluation_content, rounded
from cml_bench.engine.device import forget_peak_memory, placed
from cml_bench.engine.evaluate import Result, evaluate
from cml_bench.engine.flops import flops_of
from cml_bench.engine.models import read_models, write_models
from cml_bench.engine.precision import computing, dtype_of
from cml_bench.engine.readings import Models, counted, test_results
from cml_bench.engine.step import snapshot
from cml_bench.engine.train import Training
from cml_bench.errors import UserError
from cml_bench.methods.base import Method
from cml_bench.networks.base import count
from cml_bench.readings import META, evaluation_key, reading_and_steps
from cml_bench.records import (
    COLLAPSED,
    Record,
    Store,
    forget_failure,
    forget_progress,
    read,
    refuse_untestable,
    run_status,
    write_episodes,
    write_record,
)
from cml_bench.spec import Evaluation, RunSpec
from cml_bench.study import work
from cml_bench.system.locks import run_lock

_STATUS_TASKS = 100  # validation tasks from which a run may be said to have collapsed


def run(spec: RunSpec, settings: Settings) -> Record:
    """The record of this run. If it is not finished, it is trained first."""
    parts = stages(spec, settings)
    try:
        next(parts).run()
        next(parts)
    except StopIteration as end:
        return end.value
    finally:
        parts.close()
    raise AssertionError("a run has one training")


def stages(spec: RunSpec, settings: Settings) -> Generator[Training, None, Record]:
    """A run as a generator: it yields the training, if one is needed, and returns the record.

    The caller makes the training before it asks again.
    """
    store = Store(settings.results)
    folder = store.folder(spec)
    refuse(spec, settings)
    if (record := _stored(store, spec, settings)) is not None and covered(record, spec):
        return record  # nothing is written beside a finished run, not even a lock
    with run_lock(folder, wait=settings.report if settings.wait else None):
        record = _stored(store, spec, settings)  # another process may have made it meanwhile
        if record is not None and covered(record, spec):
            return record
        with (
            open(folder / "run.log", "a", encoding="utf-8") as log,
            placed(settings, spec) as device,
            computing(spec.precision, device),
        ):
            here = replace(settings, device=device, report=_both(log, settings.report))
            torch.set_num_threads(settings.threads)
            forget_peak_memory(device)
            forget_failure(folder)
            if record is not None:
                return reevaluate(record, spec, here)
            if not registry.method(spec.method).learns:
                return _without_learning(spec, here, folder)
            training = Training(spec, here, folder, here.report)
            yield training
            training.release()
            return _finish(training)


def refuse(spec: RunSpec, settings: Settings) -> None:
    """A UserError for a spec that names what does not exist here; nothing is written.

    A finished run is not refused.
    """
    if not (Store(settings.results).folder(spec) / "record.json").exists():
        data = build_data(spec)
        for split, query in (
            ("train", spec.query),
            ("validation", spec.query),
            ("test", spec.evaluation.query),
        ):
            data.check(split, spec.way, spec.shot, query)
        if registry.method(spec.method).learns:
            build_method(spec, data)


def _stored(store: Store, spec: RunSpec, settings: Settings) -> Record | None:
    """The record, if there is one.

    A UserError if it is of other data, or cannot be tested as the spec asks.
    """
    record = store.read(spec)
    if record is not None:
        check_data_of(record, settings.data_dir)
        refuse_untestable(record, spec.evaluation)
    return record


def _both(log: TextIO, report: Callable[[str], None]) -> Callable[[str], None]:
    """A function that says a text to the user, and writes it with the time into the run's log."""

    def say(text: str) -> None:
        log.write(f"{datetime.datetime.now(datetime.UTC):%H:%M:%S} {text}\n")
        log.flush()
        report(text)

    return say


# -- finishing --


def _finish(training: Training) -> Record:
    """Store the models of a training that has ended, test them and write the record."""
    spec, folder = training.spec, training.folder
    models, steps = _selected(training)
    write_models(folder, models, steps, spec)
    start = time.perf_counter()
    arrays = _tested(training, models, steps)
    seconds = {**training.done_seconds, "test": time.perf_counter() - start}
    write_episodes(folder, arrays)
    content = content_of(spec, training.engine, training.data, arrays) | {
        "source": training.source.model_dump(mode="json", exclude_unset=True),
        "status": _status(training),
        "selected": steps,
        "parameters": _parameters(training.method),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "tasks_at_once": training.tasks_at_once,
        "flops": _flops(training),
        "curves": rounded(training.curves),
    }
    record = write_record(folder, content)
    checkpoint.clear(folder)
    forget_progress(folder)
    return record


def _flops(training: Training) -> dict[str, int]:
    """FLOPs of a task, see :func:`flops_of`; those that the study's plan kept, if there are any.

    To count takes longer than the rest of a small training: it loads PyTorch's compiler.
    """
    kept = work.kept(work.cache_of(training.settings.results), work.kind(training.spec))
    if kept is None:
        return flops_of(training.spec, training.data)
    return kept.model_dump(include={"adaptation", "inference", "training"})


def _selected(training: Training) -> tuple[Models, dict[str, int]]:
    """The models that are stored, and the outer step of each.

    Where nothing was validated, the last model stands for the best ones.
    """
    best, last = training.best, snapshot(training.groups)
    steps = {"best_meta": best["meta"]["step"] if best else training.step, "last": training.step}
    models: Models = {"best_meta": best["meta"]["groups"] if best else last, "last": last}
    if "co" in training.method.heads:
        steps["best_co"] = best["co"]["step"] if best else training.step
        models["best_co"] = best["co"]["groups"] if best else last
    for head, entries in training.top.items():
        models |= {f"top_{head}.{i}": entry["groups"] for i, entry in enumerate(entries)}
        steps |= {f"top_{head}.{i}": entry["step"] for i, entry in enumerate(entries)}
    return models, steps


def _tested(training: Training, models: Models, steps: dict[str, int]) -> dict[str, np.ndarray]:
    """Test results by reading; none of a diverged training, nor where none are asked for.

    A training that was finite in validation may diverge here, by a result that is not finite.
    """
    spec = training.spec
    if training.diverged or not spec.evaluation.tasks:
        return {}
    arrays = test_results(
        training.method,
        training.data,
        spec,
        models,
        steps,
        spec.evaluation,
        training.tested_at_once,
    )
    training.diverged = not all(np.isfinite(values).all() for values in arrays.values())
    return {} if training.diverged else arrays


def _parameters(method: Method) -> dict[str, int]:
    """Numbers of parameters: ``test`` psi and theta, ``co`` phi, ``train`` all of them,
    ``co_at_test`` psi and phi.
    """
    test = count(method.params)
    co = count(method.co.params) if "co" in method.heads else 0
    theta = sum(p.size for name, p in method.params.items() if name in method.network.head_names)
    return {"test": test, "co": co, "train": test + co, "co_at_test": test + co - theta}


def _status(training: Training) -> str:
    """Finished, diverged or collapsed; only a classifier that was validated can have collapsed."""
    losses = [float("nan")] if training.diverged else []
    last = training.last_validation
    if training.method.kind != "classification" or last is None:
        return run_status(losses)
    return run_status(losses, *_final_answers(training, last))


def _final_answers(training: Training, last: Result) -> tuple[np.ndarray, int, int]:
    """Correct answers of the last model on each validation task, answers in a task, and ways.

    The tasks are those of the last validation. If the model looks collapsed on them and they are
    few (20 in TLP's code), more tasks decide: a few cannot tell a score from chance.
    """
    spec = training.spec
    answers = spec.way * spec.query
    right = counted(last.score, answers)
    looks_so = not training.diverged and run_status([], right, answers, spec.way) == COLLAPSED
    if looks_so and len(right) < _STATUS_TASKS:
        results = evaluate(
            training.method,
            training.groups,
            training.val_tasks,
            _STATUS_TASKS,
            heads=("meta",),
            tasks_at_once=training.tested_at_once,
        )
        right = counted(results["meta", training.method.inner_steps].score, answers)
    return right, answers, spec.way


def _without_learning(spec: RunSpec, settings: Settings, folder: Path) -> Record:
    """Test a method that does not learn, and write its record."""
    data = build_data(spec).open(
        settings.data_dir, torch.device(settings.device), dtype_of(spec.precision)
    )
    method, wanted = build_method(spec, data), spec.evaluation
    start = time.perf_counter()
    episodes = Episodes(data, "test", spec.way, spec.shot, wanted.query)
    parts = [
        method.evaluate(episodes.batch(i, min(16, wanted.tasks - i))).score["meta"]
        for i in range(0, wanted.tasks, 16)
    ]
    answers = spec.way * wanted.query
    arrays = {evaluation_key(META, 0): counted(torch.cat(parts), answers)}
    write_episodes(folder, arrays)
    engine = Engine(device=settings.device, threads=settings.threads, path="plain")
    content = content_of(spec, engine, data, arrays) | {
        "status": "finished",
        "parameters": {"test": 0, "co": 0, "train": 0, "co_at_test": 0},
        "flops": {"adaptation": 0, "inference": 0, "training": 0},
        "seconds": {"train": 0.0, "test": round(time.perf_counter() - start, 3)},
    }
    return write_record(folder, content)


def reevaluate(record: Record, spec: RunSpec, settings: Settings) -> Record:
    """The record with all that ``spec.evaluation`` asks for, without training.

    What is missing is tested with the stored models.
    """
    if covered(record, spec):
        return record
    folder, wanted = record.folder, spec.evaluation
    if record.evaluation.query == wanted.query:
        wanted = record.evaluation.joined(wanted)
    torch.set_num_threads(settings.threads)
    if not registry.method(spec.method).learns:
        return _without_learning(spec.model_copy(update={"evaluation": wanted}), settings, folder)
    data = build_data(spec).open(
        settings.data_dir, torch.device(settings.device), dtype_of(spec.precision)
    )
    method = build_method(spec, data, settings.path)
    at_once = tested_at_once(settings, method, data.device)
    arrays = test_results(method, data, spec, read_models(folder), record.selected, wanted, at_once)
    if record.evaluation.query == wanted.query:
        # A co-learner that was deleted cannot be tested again, so its results stay.
        arrays = {**record.arrays, **arrays}
    write_episodes(folder, arrays)
    content = dict(record.content)
    content |= evaluation_content(arrays, wanted, spec, data.kind)
    return write_record(folder, content)


def extend(
    folder: Path, wanted: dict[str, Any], settings: Settings, replace_results: bool = False
) -> Record:
    """Test the run in ``folder`` further. ``wanted``: new values of tasks, query,
    inner_steps or normalised_with.

    A UserError if there is no finished run, or if results would be lost. Another number of queries
    means other tasks, and a run keeps the results of one number only, so ``replace_results`` must
    allow that.
    """
    record = read(folder)
    if record is None:
        raise UserError(f"{folder} holds no finished run (no record.json).")
    plugins.check_known(record.source.files if record.source else (), folder)
    check_data_of(record, settings.data_dir)
    old = record.evaluation
    asked = Evaluation.read({**old.model_dump(), **wanted}, "evaluation")
    if old.tasks and asked.query != old.query and not replace_results:
        raise UserError(
            f"{folder} has results with {old.query} queries per class; with {asked.query} they"
            " would be replaced, and tables of its study would miss it. Add --replace if that is"
            " meant, or evaluate a copy of the folder."
        )
    spec = record.spec.model_copy(update={"evaluation": asked})
    build_data(spec).check_evaluation(asked)
    if {*wanted.get("normalised_with", ())} - {"task"} and spec.network is None:
        raise UserError(
            f"{folder}: {spec.method} has no network that normalises queries: leave out"
            " normalised_with."
        )
    refuse_untestable(record, asked)
    if covered(record, spec):
        return record
    with run_lock(folder), placed(settings, spec) as device, computing(spec.precision, device):
        return reevaluate(record, spec, replace(settings, device=device))


def covered(record: Record, spec: RunSpec) -> bool:
    """Whether nothing is left to test. A diverged run has no model to test.

    A reading that the method got since the run is left to test if its stored model is there.
    """
    if record.status == "diverged" or not spec.evaluation.tasks:
        return True
    later = (
        registry.method(spec.method).more_readings
        if (record.folder / "best_co.safetensors").exists()
        else ()
    )
    known = {reading_and_steps(key)[0] for key in record.results}
    return record.evaluation.covers(spec.evaluation) and all(r.name in known for r in later)
