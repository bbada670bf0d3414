"""``mlp``: the regression network 1-40-40-1 with ReLU.

Its sources are Finn et al. 2017, section 5.1, and CML, section 4.1.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cml_bench.networks.base import (
    MOST_LAYERS,
    CoLearner,
    Network,
    Param,
    linear,
    linear_params,
)
from cml_bench.registry import networks
from cml_bench.shapes import Outputs, TaskParams, Vectors
from cml_bench.spec import Options, added

Width = Annotated[int, Field(ge=1, le=65_536)]


class MLPOptions(Options):
    """Widths, initialisation and activation."""

    hidden: tuple[Width, ...] = Field(
        (40, 40), min_length=1, max_length=MOST_LAYERS, description="widths of the hidden layers"
    )
    init: Literal["torch", "normal"] = Field(
        "torch",
        description=(
            "torch: U(+-1/sqrt(fan_in)), because the CML paper names no start and is written in"
            " PyTorch; normal: truncated normal weights of deviation 0.01 and zero biases, as in"
            " the released MAML code"
        ),
    )
    activation: Literal["relu", "tanh"] = Field(
        "relu", description="tanh: smooth, for checking derivatives"
    )
    extra_blocks: int = added(
        0,
        ge=0,
        le=MOST_LAYERS,
        description="More-MAML: number of further hidden layers, each as wide as the last one",
    )

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of all hidden layers."""
        return (*self.hidden, *(self.hidden[-1:] * self.extra_blocks))


@runtime_checkable
class OfLayers(Protocol):
    """A network whose features are vectors and which makes its linear layers itself."""

    feature_shape: tuple[int, ...]
    outputs: int

    @property
    def act(self) -> Callable[[Tensor], Tensor]:
        """The activation of a hidden layer."""

    def layer(self, name: str, inputs: int, outputs: int) -> dict[str, Param]:
        """Parameters of a linear layer."""


class VectorHead(CoLearner):
    """``depth`` hidden layers of the features' width, then a linear one.

    The network says how a layer starts and which activation it has.
    """

    def __init__(self, network: OfLayers, depth: int):
        self.check_depth(depth)
        width = network.feature_shape[0]
        self.network, self.depth = network, depth
        self.params = {}
        for i in range(1, depth + 1):
            self.params |= network.layer(f"hidden{i}", width, width)
        self.params |= network.layer("head", width, network.outputs)

    def apply(self, p: TaskParams, features: Vectors) -> Outputs:
        """Outputs (T, n, outputs) of features (T, n, width)."""
        z = features
        for i in range(1, self.depth + 1):
            z = self.network.act(linear(p, f"hidden{i}", z))
        return linear(p, "head", z)


@networks.register("mlp")
class MLP(Network):
    """Fully connected network; the features are the last hidden layer.

    With inputs and outputs of size 1 the network has 1,761 parameters. The co-learner of depth 1
    has 1,681: one hidden layer of 40 with ReLU, and an output layer. The paper does not say where
    the co-learner attaches; figure 1 suggests the last hidden activation.
    """

    Options = MLPOptions
    options: MLPOptions
    colearner_depth = 1
    takes = "vectors"
    small = True

    def __init__(
        self, options: MLPOptions, input_shape: tuple[int, ...], outputs: int, path: str = "fast"
    ):
        super().__init__(options, input_shape, outputs, path)
        self.act: Callable[[Tensor], Tensor] = (
            torch.relu if options.activation == "relu" else torch.tanh
        )
        self.params = {}
        width = input_shape[0]
        for i, hidden in enumerate(options.widths, 1):
            self.params |= self.layer(f"hidden{i}", width, hidden)
            width = hidden
        self.feature_shape = (width,)
        head = self.layer("head", width, outputs)
        self.params |= head
        self.head_names = frozenset(head)

    def layer(self, name: str, inputs: int, outputs: int) -> dict[str, Param]:
        """Parameters of a linear layer."""
        if self.options.init == "torch":
            return linear_params(name, inputs, outputs)
        return {
            f"{name}.weight": Param((outputs, inputs), std=0.01),
            f"{name}.bias": Param((outputs,)),
        }

    def features(self, p: TaskParams, x: Vectors) -> Float[Tensor, "tasks examples hidden"]:
        """(T, n, inputs) -> (T, n, hidden)."""
        *_, last = self.activations(p, x).values()
        return last

    def activations(
        self, p: TaskParams, x: Vectors
    ) -> dict[str, Float[Tensor, "tasks examples _"]]:
        """Outputs (T, n, hidden) of each hidden layer."""
        layers = {}
        for i in range(1, len(self.options.widths) + 1):
            layers[f"hidden{i}"] = x = self.act(linear(p, f"hidden{i}", x))
        return layers

    def head(self, p: TaskParams, z: Vectors) -> Outputs:
        """(T, n, hidden) -> (T, n, outputs)."""
        return linear(p, "head", z)

    def colearner(self, depth: int) -> CoLearner:
        """``depth`` hidden layers of the features' width, then a linear one."""
        return VectorHead(self, depth)

    def tasks_at_once(self, device: torch.device) -> int:
        """All of them: starting an operation costs far more than its work on one task."""
        return 1024
