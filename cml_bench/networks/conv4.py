"""``conv4``: four convolutional blocks and a linear layer (CML, section 4.2).

The sizes are those of the released code.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cml_bench.errors import UserError
from cml_bench.networks.base import (
    MOST_LAYERS,
    CoLearner,
    Covered,
    Network,
    block,
    block_params,
    fast_block,
    fast_first_block,
    fold,
    linear,
    linear_params,
    unfold,
)
from cml_bench.registry import networks
from cml_bench.shapes import FoldedMaps, Images, Maps, Outputs, TaskParams, Vectors
from cml_bench.spec import Options, added

_FEW_CHANNELS = 4  # up to so many, patches (9C values) are cheaper than passes over the map
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Conv4Options(Options):
    """Width, and what single methods or tables of the paper change."""

    filters: int = Field(
        64,
        ge=1,
        le=4096,
        description="channels of every block; the paper's counts imply 64, MAML++ has 48",
    )
    slope: float = added(
        0.0, ge=0, lt=1, description="negative slope of the ReLUs (MAML++: LeakyReLU of 0.01)"
    )
    init: Literal["torch", "xavier"] = added(
        "torch",
        description=(
            "torch: its default, as in the CML and BOIL code; xavier: uniform, zero biases, as"
            " MAML++"
        ),
    )
    inputs: Literal["unit", "imagenet"] = added(
        "unit",
        description=(
            "unit: pixels in [0, 1] as they come; imagenet: minus ImageNet's mean,"
            " divided by its deviation (MAML++ on MiniImagenet)"
        ),
    )
    extra_blocks: int = added(
        0,
        ge=0,
        le=MOST_LAYERS,
        description=(
            "More-MAML: number of further blocks, which do not pool, between block 4's ReLU and its"
            " pooling; 3 give the paper's 232K parameters. The paper does not state their place"
        ),
    )
    head_blocks: int = added(
        0,
        ge=0,
        le=MOST_LAYERS,
        description=(
            "convolutional blocks in the meta-learner's head, as in the co-learner (Table 7: 0"
            " and 2)"
        ),
    )


class _ConvHead(CoLearner):
    """k convolutional blocks, of which the last one pools; then a linear layer.

    k = 2 is the released co-learner. The paper does not say where Table 8's other depths pool. Here
    the map is pooled once, at the end, for every k. So the linear layer always has the meta head's
    size. ``norm``: see ``CoLearnerOptions.norm``.
    """

    def __init__(self, network: "Conv4", depth: int, prefix: str = "", norm: str = "own"):
        self.check_depth(depth)
        self.norm = norm
        self.depth, self.prefix, self.slope = depth, prefix, network.options.slope
        filters, init = network.options.filters, network.options.init
        self.params = {}
        for i in range(1, depth + 1):
            self.params |= block_params(f"{prefix}{i}", filters, filters, init)
        self.params |= linear_params("head", network.pooled_size, network.outputs, init)

    def apply(self, p: TaskParams, features: Images) -> Outputs:
        """Outputs (T, n, outputs) of features (T, n, filters, H//8, W//8)."""
        tasks = features.shape[0]
        x = fold(features)
        statistics = self._statistics(x)
        for i in range(1, self.depth + 1):
            pool = i == self.depth
            x = block(p, f"{self.prefix}{i}", x, pool, self.slope, statistics)
        if self.depth == 0:
            x = F.max_pool2d(x, 2)
        return linear(p, "head", unfold(x, tasks).flatten(2))

    def _statistics(self, x: FoldedMaps) -> tuple[Tensor, Tensor] | None:
        """Mean and variance that normalise every block, unless each has those of its own map."""
        if self.norm == "own":
            return None
        if self.norm == "none":
            return x.new_zeros(()), x.new_ones(())
        var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0, keepdim=True)
        return mean[0], var[0]


@networks.register("conv4")
class Conv4(Network):
    """Four blocks (3x3 convolution, batch-norm, ReLU, max-pool 2), then a linear layer.

    Batch-norm uses the statistics of the batch that the network gets. The co-learner reads block 4
    before its pooling, as in the released code. With 64 filters and 5 ways the network has 121,093
    parameters for images of 84x84x3, 114,373 for 32x32x3 and 112,261 for 28x28x1. The co-learner of
    two blocks has 82,117, 75,397 and 74,437. At 28x28 the co-learner's input is only 3x3, and its
    last block pools it to 1x1.
    """

    Options = Conv4Options
    options: Conv4Options
    colearner_depth = 2
    smallest = 16  # an image is pooled four times

    def __init__(
        self, options: Conv4Options, input_shape: tuple[int, ...], outputs: int, path: str = "fast"
    ):
        super().__init__(options, input_shape, outputs, path)
        channels, height, width = input_shape
        if options.inputs == "imagenet" and channels != 3:
            raise UserError(
                f"conv4: inputs: imagenet is for images of 3 channels, not {channels}. Use inputs:"
                " unit."
            )
        self._repeated: tuple[Tensor, Covered | None] | None = None
        self._constants: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self.params = {}
        self.late_blocks = [str(i) for i in range(5, 5 + options.extra_blocks)]
        for i in ("1", "2", "3", "4", *self.late_blocks):
            self.params |= block_params(
                i, channels if i == "1" else options.filters, options.filters, options.init
            )
        self.feature_shape = (options.filters, height // 8, width // 8)
        self.pooled_size = options.filters * (height // 16) * (width // 16)
        self._head = _ConvHead(self, options.head_blocks, "h")
        self.params |= self._head.params
        self.head_names = frozenset(self._head.params)
        self.norm_names = frozenset(name for name in self.params if name.startswith("norm"))

    @contextmanager
    def repeating(self, x: Images) -> Iterator[None]:
        """The patches of these images are made once for the block."""
        self._repeated = (x, None)
        try:
            yield
        finally:
            self._repeated = None

    def features(self, p: TaskParams, x: Images) -> Maps:
        """(T, n, C, H, W) -> (T, n, filters, H//8, W//8)."""
        ((_, h),) = deque(self._blocks(p, x), maxlen=1)  # keeps no map longer than needed
        return unfold(h, x.shape[0])

    def activations(self, p: TaskParams, x: Images) -> dict[str, Maps]:
        """Outputs (T, n, ...) of each block; those of blocks 1 to 3 are pooled."""
        return {f"conv{i}": unfold(h, x.shape[0]) for i, h in self._blocks(p, x)}

    def _imagenet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (3, 1, 1), copied to a device once: a copy waits for the device."""
        key = (x.device, x.dtype)
        if key not in self._constants:
            mean, std = (x.new_tensor(v).reshape(3, 1, 1) for v in (_IMAGENET_MEAN, _IMAGENET_STD))
            self._constants[key] = mean, std
        return self._constants[key]

    def _blocks(self, p: TaskParams, x: Images) -> Iterator[tuple[str, Tensor]]:
        """Number and folded output of each block."""
        slope, given = self.options.slope, x
        if self.options.inputs == "imagenet":
            mean, std = self._imagenet(x)
            x = (x - mean) / std
        if self.path == "plain":
            h = fold(x)
            for i in ("1", "2", "3"):
                h = block(p, i, h, pool=True, slope=slope)
                yield i, h
        else:
            few = x.shape[2] <= _FEW_CHANNELS and not x.requires_grad
            if few:
                h = fast_first_block(p, "1", self._covered(x, given), slope)
            else:
                h = fast_block(p, "1", fold(x).contiguous(memory_format=torch.channels_last), slope)
            yield "1", h
            for i in ("2", "3"):
                h = fast_block(p, i, h, slope)
                yield i, h
        for i in ("4", *self.late_blocks):
            h = block(p, i, h, pool=False, slope=slope)
            yield i, h

    def _covered(self, x: Tensor, given: Tensor) -> Covered:
        """The patches of images ``x``; ``given``: the same images as the network got them."""
        repeated, covered = self._repeated or (None, None)
        if repeated is not given:
            return Covered.by(x)
        if covered is None:
            covered = Covered.by(x)
            self._repeated = (given, covered)
        return covered

    def head(self, p: TaskParams, z: Images) -> Outputs:
        """(T, n, filters, h, w) -> (T, n, outputs): ``head_blocks`` blocks, max-pool 2, linear."""
        return self._head.apply(p, z)

    def embedding(self, z: Images) -> Vectors:
        """(T, n, filters, h, w) -> (T, n, d): max-pool 2, as after the block of the paper."""
        return F.max_pool2d(z.flatten(0, 1), 2).flatten(1).unflatten(0, z.shape[:2])

    def colearner(self, depth: int) -> CoLearner:
        """``depth`` convolutional blocks, the last one pooled, then a linear layer."""
        return _ConvHead(self, depth)

    def control(self, depth: int, norm: str) -> CoLearner:
        """As :meth:`colearner`, normalised in another way."""
        return _ConvHead(self, depth, norm=norm)

    def tasks_at_once(self, device: torch.device) -> int:
        """Four of small images, fewer of large ones on a CPU: their maps must fit the cache.

        At 28x28, two tasks at once take 1 or 2 % longer than four, and two thirds of the memory
        (benchmarks/README.md).
        """
        pixels = self.input_shape[1] * self.input_shape[2]
        if device.type == "cuda" or pixels <= 24 * 24:
            return 4
        return 2 if pixels <= 32 * 32 else 1
