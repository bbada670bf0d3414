"""What a network is: pure functions of named parameters, for many tasks at once.

Shapes. T is the number of tasks, n the examples of each. Every parameter that a function receives
has a leading task axis (T, ...), because after adaptation each task has weights of its own. Stored
parameters have no task axis. Images are (T, n, C, H, W), vectors (T, n, d). The signatures name
these shapes (``cml_bench/shapes.py``), and the tests check them.

Inside a convolutional network the task axis is folded into the channels, (n, T*C, H, W), and the
convolution has T groups: one program for all tasks, and batch statistics are per task by
construction. ``torch.func.vmap`` is not used: with ``F.batch_norm`` its second-order gradients are
wrong.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cml_bench import seeding, spec
from cml_bench.errors import UserError
from cml_bench.networks._convolution import Conv
from cml_bench.networks._maps import layout
from cml_bench.networks._patches import PooledProduct, patches
from cml_bench.networks._pooling import Pooled, ScaledReLU
from cml_bench.shapes import (
    Features,
    Folded,
    FoldedMaps,
    Images,
    Inputs,
    Outputs,
    TaskParams,
    Vectors,
)
from cml_bench.study.protocols import Recipe

Params = dict[str, Tensor]
BN_EPS = 1e-5  # torch's default
MOST_LAYERS = 100  # layers of one kind in a network
MOST_PARAMETERS = 100_000_000  # a thousand times the paper's largest network


class Param(NamedTuple):
    """Shape and initial distribution of one parameter.

    It starts uniform in +-``bound``; or normal with deviation ``std``, cut off at two deviations;
    or, where both are None, at ``value``.
    """

    shape: tuple[int, ...]
    bound: float | None = None
    std: float | None = None
    value: float = 0.0

    @property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)


def uniform(shape: tuple[int, ...], fan_in: int) -> Param:
    """torch's default for linear and convolutional weights and biases: U(+-1/sqrt(fan_in))."""
    return Param(shape, bound=fan_in**-0.5)


def check_start(params: dict[str, Param], purpose: str) -> None:
    """A UserError for a start beyond float32, and for more values than :data:`MOST_PARAMETERS`."""
    if (total := count(params)) > MOST_PARAMETERS:
        raise UserError(
            f"{purpose} would have {total:,} parameters; at most {MOST_PARAMETERS:,} are possible."
            " Lower its widths or its number of layers."
        )
    for name, param in params.items():
        if abs(param.value) > torch.finfo(torch.float32).max:
            raise UserError(
                f"{purpose}: {name} cannot start at {param.value:g}, which is no 32-bit number."
            )


def initialise(params: dict[str, Param], purpose: str, seed: int) -> Params:
    """Initial values (float32, CPU). Each is a function of (purpose, seed, name) alone.

    What :func:`check_start` refuses is refused before anything is allocated.
    """
    check_start(params, purpose)
    out = {}
    for name, param in params.items():
        if param.bound is None and param.std is None:
            out[name] = torch.full(param.shape, param.value)
            continue
        raw = seeding.words(seeding.key("init", purpose, seed, name), 0, 1, param.size)
        u = torch.from_numpy(seeding.uniform(raw).reshape(param.shape))
        if param.bound is not None:
            values = (2 * u - 1) * param.bound
        else:
            tail = torch.special.ndtr(torch.tensor(-2.0, dtype=u.dtype))
            values = torch.special.ndtri(tail + u * (1 - 2 * tail)) * param.std
        out[name] = values.to(torch.float32)
    return out


def count(params: dict[str, Param]) -> int:
    """Number of scalars in a set of parameters."""
    return sum(param.size for param in params.values())


class CoLearner:
    """A second head on the features: its parameters, and how it uses them.

    The parameters are phi. A network makes its co-learner: see :meth:`Network.colearner`.
    """

    params: dict[str, Param]

    @staticmethod
    def check_depth(depth: int) -> None:
        """A UserError for more hidden layers than can be built."""
        if depth > MOST_LAYERS:
            raise UserError(
                f"a head or co-learner has at most {MOST_LAYERS} hidden layers, not {depth}: lower"
                " depth."
            )

    def apply(self, p: TaskParams, features: Features) -> Outputs:
        """Outputs (T, n, out) of features (T, n, ...)."""
        raise NotImplementedError


class Network:
    """A feature extractor psi and a head theta.

    ``path`` chooses between equal computations: ``plain``, or the network's fastest. Data that does
    not fit is refused with a UserError here, before anything is planned or trained.
    """

    Options: type[spec.Options] = spec.Options
    options: spec.Options  # a subclass annotates it with its own class of options
    name: str
    params: dict[str, Param]  # psi and theta
    head_names: frozenset[str]  # theta
    norm_names: frozenset[str] = frozenset()  # scales and shifts of normalisations
    fixed_names: frozenset[str] = frozenset()  # parameters that no inner loop moves
    recipe: Recipe = Recipe()  # what its own code changes under the presets official and clean
    feature_shape: tuple[int, ...]
    colearner_depth: int  # hidden layers of the paper's co-learner
    takes: Literal["images", "vectors", "nodes"] = "images"
    smallest = 1  # pixels a side that an image needs
    small = False  # whether starting its operations costs more than they do: engine/compiled.py
    compiles = True  # whether engine/compiled.py can trace it
    many_models = False  # whether several models take little longer than one: engine/evaluate.py

    def __init__(
        self, options: spec.Options, input_shape: tuple[int, ...], outputs: int, path: str = "fast"
    ):
        self.options, self.input_shape = options, input_shape
        self.outputs, self.path = outputs, path
        self._check_inputs(tuple(input_shape))

    def _check_inputs(self, shape: tuple[int, ...]) -> None:
        form, dimensions = {
            "images": ("images (C, H, W)", 3),
            "vectors": ("vectors (d,)", 1),
            "nodes": ("nodes with d features", 1),
        }[self.takes]
        if len(shape) != dimensions:
            raise UserError(
                f"{self.name} takes {form}, and the data set gives inputs of shape {shape}: choose"
                " another network or data set, see `python -m cml_bench list networks` and `list"
                " data`."
            )
        if self.takes == "images" and min(shape[1:]) < self.smallest:
            size = f"{self.smallest}x{self.smallest}"
            raise UserError(
                f"{self.name} needs images of at least {size}, not {shape[1]}x{shape[2]}: raise the"
                " data set's size."
            )

    @property
    def layers(self) -> list[str]:
        """Names of psi's layers with weights, from the inputs on, normalisations left out."""
        aside = self.head_names | self.norm_names
        return [
            name.removesuffix(".weight")
            for name in self.params
            if name.endswith(".weight") and name not in aside
        ]

    def bind(self, data: Any) -> None:
        """Take the data set that the examples come from.

        A UserError if only one of the two, network and data set, is for graphs.
        """
        if self.takes != data.gives and "nodes" in (self.takes, data.gives):
            raise UserError(
                f"{self.name} takes {self.takes}, and the examples of {data.name} are"
                f" {data.gives or 'no nodes'}: choose another network or data set, see `python -m"
                " cml_bench list networks` and `list data`."
            )

    @contextmanager
    def repeating(self, x: Inputs) -> Iterator[None]:
        """A block in which the network gets the tensor ``x`` as its input several times.

        The network may compute once what depends on ``x`` alone and not on parameters.
        """
        yield

    def features(self, p: TaskParams, x: Inputs) -> Features:
        """Features (T, n, *feature_shape) of inputs (T, n, *input_shape), for all heads."""
        raise NotImplementedError

    def activations(self, p: TaskParams, x: Inputs) -> TaskParams:
        """Outputs (T, n, ...) of psi's layers by name, for figures; here the features alone."""
        return {"features": self.features(p, x)}

    def head(self, p: TaskParams, z: Features) -> Outputs:
        """Outputs (T, n, outputs) of features."""
        raise NotImplementedError

    def embedding(self, z: Features) -> Vectors:
        """Features as vectors (T, n, d), pooled as the head pools them; no parameter takes part."""
        return z.flatten(2)

    def control(self, depth: int, norm: str) -> CoLearner:
        """A co-learner whose maps are normalised in another way: see ``CoLearnerOptions.norm``."""
        raise UserError(f"{self.name}: cml.norm {norm} is for conv4 alone; leave it out.")

    def colearner(self, depth: int) -> CoLearner:
        """A co-learner of ``depth`` hidden layers that suit the network, and a linear one."""
        raise NotImplementedError

    def tasks_at_once(self, device: torch.device) -> int:
        """How many tasks one program should hold; a matter of speed and memory only."""
        raise NotImplementedError


# -- layers --


def weight_and_bias(shape: tuple[int, ...], init: str = "torch") -> tuple[Param, Param]:
    """Weight (outputs, inputs, ...) and bias (outputs,) of a layer.

    ``init``: "torch" for torch's default; "xavier" for Glorot and Bengio's uniform distribution
    with zero biases.
    """
    outputs, inputs, *kernel = shape
    area = int(np.prod(kernel))
    if init == "torch":
        return uniform(shape, area * inputs), uniform((outputs,), area * inputs)
    return Param(shape, bound=(6 / (area * (inputs + outputs))) ** 0.5), Param((outputs,))


def linear_params(name: str, inputs: int, outputs: int, init: str = "torch") -> dict[str, Param]:
    """Weight (outputs, inputs) and bias (outputs,)."""
    weight, bias = weight_and_bias((outputs, inputs), init)
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def linear(p: TaskParams, name: str, x: Vectors) -> Outputs:
    """(T, n, in) -> (T, n, out) with weights (T, out, in)."""
    return torch.baddbmm(p[f"{name}.bias"].unsqueeze(1), x, p[f"{name}.weight"].transpose(1, 2))


def block_params(index: str, inputs: int, filters: int, init: str = "torch") -> dict[str, Param]:
    """A 3x3 convolution with bias, and the affine part of its batch-norm."""
    weight, bias = weight_and_bias((filters, inputs, 3, 3), init)
    return {
        f"conv{index}.weight": weight,
        f"conv{index}.bias": bias,
        f"norm{index}.weight": Param((filters,), value=1.0),
        f"norm{index}.bias": Param((filters,), value=0.0),
    }


def fold(x: Images) -> Float[Tensor, "examples tasks*channels height width"]:
    """(T, n, C, H, W) -> (n, T*C, H, W)."""
    return x.transpose(0, 1).flatten(1, 2)


def unfold(x: Folded, tasks: int) -> Float[Tensor, "{tasks} examples _ height width"]:
    """(n, T*C, H, W) -> (T, n, C, H, W)."""
    return x.unflatten(1, (tasks, -1)).transpose(0, 1)


def _conv(p: Params, index: str, x: Tensor) -> Tensor:
    weight, bias = p[f"conv{index}.weight"], p[f"conv{index}.bias"].flatten()
    flat = weight.flatten(0, 1)
    if x.is_contiguous(memory_format=torch.channels_last):
        flat = flat.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, flat, bias, padding=1, groups=weight.shape[0])


def block(
    p: TaskParams,
    index: str,
    x: Folded,
    pool: bool,
    slope: float = 0.0,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> FoldedMaps:
    """Convolution, batch-norm by the statistics of each task's batch, (leaky) ReLU, max-pool 2.

    Folded shapes: (n, T*C, H, W) -> (n, T*filters, H', W'). ``statistics``: a mean and a variance
    that normalise instead, of shape (T*filters, 1, 1) or of one number.
    """
    z = _conv(p, index, x)
    scale, shift = p[f"norm{index}.weight"].flatten(), p[f"norm{index}.bias"].flatten()
    if statistics is None:
        z = F.batch_norm(z, None, None, scale, shift, True, 0.0, BN_EPS)
    else:
        mean, var = statistics
        z = (z - mean) * (var + BN_EPS).rsqrt() * scale[:, None, None] + shift[:, None, None]
    z = F.leaky_relu(z, slope)
    return F.max_pool2d(z, 2) if pool else z


def _sign(scale: Tensor) -> Tensor:
    scale = scale.detach()
    return torch.where(scale < 0, -1.0, 1.0).to(scale.dtype)


def fast_block(p: TaskParams, index: str, x: Folded, slope: float = 0.0) -> FoldedMaps:
    """``block(..., pool=True)`` with a quarter of the memory traffic, equal up to rounding.

    The map is pooled before it is normalised. Batch-norm is monotone in each channel, so
    ReLU(scale * z + shift) is largest where sign(scale) * z is largest. Scale, shift, ReLU and
    their derivatives then touch a quarter of the elements. The convolution's bias is left out,
    because batch-norm would subtract it again. If a scale is exactly 0, all places of a window are
    maxima. The scale's derivative is then taken at the largest z.
    """
    weight, scale = p[f"conv{index}.weight"], p[f"norm{index}.weight"].reshape(1, -1, 1, 1)
    sign = _sign(scale)
    signed = (weight.flatten(0, 1) * sign.reshape(-1, 1, 1, 1)).contiguous(memory_format=layout(x))
    z, var = Pooled.apply(Conv.apply(x, signed, weight.shape[0]))
    factor = scale * sign * torch.rsqrt(var + BN_EPS)
    return ScaledReLU.apply(z, factor, p[f"norm{index}.bias"].reshape(1, -1, 1, 1), slope)


class Covered(NamedTuple):
    """Images as their 3x3 patches, and the mean of the patches' products: see ``patches``."""

    patches: Tensor
    products: Tensor
    size: tuple[int, int]

    @classmethod
    def by(cls, x: Images) -> "Covered":
        """The patches of these images."""
        with _exact(x):
            return cls(*patches(x), (x.shape[3], x.shape[4]))


def _exact(x: Tensor) -> AbstractContextManager[None]:
    """A block without autocast, on a device that has it."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if kind in ("cpu", "cuda") else nullcontext()


def fast_first_block(p: TaskParams, index: str, x: Covered, slope: float = 0.0) -> FoldedMaps:
    """``block(..., pool=True)`` for images of few channels, which need no gradient.

    An output is the product w . patch of the weights with a 3x3 patch. So its variance is
    w' Cov w, where Cov (9C, 9C) is the covariance of the patches, and batch-norm is known before
    the map is made. Batch-norm's scale goes into the weights. Its shift goes into the weight of the
    patches' row of ones. Statistics and their derivatives thus need no pass over the full map,
    which is the network's largest. Returns the folded map (n, T*filters, H//2, W//2), channels
    last.
    """
    weight, scale = p[f"conv{index}.weight"].flatten(2), p[f"norm{index}.weight"]
    with _exact(weight):
        # A covariance rounded to bf16 or tf32 could give a variance below 0. So the matrices, which
        # are small, are float64: autocast does not change that.
        mean, wide = x.products[:, :-1, -1:].double(), weight.double()
        covariance = x.products[:, :-1, :-1] - mean @ mean.transpose(1, 2)
        factor = scale * torch.rsqrt(((wide @ covariance) * wide).sum(2) + BN_EPS).to(scale.dtype)
        scaled = weight * factor.unsqueeze(2)
        shift = p[f"norm{index}.bias"].unsqueeze(2) - (scaled.double() @ mean).to(scale.dtype)
    return PooledProduct.apply(torch.cat([scaled, shift], 2), x.patches, x.size, slope)
