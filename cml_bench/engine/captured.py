"""The gradients of an outer step as one CUDA graph, for GPUs.

A step of a few tasks takes as long as starting its thousands of kernels takes, and the GPU waits
meanwhile. So the kernels of :class:`MetaStep` are recorded once for the shapes of a meta-batch and
then started all together. They are the same kernels, so the numbers are the same. The outer
optimiser is not recorded, so that a method's ``meta_step`` may ask for gradients as often as it
needs. A recording keeps the memory of one step.
"""

import gc
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from cml_bench.data.episodes import Examples, Task
from cml_bench.engine.step import MetaStep
from cml_bench.errors import UserError
from cml_bench.methods.base import Groups, Method, Scores

# Steps before the recording, as torch asks for: in them libraries choose their kernels.
_WARM_UP = 3


class Recording(NamedTuple):
    """A CUDA graph, the tensors from which it reads a meta-batch, and those in which it leaves
    gradients and scores. A gradient is None where there is none.
    """

    graph: torch.cuda.CUDAGraph
    task: Task
    grads: list[Tensor | None]
    scores: Scores

    def play(self, task: Task) -> None:
        """Compute with this meta-batch; nothing waits for the device."""
        for place, value in zip(
            (*self.task.support, *self.task.query), (*task.support, *task.query), strict=True
        ):
            place.copy_(value)
        self.graph.replay()


class CapturedStep(MetaStep):
    """:class:`MetaStep`, recorded for the shapes of a meta-batch and the method's phase."""

    def __init__(
        self,
        method: Method,
        groups: Groups,
        optimizer: torch.optim.Optimizer,
        tasks_at_once: int,
        adjust: Callable[[Groups], None] | None = None,
    ):
        super().__init__(method, groups, optimizer, tasks_at_once, adjust)
        self._recordings: dict[tuple[Hashable, ...], Recording] = {}
        self._leaves = [p for params in self.groups.values() for p in params.values()]
        # All recordings share one memory, since each is read before another is played. Torch
        # shares memory within one stream only.
        self._pool, self._aside = (
            torch.cuda.graph_pool_handle(),
            torch.cuda.Stream(self._leaves[0].device),
        )

    def gradients(self, task: Task) -> Scores:
        """As :meth:`MetaStep.gradients`."""
        tensors = (*task.support, *task.query)
        key = (self.method.phase, *((tuple(t.shape), t.dtype) for t in tensors))
        if key not in self._recordings:
            self._recordings[key] = self._record(task)
        recording = self._recordings[key]
        recording.play(task)
        for leaf, grad in zip(self._leaves, recording.grads, strict=True):
            # The next call overwrites the recording's gradients, and a method may still need these.
            leaf.grad = None if grad is None else grad.clone()
        return Scores(
            *(
                {head: value.clone() for head, value in values.items()}
                for values in recording.scores
            )
        )

    def _record(self, task: Task) -> Recording:
        device = self._leaves[0].device
        kept = Task(
            *(Examples(*(t.clone() for t in examples)) for examples in (task.support, task.query))
        )
        aside = self._aside
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                super().gradients(kept)
        torch.cuda.current_stream(device).wait_stream(aside)
        self.forget_gradients()  # the recording makes its own, in its own memory
        graph = torch.cuda.CUDAGraph()
        try:
            with _no_garbage_collection(), torch.cuda.graph(graph, pool=self._pool, stream=aside):
                scores = super().gradients(kept)
        except RuntimeError as error:
            for cause in (error, error.__context__):
                if isinstance(cause, torch.OutOfMemoryError):
                    raise cause from None  # other advice helps then: see engine/jobs.py
            said = str(error).partition("\n")[0]
            raise UserError(
                f"the outer step cannot be recorded as a CUDA graph ({said}): use --engine fast"
                " (Snakemake: --config engine=fast)."
            ) from error
        return Recording(graph, kept, [leaf.grad for leaf in self._leaves], scores)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A block without garbage collection. Python's garbage may hold another recording, and CUDA
    cannot free one while it records.
    """
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
