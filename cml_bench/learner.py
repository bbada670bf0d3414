"""A finished run as an object to use: adapt on a support set, predict queries."""

from pathlib import Path

import torch
from torch import Tensor

from cml_bench.engine.precision import dtype_of
from cml_bench.engine.run import read_models
from cml_bench.engine.step import expand, leaves
from cml_bench.engine.train import build_data, build_method
from cml_bench.episodes import Examples
from cml_bench.errors import UserError
from cml_bench.methods.base import Groups, Method, Params
from cml_bench.records import Record, Store
from cml_bench.records import read as read_record


class AdaptedLearner:
    """What ``Learner.adapt`` returns."""

    def __init__(self, method: Method, groups: Groups, params: Params):
        self.method, self.groups, self.params = method, groups, params

    def outputs(self, x_query: Tensor, head: str = "meta") -> Tensor:
        """Outputs (n, way) or (n, d) of inputs (n, ...). Batch-norm uses the statistics of this batch."""
        with torch.no_grad():
            x = torch.as_tensor(x_query, dtype=next(iter(self.params.values())).dtype)
            return self.method.outputs(self.groups, self.params, x.unsqueeze(0), (head,))[head][0]

    def predict(self, x_query: Tensor, head: str = "meta") -> Tensor:
        """Labels (n,) for classification, values (n, d) for regression."""
        outputs = self.outputs(x_query, head)
        return outputs.argmax(1) if self.method.kind == "classification" else outputs


class Learner:
    """A trained initialisation. Images are expected in [0, 1], shaped (n, C, H, W)."""

    def __init__(self, method: Method, groups: Groups, record: Record):
        self.method, self.groups, self.record = method, groups, record

    def adapt(self, x_support: Tensor, y_support: Tensor, steps: int | None = None) -> AdaptedLearner:
        """Adapt to a task: inputs (n, ...), labels (n,) 0..way-1 or values (n, d). The learner stays as it is."""
        dtype = next(iter(self.groups["base"].values())).dtype
        classification = self.method.kind == "classification"
        x = torch.as_tensor(x_support, dtype=dtype).unsqueeze(0)
        y = torch.as_tensor(y_support, dtype=torch.int64 if classification else dtype).unsqueeze(0)
        expected = self.method.network.input_shape
        if tuple(x.shape[2:]) != tuple(expected):
            raise UserError(f"this run takes inputs of shape (n, {', '.join(map(str, expected))}), not {x.shape[1:]}.")
        wide = expand(self.groups, 1)
        *_, params = self.method.trajectory(wide, Examples(x, y), self.method.inner_steps if steps is None else steps)
        return AdaptedLearner(self.method, wide, {name: p.detach() for name, p in params.items()})


def load(run: str | Path, results: str | Path = "results") -> Learner:
    """Open a finished run by its folder, or by its id or the first characters of it."""
    folder = Path(run)
    if not (folder / "record.json").exists():
        matches = [r for r in Store(results).all() if r.spec.id.startswith(str(run)) or r.folder.name == str(run)]
        if len(matches) != 1:
            problem = "no finished run" if not matches else f"{len(matches)} runs"
            raise UserError(f"{problem} at {run!s} (looked for a folder, and for an id under {results}/runs).")
        folder = matches[0].folder
    record = read_record(folder)
    method = build_method(record.spec, build_data(record.spec)).for_test()
    groups = read_models(folder)["best_meta"]
    return Learner(method, leaves(groups, torch.device("cpu"), dtype_of(record.spec.precision)), record)
