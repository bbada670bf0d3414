"""The training loop: outer steps, validation, selection, checkpoints.

A run is resumed from its last checkpoint. On a CPU with the same number of threads a resumed run
equals an uninterrupted one bit for bit, since every batch is a function of the step alone.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import torch

from cml_bench.content import Engine
from cml_bench.data.episodes import Episodes, Task
from cml_bench.engine import checkpoint
from cml_bench.engine.build import (
    STEPS,
    Settings,
    build_data,
    build_method,
    check_data,
    choose_path,
    tasks_at_once,
    tested_at_once,
)
from cml_bench.engine.diagnostics import diagnose
from cml_bench.engine.evaluate import Result, evaluate
from cml_bench.engine.precision import dtype_of
from cml_bench.engine.step import (
    MetaStep,
    add_noise,
    check_colearner,
    clamp,
    leaves,
    optimizer,
    snapshot,
)
from cml_bench.methods.base import Groups
from cml_bench.records import Progress, write_progress
from cml_bench.spec import Protocol, RunSpec
from cml_bench.study.provenance import source
from cml_bench.texts import duration, score

_SAY_SECONDS = 10.0  # least time between two progress lines of a run


def annealed(protocol: Protocol, step: int, steps: int) -> float:
    """The learning rate of an outer step, on the way from ``outer_lr`` to ``outer_lr_min``.

    It changes once an epoch, by half a cosine or in equal steps (``outer_schedule``).
    """
    low, high = protocol.outer_lr_min, protocol.outer_lr
    assert low is not None  # otherwise the learning rate is constant
    done = (step // protocol.epoch_steps) * protocol.epoch_steps / steps
    share = 1 - done if protocol.outer_schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return low + (high - low) * share


class Kept(TypedDict):
    """A model of a validated step; the higher its score, the better. Checkpoints store it."""

    step: int
    score: float
    groups: Groups


class Training:
    """State of one training: parameters, optimiser, step, best models, curves."""

    def __init__(self, spec: RunSpec, settings: Settings, folder: Path, say: Callable[[str], None]):
        self.spec, self.settings, self.folder, self.say = spec, settings, folder, say
        self.device, self.dtype = torch.device(settings.device), dtype_of(spec.precision)
        self.data = build_data(spec).open(settings.data_dir, self.device, self.dtype)
        self.method = build_method(spec, self.data, settings.path)
        self.path = choose_path(settings.path, spec, type(self.method.network), self.device)
        self.tasks_at_once = tasks_at_once(settings, self.method, self.device)
        self.tested_at_once = tested_at_once(settings, self.method, self.device)
        way, shot, query = spec.way, spec.shot, spec.query
        self.train_tasks = Episodes(self.data, "train", way, shot, query, seed=spec.seed)
        self.val_tasks = Episodes(self.data, "validation", way, shot, query)
        self.groups: Groups = leaves(self.method.init(spec.seed), self.device, self.dtype)
        self.source = source(spec)  # now: a file may be edited while this trains
        self.step, self.done_seconds = 0, {"train": 0.0, "validation": 0.0, "diagnostics": 0.0}
        self.best: dict[str, Kept] = {}
        # head -> the members of its ensemble, the best first.
        self.top: dict[str, list[Kept]] = {}
        self.curves: dict[str, Any] = {"step": [], "train": {}, "validation": {}, "diagnostics": []}
        self.running: torch.Tensor | None = None  # sums over tasks, read only at a pause
        self.running_tasks = 0
        self.last_validation: Result | None = None
        self.diverged = False
        # How many seeds one program trains, and which of them this is: engine/seeds.py.
        self.seeds, self.place = 1, 0
        self.meta_step: MetaStep | None = None
        self._new_optimizer()
        self._started = self._saved = time.monotonic()
        self._start_step, self._said, self._told = 0, 0.0, self._started
        self._loss: float | None = None  # of the last validation

    @property
    def engine(self) -> Engine:
        """What the last bits of results depend on, for the record.

        ``tasks_at_once`` belongs to it, too, and has a key of its own in the record.
        """
        device, threads = self.settings.device, self.settings.threads
        engine = Engine(device=device, threads=threads, path=self.path)
        # A training that is alone leaves ``seeds`` unset, and an unset field is not written.
        return engine if self.seeds == 1 else engine.model_copy(update={"seeds": self.seeds})

    @property
    def _exactly(self) -> dict[str, Any]:
        engine = self.engine.model_dump(exclude_unset=True)
        return engine | {"tasks_at_once": self.tasks_at_once, "place": self.place}

    def _new_optimizer(self) -> None:
        self.optimizer = optimizer(self.groups, self.spec.protocol, self.method.trains)
        if self.meta_step is not None:
            # Recorded and compiled programs do not depend on the optimiser, so they stay.
            self.meta_step.optimizer = self.optimizer
            return
        self.meta_step = STEPS[self.path](
            self.method, self.groups, self.optimizer, self.tasks_at_once, self._adjust
        )

    def release(self) -> None:
        """Free the memory of recorded steps for the test. No outer step may follow."""
        if self.path == "captured":
            self.meta_step = None

    def _adjust(self, groups: Groups) -> None:
        protocol = self.spec.protocol
        if protocol.gradient_noise:
            add_noise(self.method, groups, protocol.gradient_noise, self.spec.seed, self.step)
        if protocol.clamp:
            clamp(self.method, groups, protocol.clamp)

    # -- the loop --

    def run(self) -> None:
        """Train to the end, from wherever the last checkpoint left off."""
        for _ in self.steps():
            self.advance()

    def steps(self) -> Iterator[None]:
        """The training without its outer steps: this yields whenever one is due.

        The caller makes the outer step before it asks again.
        """
        self._resume()
        spec, protocol = self.spec, self.spec.protocol
        while True:
            due = self.step % protocol.val_every == 0 or self.step == spec.steps
            if (
                due
                and (not self.curves["step"] or self.curves["step"][-1] < self.step)
                and spec.steps
            ):
                self._pause()
            if self.step >= spec.steps or self.diverged or self._patience_is_over():
                return
            if (
                protocol.optimizer_reset_every
                and self.step
                and self.step % protocol.optimizer_reset_every == 0
            ):
                self._new_optimizer()
            yield
            if time.monotonic() - self._told >= _SAY_SECONDS:
                self._tell_progress()
            if self._overdue():
                self._save()

    def _patience_is_over(self) -> bool:
        """Whether the last ``patience`` validations in a row brought no improvement.

        The validation at step 0 does not count.
        """
        patience = self.spec.protocol.patience
        seen = self.curves["validation"].get("score_meta", [])
        seen = seen[1:] if self.curves["step"][:1] == [0] else seen
        if not patience or len(seen) <= patience:
            return False
        best = (max if self.method.kind == "classification" else min)(seen)
        return len(seen) - 1 - seen.index(best) >= patience

    def _overdue(self) -> bool:
        return time.monotonic() - self._saved >= self.settings.checkpoint_seconds

    def advance(self) -> None:
        """Make one outer step."""
        start = time.perf_counter()
        batch = self.begin_step()
        assert self.meta_step is not None  # it is released after the last step only
        scores = self.meta_step(batch)
        if self.step == 0:
            check_colearner(self.method, self.groups, self.spec.title)
        sums = torch.stack([value for values in scores for value in values.values()]).sum(1)
        self.running = sums if self.running is None else self.running.add_(sums)
        self.end_step(len(batch), time.perf_counter() - start)

    def begin_step(self) -> Task:
        """Set the method's phase and the learning rate; returns the step's meta-batch."""
        protocol = self.spec.protocol
        self.method.at_step(self.step)
        if protocol.outer_lr_min is not None:
            for chosen in self.optimizer.param_groups:
                chosen["lr"] = annealed(protocol, self.step, self.spec.steps)
        return self.train_tasks.batch(self.step * protocol.meta_batch, protocol.meta_batch)

    def end_step(self, tasks: int, seconds: float) -> None:
        """Count an outer step of so many tasks that took so many seconds."""
        self.running_tasks += tasks
        self.step += 1
        self.done_seconds["train"] += seconds

    def _pause(self) -> None:
        """Between outer steps: read the metrics, validate, diagnose, select, save, report."""
        train = {}
        if self.running is not None:
            names = [f"{kind}_{head}" for kind in ("loss", "score") for head in self.method.heads]
            train = dict(
                zip(names, (self.running.double() / self.running_tasks).tolist(), strict=True)
            )
        self.running, self.running_tasks = None, 0
        val = self._validate()
        self.diverged = not all(torch.isfinite(torch.tensor([*train.values(), *val.values()])))
        self.curves["step"].append(self.step)
        for name, values in (("train", train), ("validation", val)):
            for key, value in values.items():
                series = self.curves[name].setdefault(key, [])
                series.extend([None] * (len(self.curves["step"]) - 1 - len(series)))
                series.append(value if abs(value) < float("inf") else None)
        if not self.diverged:
            self._diagnose()
            self._select(val)
        final = self.step == self.spec.steps or self.diverged or self._patience_is_over()
        if not self.diverged and (final or self._overdue()):  # a long test follows the final one
            self._save()
        if final or not self.curves["step"][:-1] or time.monotonic() - self._said >= _SAY_SECONDS:
            self._say_progress(train, val)

    def _validate(self) -> dict[str, float]:
        start = time.perf_counter()
        protocol = self.spec.protocol
        first = len(self.curves["step"]) * protocol.val_tasks if protocol.val_fresh else 0
        results = evaluate(
            self.method,
            self.groups,
            self.val_tasks,
            protocol.val_tasks,
            first=first,
            tasks_at_once=self.tested_at_once,
        )
        values = {}
        self.last_validation = results["meta", self.method.inner_steps]
        for (head, _), result in results.items():
            values[f"loss_{head}"] = result.loss.double().mean().item()
            values[f"score_{head}"] = result.score.double().mean().item()
        self.done_seconds["validation"] += time.perf_counter() - start
        return values

    def _diagnose(self) -> None:
        if self.settings.diagnostics:
            start = time.perf_counter()
            values = diagnose(self.method, self.groups, self.val_tasks.batch(0, 1))
            self.curves["diagnostics"].append({"step": self.step, **values})
            self.done_seconds["diagnostics"] += time.perf_counter() - start

    def _select(self, val: dict[str, float]) -> None:
        """Keep psi, theta and phi of the step at which each head validates best.

        Step 0 is kept only until another step is validated.
        """
        better, protocol = 1 if self.method.kind == "classification" else -1, self.spec.protocol
        for head in self.method.heads:
            score = val[f"score_{head}"] * better
            old = self.best.get(head)
            improves = old is None or old["step"] == 0 or score > old["score"]
            if improves or protocol.selection == "last" or protocol.save_last:
                self.best[head] = self._kept(score)
            if protocol.ensemble_top_k > 1:
                top = [entry for entry in self.top.get(head, []) if entry["step"]]
                if len(top) < protocol.ensemble_top_k or score > top[-1]["score"]:
                    top.append(self._kept(score))
                self.top[head] = sorted(top, key=lambda entry: -entry["score"])[
                    : protocol.ensemble_top_k
                ]

    def _kept(self, score: float) -> Kept:
        return {"step": self.step, "score": score, "groups": snapshot(self.groups)}

    def _say_progress(self, train: dict[str, float], val: dict[str, float]) -> None:
        self._said = time.monotonic()
        loss = f"  loss {train['loss_meta']:.3f}" if train else ""
        left = f"  {duration(seconds)} left" if (seconds := self._left()) else ""
        self.say(
            f"{self.spec.title}: step {self.step}/{self.spec.steps}{loss}"
            f"  val {score(val['score_meta'], self.method.kind)}{left}"
        )
        self._loss = train["loss_meta"] if train and not self.diverged else None
        self._tell_progress()

    def _left(self) -> int | None:
        """Seconds to the last step at the pace so far; None if nothing was trained yet."""
        if self.step == self._start_step:
            return None
        pace = (time.monotonic() - self._started) / (self.step - self._start_step)
        return round(pace * (self.spec.steps - self.step))

    def _tell_progress(self) -> None:
        """Write ``progress.json``; between two validations, with the loss of the last one."""
        self._told = time.monotonic()
        scores = tuple(self.curves["validation"].get("score_meta", ()))
        write_progress(
            self.folder,
            Progress(
                step=self.step,
                steps=self.spec.steps,
                loss=self._loss,
                left=self._left(),
                validation=scores,
                kind=self.method.kind,
            ),
        )

    # -- checkpoints --

    def _save(self) -> None:
        state = {
            "id": self.spec.id,
            "data": self.data.sha256,
            "source": self.source.model_dump(),
            "step": self.step,
            "groups": snapshot(self.groups),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "curves": self.curves,
            "seconds": self.done_seconds,
            "engine": self._exactly,
            "top": self.top,
            "running": self.running,
            "running_tasks": self.running_tasks,
            "last_validation": (
                None if self.last_validation is None else tuple(self.last_validation)
            ),
        }
        checkpoint.save(self.folder, state)
        self._saved = time.monotonic()

    def _resume_source(self, before: dict[str, Any] | None) -> None:
        """Remember with which source the training began, if that is another one."""
        begun = before and (before["begun"] or before["files"])
        if begun and begun != self.source.files:
            self.source = self.source.model_copy(update={"begun": begun})
            self.say(f"{self.spec.title}: was begun with other source, and goes on with this")

    def _resume(self) -> None:
        state = checkpoint.load(self.folder)
        if state is None or state["id"] != self.spec.id:
            return
        trained_on = state.get("data", self.data.sha256)
        check_data(self.folder, self.spec, trained_on, self.data.sha256)
        for group, params in state["groups"].items():
            for name, value in params.items():
                self.groups[group][name].data.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best, self.curves = state["step"], state["best"], state["curves"]
        self.done_seconds, self.top = state["seconds"], state["top"]
        self._start_step = self.step
        self.running = None if state["running"] is None else state["running"].to(self.device)
        self.running_tasks = state["running_tasks"]
        self.last_validation = state["last_validation"] and Result(*state["last_validation"])
        # The phase is as it was when the checkpoint was written, since diagnostics may follow.
        self.method.at_step(max(self.step - 1, 0))
        self.say(f"{self.spec.title}: resumed at step {self.step}")
        self._resume_source(state.get("source"))
        if state["engine"] != self._exactly:
            self.say(
                f"{self.spec.title}: was begun with {state['engine']}, goes on with"
                f" {self._exactly}: not bit for bit"
            )
