"""A finished run as an object to use: adapt on a support set, predict queries."""

from pathlib import Path

import torch
from torch import Tensor

from cml_bench.data.base import DataSet
from cml_bench.engine.precision import dtype_of
from cml_bench.engine.run import read_models
from cml_bench.engine.step import expand, leaves
from cml_bench.engine.train import build_data, build_method
from cml_bench.episodes import Examples, Task
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
            x = _inputs(self.method, x_query, next(iter(self.params.values())).dtype)
            return self.method.outputs(self.groups, self.params, x, (head,))[head][0]

    def predict(self, x_query: Tensor, head: str = "meta") -> Tensor:
        """Labels (n,) for classification, values (n, d) for regression."""
        outputs = self.outputs(x_query, head)
        return outputs.argmax(1) if self.method.kind == "classification" else outputs


class Learner:
    """A trained initialisation. Images are expected in [0, 1], shaped (n, C, H, W); nodes are their numbers (n,)."""

    def __init__(self, method: Method, groups: Groups, record: Record, data: DataSet | None = None):
        self.method, self.groups, self.record = method, groups, record
        self.data = data  # open, where the network needs it: the graph of nodes

    def adapt(
        self, x_support: Tensor, y_support: Tensor, steps: int | None = None, x_query: Tensor | None = None
    ) -> AdaptedLearner:
        """Adapt to a task: inputs (n, ...), labels (n,) 0..way-1 or values (n, d). The learner stays as it is.

        ``x_query`` (m, ...): for methods that look at the queries, too, before they adapt (AMM-GNN).
        """
        dtype = next(iter(self.groups["base"].values())).dtype
        x = _inputs(self.method, x_support, dtype)
        kind = torch.int64 if self.method.kind == "classification" else dtype
        y = torch.as_tensor(y_support, dtype=kind).unsqueeze(0)
        wide = expand(self.groups, 1)
        if x_query is not None:
            queries = _inputs(self.method, x_query, dtype)
            with torch.no_grad():
                wide = self.method.meet(wide, Task(Examples(x, y), Examples(queries, None)))
        *_, params = self.method.trajectory(wide, Examples(x, y), self.method.inner_steps if steps is None else steps)
        return AdaptedLearner(self.method, wide, {name: p.detach() for name, p in params.items()})


def _inputs(method: Method, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Inputs (n, ...) as a batch of one task, in the type that the network computes with."""
    nodes = method.network.takes == "nodes"
    found = torch.as_tensor(x, dtype=torch.int64 if nodes else dtype).unsqueeze(0)
    expected = () if nodes else tuple(method.network.input_shape)
    if tuple(found.shape[2:]) != expected:
        shape = ", ".join(map(str, ("n", *expected)))
        raise UserError(f"this run takes inputs of shape ({shape}), not {tuple(found.shape[1:])}.")
    return found


def load(run: str | Path, results: str | Path = "results", data_dir: str | Path = "data") -> Learner:
    """Open a finished run by its folder, or by its id or the first characters of it.

    A run on the nodes of a graph needs the graph, prepared under ``data_dir``.
    """
    folder = Path(run)
    if not (folder / "record.json").exists():
        matches = [
            r for r in Store(results).all() if r.spec.id.startswith(str(run).lower()) or r.folder.name == str(run)
        ]
        if len(matches) != 1:
            problem = "no finished run" if not matches else f"{len(matches)} runs"
            raise UserError(f"{problem} at {run!s} (looked for a folder, and for an id under {results}/runs).")
        folder = matches[0].folder
    record = read_record(folder)
    data, device, dtype = build_data(record.spec), torch.device("cpu"), dtype_of(record.spec.precision)
    method = build_method(record.spec, data).for_test()
    groups = leaves(read_models(folder)["best_meta"], device, dtype)
    return Learner(method, groups, record, data.open(Path(data_dir), device, dtype) if data.gives == "nodes" else None)
