"""``resnet12``: four residual blocks, global average pooling, a linear layer (Table 9).

The paper only names the network (Oreshkin et al. 2018). Widths and order are those of the BOIL
code; the CML code is a fork of it.
"""

from collections import deque
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cml_bench.networks.base import (
    BN_EPS,
    CoLearner,
    Network,
    Param,
    Params,
    fold,
    linear,
    linear_params,
    unfold,
    uniform,
)
from cml_bench.registry import networks
from cml_bench.shapes import Images, Maps, Outputs, TaskParams, Vectors
from cml_bench.spec import Options
from cml_bench.study.protocols import Recipe

_SLOPE = 0.1  # of every leaky ReLU
_BLOCKS = (1, 2, 3, 4)


class ResNet12Options(Options):
    """Width, the last skip connection, and what the inner loop reaches."""

    filters: int = Field(
        64,
        ge=1,
        le=1024,
        description="channels of the first block; the others have 2, 4, 8 times it",
    )
    last_skip: bool = Field(
        True,
        description=(
            "whether block 4 has its skip connection: yes is BOIL's block type a, no is its"
            " type b (w/o lsc)"
        ),
    )
    shortcuts: Literal["adapted", "fixed"] = Field(
        "adapted",
        description=(
            "fixed: the inner loop leaves the shortcuts' 1x1 convolution and batch-norm, as in the"
            " BOIL code, which computes their fast weights and never uses them"
        ),
    )
    body: Literal["adapted", "fixed"] = Field(
        "adapted",
        description=(
            "fixed: the inner loop moves the head alone. BOIL's code does that when it does not"
            " know the name of a run; whether Table 9 was made so is not known"
        ),
    )


def _conv_params(index: str, inputs: int, filters: int, size: int) -> dict[str, Param]:
    return {
        f"conv{index}.weight": uniform((filters, inputs, size, size), size * size * inputs),
        f"norm{index}.weight": Param((filters,), value=1.0),
        f"norm{index}.bias": Param((filters,), value=0.0),
    }


def _conv_norm(p: Params, index: str, x: Tensor) -> Tensor:
    """Convolution without bias, then batch-norm by the statistics of each task's batch.

    Folded shapes: (n, T*C, H, W) -> (n, T*F, H, W).
    """
    weight = p[f"conv{index}.weight"]
    flat = weight.flatten(0, 1)
    if x.is_contiguous(memory_format=torch.channels_last):
        flat = flat.contiguous(memory_format=torch.channels_last)
    z = F.conv2d(x, flat, padding=weight.shape[-1] // 2, groups=weight.shape[0])
    scale, shift = p[f"norm{index}.weight"].flatten(), p[f"norm{index}.bias"].flatten()
    return F.batch_norm(z, None, None, scale, shift, True, 0.0, BN_EPS)


class _CoLearner(CoLearner):
    """k convolutional layers on the last block's map, global average pooling, a linear layer.

    Nothing is known of the paper's co-learner on this network. This one is built like Conv4's: it
    reads the map before the head pools it.
    """

    def __init__(self, network: "ResNet12", depth: int):
        self.check_depth(depth)
        self.depth, filters = depth, network.feature_shape[0]
        self.params = {}
        for i in range(1, depth + 1):
            self.params |= _conv_params(str(i), filters, filters, 3)
        self.params |= linear_params("head", filters, network.outputs)

    def apply(self, p: TaskParams, features: Images) -> Outputs:
        """Outputs (T, n, out) of features (T, n, C, H, W)."""
        x = fold(features)
        for i in range(1, self.depth + 1):
            x = F.leaky_relu(_conv_norm(p, str(i), x), _SLOPE)
        return linear(p, "head", unfold(x.mean((2, 3), keepdim=True), features.shape[0]).flatten(2))


@networks.register("resnet12")
class ResNet12(Network):
    """Blocks of 64, 128, 256, 512 channels: three times (3x3 convolution, batch-norm, leaky ReLU).

    A 1x1 shortcut with batch-norm is added before a block's last ReLU, and each block ends with
    max-pool 2. Convolutions have no bias, and there is no dropout. With 5 ways and all shortcuts
    the network has 7,999,365 parameters. The co-learner gets block 4's map. Weights start as
    torch's defaults; how BOIL's start is not known.
    """

    Options = ResNet12Options
    options: ResNet12Options
    colearner_depth = 2
    smallest = 16  # an image is pooled four times
    # BOIL's ResNet-12 row differs from its 4-conv row in these values.
    recipe = Recipe(
        options={"inner_lr": 0.3}, protocol={"outer_lr": 6e-4}, network={"shortcuts": "fixed"}
    )

    def __init__(
        self,
        options: ResNet12Options,
        input_shape: tuple[int, ...],
        outputs: int,
        path: str = "fast",
    ):
        super().__init__(options, input_shape, outputs, path)
        inputs, height, width = input_shape
        self.params = {}
        shortcuts: dict[str, Param] = {}
        for number in _BLOCKS:
            filters = options.filters * 2 ** (number - 1)
            for i, size in (("a", inputs), ("b", filters), ("c", filters)):
                self.params |= _conv_params(f"{number}{i}", size, filters, 3)
            if self._has_skip(number):
                shortcuts |= _conv_params(f"{number}s", inputs, filters, 1)
            inputs = filters
        head = linear_params("head", inputs, outputs)
        self.params |= shortcuts | head
        self.feature_shape = (inputs, height // 16, width // 16)
        self.head_names = frozenset(head)
        self.norm_names = frozenset(name for name in self.params if name.startswith("norm"))
        fixed = set(shortcuts) if options.shortcuts == "fixed" else set()
        self.fixed_names = frozenset(
            fixed | (set(self.params) - set(head) if options.body == "fixed" else set())
        )

    @property
    def layers(self) -> list[str]:
        """Names of psi's layers without the shortcuts, which lie beside the path of layers."""
        return [name for name in super().layers if not name.endswith("s")]

    def _has_skip(self, number: int) -> bool:
        return number < _BLOCKS[-1] or self.options.last_skip

    def features(self, p: TaskParams, x: Images) -> Maps:
        """(T, n, C, H, W) -> (T, n, 8 * filters, H//16, W//16)."""
        ((_, h),) = deque(self._blocks(p, x), maxlen=1)  # keeps no map longer than needed
        return unfold(h, x.shape[0])

    def activations(self, p: TaskParams, x: Images) -> dict[str, Maps]:
        """Pooled outputs (T, n, ...) of each block."""
        return {f"block{number}": unfold(h, x.shape[0]) for number, h in self._blocks(p, x)}

    def _blocks(self, p: TaskParams, x: Images) -> Iterator[tuple[int, Tensor]]:
        """Number and folded output of each block."""
        h = fold(x)
        if self.path != "plain":
            h = h.contiguous(memory_format=torch.channels_last)
        for number in _BLOCKS:
            z = h
            for i in "ab":
                z = F.leaky_relu(_conv_norm(p, f"{number}{i}", z), _SLOPE)
            z = _conv_norm(p, f"{number}c", z)
            if self._has_skip(number):
                z = z + _conv_norm(p, f"{number}s", h)
            h = F.max_pool2d(F.leaky_relu(z, _SLOPE), 2)
            yield number, h

    def head(self, p: TaskParams, z: Images) -> Outputs:
        """(T, n, C, h, w) -> (T, n, outputs): global average pooling, linear."""
        return linear(p, "head", z.mean((3, 4)))

    def embedding(self, z: Images) -> Vectors:
        """(T, n, C, h, w) -> (T, n, C): global average pooling."""
        return z.mean((3, 4))

    def colearner(self, depth: int) -> CoLearner:
        """``depth`` convolutional layers, global average pooling, a linear layer."""
        return _CoLearner(self, depth)

    def tasks_at_once(self, device: torch.device) -> int:
        """One on a CPU: weights are larger than maps here, so grouped convolutions gain nothing."""
        return 4 if device.type == "cuda" else 1
