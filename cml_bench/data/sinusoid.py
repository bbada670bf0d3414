"""``sinusoid``: regression of y = A sin(x - phase). Needs no download.

Finn et al. (2017, section 5.1) proposed it, and section 4.1 of the CML paper uses it. A ~ U[0.1,
5], phase ~ U[0, pi], x ~ U[-5, 5], without noise. The tasks are generated, and the three splits are
independent streams of random numbers.
"""

import hashlib

import numpy as np
import torch

from cml_bench import seeding
from cml_bench.data.base import DataSet
from cml_bench.data.episodes import Examples, Task
from cml_bench.errors import UserError
from cml_bench.registry import datasets

AMPLITUDE, PHASE, RANGE = (0.1, 5.0), (0.0, np.pi), (-5.0, 5.0)


@datasets.register("sinusoid")
class Sinusoid(DataSet):
    """A task is one function, so ``way`` is 1. ``shot`` is the number of its support points."""

    kind = "regression"
    draws_curves = True
    input_shape = (1,)

    @property
    def data_id(self) -> str:
        """Name and version of the generator."""
        return "sinusoid/v1"

    def outputs(self, way: int) -> int:
        """The network has one output, y."""
        return 1

    def check(self, split: str, way: int, shot: int, query: int) -> None:
        """As in every data set, and ``way`` must be 1."""
        super().check(split, way, shot, query)
        if way != 1:
            raise UserError(f"sinusoid: way must be 1 (one function per task), not {way}.")

    @property
    def sha256(self) -> str:
        """SHA-256 of the first numbers of a fixed stream: it changes if the generator changes."""
        x, y = self._points(seeding.key("sinusoid"), 0, 8, 10)
        return hashlib.sha256(np.round(np.stack((x, y)), 9).astype("<f8").tobytes()).hexdigest()

    @staticmethod
    def _points(
        key: np.ndarray, first: int, count: int, each: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The points x and y of ``count`` functions: float64 (count, each)."""
        u = seeding.uniform(seeding.words(key, first, count, 2 + each))
        amplitude, phase, x = (
            low + (high - low) * part
            for (low, high), part in zip(
                (AMPLITUDE, PHASE, RANGE), (u[:, :1], u[:, 1:2], u[:, 2:]), strict=True
            )
        )
        return x, amplitude * np.sin(x - phase)

    def draw(
        self, key: np.ndarray, split: str, first: int, count: int, way: int, shot: int, query: int
    ) -> Task:
        """The tasks themselves: support (count, shot, 1) and query (count, query, 1)."""
        points = self._points(key, first, count, shot + query)
        x, y = (torch.from_numpy(v).to(self.device, self.dtype).unsqueeze(-1) for v in points)
        return Task(Examples(x[:, :shot], y[:, :shot]), Examples(x[:, shot:], y[:, shot:]))

    def tasks(self, drawn: Task, part: slice) -> Task:
        """The tasks ``part`` of those drawn."""
        return drawn.part(part.start, part.stop)

    @staticmethod
    def truth(key: np.ndarray, index: int, shot: int, query: int) -> tuple[float, float]:
        """Amplitude and phase of task ``index`` of the stream ``key``, for a figure of it."""
        u = seeding.uniform(seeding.words(key, index, 1, 2 + shot + query))[0]
        return (
            AMPLITUDE[0] + (AMPLITUDE[1] - AMPLITUDE[0]) * u[0],
            PHASE[0] + (PHASE[1] - PHASE[0]) * u[1],
        )
