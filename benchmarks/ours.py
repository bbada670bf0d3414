"""The engine's own paths, and the drawing of episodes."""

from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.problem import Problem
from cml_bench import seeding
from cml_bench.data._arrays import ImageArrays
from cml_bench.data.episodes import Episodes, Task
from cml_bench.data.stored import ImageSet
from cml_bench.engine.build import STEPS
from cml_bench.engine.evaluate import Asked, score_all
from cml_bench.engine.seeds import Together
from cml_bench.engine.step import adam, leaves
from cml_bench.spec import Options

CPU = torch.device("cpu")
DRAWN = 256  # episodes a call, as the engine draws them


class Engine:
    """``MetaStep`` and the evaluation loop, on one of the network's paths."""

    path = "fast"

    def __init__(
        self, problem: Problem, dtype: torch.dtype = torch.float32, at_once: int | None = None
    ):
        device = torch.device(problem.device)
        self.method = problem.learner(self.path)
        self.groups = leaves(problem.start(), device, dtype)
        self.leaves = {
            (group, name): p for group, params in self.groups.items() for name, p in params.items()
        }
        self.at_once = at_once or self.method.network.tasks_at_once(device)
        self.meta_step = STEPS[self.path](
            self.method, self.groups, adam(self.groups, 1e-3), self.at_once
        )

    def step(self, task: Task) -> None:
        """One outer step."""
        self.meta_step(task)

    def gradients(self, task: Task) -> None:
        """Set the gradients of ``leaves``."""
        self.meta_step.gradients(task)

    def evaluate(self, task: Task) -> list:
        """Scores after the inner loop, as validation asks for them."""
        asked, steps = [Asked([self.groups], ("meta",))], (self.method.inner_steps,)
        parts = [
            task.part(first, first + self.at_once) for first in range(0, len(task), self.at_once)
        ]
        return [score_all(self.method, asked, part, steps)[0] for part in parts]


class PlainEngine(Engine):
    """The network's plain path."""

    path = "plain"


class TaskByTask(Engine):
    """The fast path with one task at a time. By default, a CPU takes several of small images."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        super().__init__(problem, dtype, at_once=1)


class FourAtOnce(Engine):
    """The fast path with four tasks at a time. By default, a CPU takes fewer of large images."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        super().__init__(problem, dtype, at_once=4)


class CompiledEngine(Engine):
    """The path of engine/compiled.py."""

    path = "compiled"


class CapturedEngine(Engine):
    """The path of engine/captured.py."""

    path = "captured"


class _Seed(CompiledEngine):
    """What :class:`Together` needs of a training, with a meta-batch that is made beforehand."""

    spec = SimpleNamespace(title="a benchmark", protocol=SimpleNamespace(clamp=0.0))
    running = None

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        super().__init__(problem, dtype)
        self.optimizer, self.step, self.task = self.meta_step.optimizer, 0, None

    def begin_step(self) -> Task:
        """The meta-batch."""
        return self.task

    def end_step(self, tasks: int, seconds: float) -> None:
        """Count the outer step."""
        self.step += 1


class SeedsEngine:
    """Trainings of several seeds as one program."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        self.seeds = {place: _Seed(problem, dtype) for place in range(problem.seeds)}
        self.together = Together(self.seeds, problem.seeds)

    def step(self, task: Task) -> None:
        """One outer step of every seed."""
        for seed in self.seeds.values():
            seed.task = task
        self.together.advance(self.seeds)


class _Pictures(ImageSet):
    """64 classes of 600 noise images, as MiniImagenet's training split; ``size`` pixels a side."""

    name, data_id = "pictures", "pictures"
    class_counts = {"train": 64, "validation": 0, "test": 0}
    smallest_class = 600

    def __init__(self, channels: int, size: int, smallest: int):
        super().__init__(Options())
        self.input_shape, self.smallest_class = (channels, size, size), smallest
        images = np.random.default_rng(0).integers(
            0, 256, (64 * smallest, *self.input_shape), np.uint8, endpoint=False
        )
        everything = {"train": np.arange(64), "validation": np.arange(0), "test": np.arange(0)}
        self.attach(ImageArrays(images, np.full(64, smallest), everything), CPU, torch.float32)


class Draws:
    """Episodes as image numbers; a call draws :data:`DRAWN` of them."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        self.data, self.problem, self.key, self.first = (
            _Pictures(1, 1, 600),
            problem,
            seeding.key("benchmark"),
            0,
        )

    def draw(self, task: None) -> None:
        """The next episodes."""
        p = self.problem
        self.data.draw(self.key, "train", self.first, DRAWN, p.way, p.shot, p.query)
        self.first += DRAWN


class Pixels:
    """Meta-batches of episodes with their images in memory."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        data = _Pictures(problem.channels, problem.size, 100 if problem.size > 32 else 600)
        self.episodes = Episodes(data, "train", problem.way, problem.shot, problem.query, seed=0)
        self.tasks, self.first = problem.tasks, 0

    def draw(self, task: None) -> None:
        """The next meta-batch."""
        self.episodes.batch(self.first, self.tasks)
        self.first += self.tasks
