"""A finished run as an object to use: adapt on a support set, predict queries."""

from pathlib import Path
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from cml_bench import plugins, registry
from cml_bench.data import given
from cml_bench.data.base import DataSet
from cml_bench.data.episodes import Examples, Task
from cml_bench.data.graphs import GraphSet
from cml_bench.data.stored import ImageSet
from cml_bench.engine.build import build_data, build_method
from cml_bench.engine.models import read_models
from cml_bench.engine.precision import dtype_of
from cml_bench.engine.step import expand, leaves
from cml_bench.errors import UserError
from cml_bench.methods.base import Groups, Method, Params
from cml_bench.records import Record, Store
from cml_bench.records import read as read_record
from cml_bench.shapes import Inputs, Predictions, Targets
from cml_bench.spec import MOST_INNER_STEPS

# How far outside [0, 1] pixels may be. Resized and noisy pixels are a little outside, bytes and
# normalised pixels are further out.
_MARGIN = 0.5


class AdaptedLearner:
    """A learner adapted to one task, as ``Learner.adapt`` returns it."""

    def __init__(self, learner: "Learner", groups: Groups, params: Params):
        self.learner, self.groups, self.params = learner, groups, params

    def outputs(self, x_query: Any, head: str = "meta") -> Float[Tensor, "examples outputs"]:
        """Outputs (n, way) or (n, d) of inputs (n, ...).

        Batch-norm uses the statistics of these n inputs. ``head``: meta, or co where the run has a
        co-learner. A UserError for other inputs and other heads.
        """
        self.learner.check_head(head)
        with torch.no_grad():
            x = self.learner.inputs(x_query, "x_query")
            return self.learner.method.outputs(self.groups, self.params, x, (head,))[head][0]

    def predict(self, x_query: Any, head: str = "meta") -> Predictions:
        """Labels (n,) for classification, values (n, d) for regression; see :meth:`outputs`."""
        outputs = self.outputs(x_query, head)
        return outputs.argmax(1) if self.learner.method.kind == "classification" else outputs


class Learner:
    """A trained initialisation.

    Images are expected in [0, 1] and shaped (n, C, H, W); nodes are given by their numbers (n,).
    Inputs and labels may be tensors, arrays or lists. Results are tensors on the CPU.
    """

    def __init__(self, method: Method, groups: Groups, record: Record, data: DataSet | None = None):
        self.method, self.groups, self.record = method, groups, record
        self.data = data  # open, where the network needs it: the graph of nodes

    def adapt(
        self, x_support: Any, y_support: Any, steps: int | None = None, x_query: Any = None
    ) -> AdaptedLearner:
        """Adapt to a task of inputs (n, ...) with labels (n,) 0..way-1 or values (n, d).

        The learner itself stays as it is. ``steps``: inner steps; None: the method's own number.
        ``x_query`` (m, ...): for methods that look at the queries, too, before they adapt
        (AMM-GNN). A UserError says what is wanted instead of what was given.
        """
        x = self.inputs(x_support, "x_support")
        y = self._targets(y_support, x.shape[1])
        steps = (
            self.method.inner_steps
            if steps is None
            else given.whole(steps, "steps", 0, MOST_INNER_STEPS)
        )
        wide = expand(self.groups, 1)
        if x_query is not None:
            queries = self.inputs(x_query, "x_query")
            with torch.no_grad():
                wide = self.method.meet(
                    wide, Task(Examples(x, y), Examples(queries, queries.new_empty(0)))
                )
        *_, params = self.method.trajectory(wide, Examples(x, y), steps)
        return AdaptedLearner(self, wide, {name: p.detach() for name, p in params.items()})

    def predict(self, *inputs: Any, **options: Any) -> NoReturn:
        """A UserError: without a task there is nothing to predict. The message says what to do."""
        raise UserError(
            "a learner adapts before it predicts: learner.adapt(x_support,"
            " y_support).predict(x_query)."
        )

    @property
    def _weight(self) -> Tensor:
        """Any parameter, for the type and the device that all share."""
        return next(iter(self.groups["base"].values()))

    def inputs(self, values: Any, named: str) -> Inputs:
        """Inputs (n, ...) as a batch of one task, in the type that the network computes with."""
        x, nodes = given.tensor(values, named), self.method.network.takes == "nodes"
        expected = () if nodes else tuple(self.method.network.input_shape)
        if not x.dim() or tuple(x.shape[1:]) != expected:
            shape = f"({', '.join(['n', *map(str, expected)])})"
            raise UserError(
                f"{named}: this run takes inputs of shape {shape}, not {tuple(x.shape)}."
            )
        if not len(x):
            raise UserError(f"{named} is empty: at least one example is wanted.")
        if nodes:
            self._check_nodes(x, named)
        elif issubclass(registry.datasets.get(self.record.spec.data.name), ImageSet):
            _check_pixels(x, named)
        return x.to(self._weight.device, torch.int64 if nodes else self._weight.dtype).unsqueeze(0)

    def _check_nodes(self, nodes: Tensor, named: str) -> None:
        assert isinstance(self.data, GraphSet)  # opened by load, as the network takes nodes
        count = len(self.data.arrays.labels)
        kind, low, high = given.type_name(nodes), *_ends(nodes)
        if nodes.is_floating_point() or nodes.dtype == torch.bool or low < 0 or high >= count:
            raise UserError(
                f"{named}: nodes are whole numbers from 0 to {count - 1:,}, as the graph counts"
                f" them, not {kind} from {low:g} to {high:g}."
            )

    def _targets(self, values: Any, count: int) -> Targets:
        """Labels or values of the support set, as a batch of one task."""
        y, labels = given.tensor(values, "y_support"), self.method.kind == "classification"
        if labels:
            _check_labels(y, self.record.spec.way)
        else:
            _check_values(y, self.method.network.outputs)
        if len(y) != count:
            raise UserError(
                f"x_support has {count} examples and y_support has {len(y)}: one for each example"
                " is wanted."
            )
        if labels:
            _check_classes(y, self.record.spec.way)
        return y.to(self._weight.device, torch.int64 if labels else self._weight.dtype).unsqueeze(0)

    def check_head(self, head: Any) -> None:
        """A UserError for a head that this run does not have, or whose file is missing."""
        heads, name = self.method.heads, self.record.spec.method
        if head not in heads:
            hint = f"; the head 'co' is of runs of {name}{registry.CML}" if head == "co" else ""
            raise UserError(
                f"this run of {name} has no head {head!r}, only"
                f" {', '.join(map(repr, heads))}{hint}."
            )
        if head == "co" and "co" not in self.groups:
            raise UserError(
                "the co-learner of this run is not here"
                f" ({self.record.folder / 'colearner.safetensors'} is missing): put the file back,"
                " or use the head 'meta'."
            )


def _ends(values: Tensor) -> tuple[float, float]:
    """Smallest and largest value."""
    values = values.detach().double()
    return float(values.min()), float(values.max())


def _check_pixels(pixels: Tensor, named: str) -> None:
    wanted = "images are floats in [0, 1], as open_data and wrap give them"
    low, high = _ends(pixels)
    if not pixels.is_floating_point():
        hint = ": divide them by 255" if pixels.dtype == torch.uint8 else ""
        raise UserError(
            f"{named}: {wanted}, not {given.type_name(pixels)} from {low:g} to {high:g}{hint}."
        )
    if low < -_MARGIN or high > 1 + _MARGIN:
        hint = "divide bytes by 255" if high > 4 else "give them before they are normalised"
        raise UserError(f"{named}: {wanted}, not numbers from {low:g} to {high:g}: {hint}.")


def _check_labels(y: Tensor, way: int) -> None:
    wanted = f"labels of shape (n,), whole numbers from 0 to {way - 1}, are wanted"
    if y.dim() != 1:
        hint = (
            " (labels from one-hot rows: y.argmax(1))" if y.dim() == 2 and y.shape[1] == way else ""
        )
        raise UserError(f"y_support: {wanted}, not values of shape {tuple(y.shape)}{hint}.")
    if y.is_floating_point() or y.dtype == torch.bool:
        raise UserError(f"y_support: {wanted}, not {given.type_name(y)}.")
    low, high = _ends(y) if len(y) else (0, 0)
    if low < 0 or high >= way:
        raise UserError(f"y_support: {wanted}, not labels from {low:.0f} to {high:.0f}.")


def _check_values(y: Tensor, outputs: int) -> None:
    if y.dim() != 2 or y.shape[1] != outputs or y.dtype == torch.bool:
        shape = f"{given.type_name(y)} of shape {tuple(y.shape)}"
        raise UserError(f"y_support: values of shape (n, {outputs}) are wanted, not {shape}.")


def _check_classes(y: Tensor, way: int) -> None:
    missing = sorted(set(range(way)) - set(y.tolist()))
    if missing:
        raise UserError(
            "y_support has no example of class"
            f" {', '.join(map(str, missing[:5]))}{', …' * (len(missing) > 5)}: at least one of each"
            f" of the {way} classes is wanted."
        )


def load(
    run: str | Path, results: str | Path = "results", data_dir: str | Path = "data"
) -> Learner:
    """Open a finished run by its folder, or by the first characters of its id.

    A run on the nodes of a graph needs the graph, prepared under ``data_dir``. Paths are not
    expanded here: :func:`cml_bench.load` does that.
    """
    record = _found(run, results)
    folder, spec = record.folder, record.spec
    plugins.check_known(record.source.files if record.source else (), folder)
    if not registry.method(spec.method).learns:
        raise UserError(f"{folder}: {spec.method} learns nothing, so there is no model to load.")
    data, device, dtype = build_data(spec), torch.device("cpu"), dtype_of(spec.precision)
    method = build_method(spec, data).for_test()
    groups = leaves(_weights(folder, method), device, dtype)
    return Learner(
        method,
        groups,
        record,
        data.open(Path(data_dir), device, dtype) if data.gives == "nodes" else None,
    )


def _found(run: str | Path, results: str | Path) -> Record:
    if (record := read_record(Path(run))) is not None:
        return record
    matches = [
        r
        for r in Store(results).all()
        if r.spec.id.startswith(str(run).lower()) or r.folder.name == str(run)
    ]
    if len(matches) == 1:
        return matches[0]
    if not matches and Path(run).exists():
        raise UserError(
            f"{run} is no finished run, since it holds no record.json: give a run's folder, such as"
            f" {results}/runs/NAME, or its id."
        )
    problem = "no finished run" if not matches else f"{len(matches)} runs"
    raise UserError(
        f"{problem} at {run!s} (looked for a folder, and for an id under {results}/runs)."
    )


def _weights(folder: Path, method: Method) -> Groups:
    """The selected model. A UserError if its files are missing, damaged or of another run."""
    again = f"move the folder {folder} away and train the run anew"
    try:
        groups = read_models(folder)["best_meta"]
    except ValueError as error:
        raise UserError(f"the models in {folder} are damaged ({error}): {again}.") from None
    wanted = {"base": method.params, **({"co": method.co.params} if "co" in method.heads else {})}
    for group, params in groups.items():
        shapes = {name: tuple(value.shape) for name, value in params.items()}
        if shapes != {name: tuple(param.shape) for name, param in wanted.get(group, {}).items()}:
            raise UserError(f"the weights in {folder} are not those of its record: {again}.")
        if not all(value.isfinite().all() for value in params.values()):
            raise UserError(f"the weights in {folder} are not finite: {again}.")
    return groups
