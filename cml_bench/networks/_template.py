"""``template``: a network to start from; change what is marked (1)-(4), and this line.

The example is one convolutional block and a linear layer. Functions receive parameters with a
leading task axis (T, ...). Use ``linear`` and ``block`` of ``networks/base.py`` for them, or read
there how tasks are folded into channels.
"""

import torch
from pydantic import Field

from cml_bench.networks.base import (
    CoLearner,
    Network,
    block,
    block_params,
    fold,
    linear,
    linear_params,
    unfold,
)
from cml_bench.registry import networks
from cml_bench.shapes import Images, Maps, Outputs, TaskParams
from cml_bench.spec import Options


class TemplateOptions(Options):
    """(1) What a configuration may set under ``network_options``."""

    filters: int = Field(8, ge=1, le=4096, description="channels")


class TemplateCoLearner(CoLearner):
    """(2) The co-learner on this network's features: ``depth`` hidden layers and a linear one."""

    def __init__(self, network: "Template", depth: int):
        self.check_depth(depth)
        self.depth, size = depth, network.flat
        self.params = {}
        for i in range(1, depth + 1):
            self.params |= linear_params(f"hidden{i}", size, size)
        self.params |= linear_params("head", size, network.outputs)

    def apply(self, p: TaskParams, features: Images) -> Outputs:
        """Outputs (T, n, outputs) of features (T, n, filters, H//2, W//2)."""
        z = features.flatten(2)
        for i in range(1, self.depth + 1):
            z = torch.relu(linear(p, f"hidden{i}", z))
        return linear(p, "head", z)


@networks.register("template")  # (3) the name
class Template(Network):
    """(4) Its layers, its source, its number of parameters."""

    Options = TemplateOptions
    options: TemplateOptions
    colearner_depth = 1
    # The constructor refuses data that does not fit.
    takes = "images"  # or "vectors"
    smallest = 2  # pixels a side

    def __init__(
        self,
        options: TemplateOptions,
        input_shape: tuple[int, ...],
        outputs: int,
        path: str = "fast",
    ):
        super().__init__(options, input_shape, outputs, path)
        channels, height, width = input_shape
        self.feature_shape = (options.filters, height // 2, width // 2)
        self.flat = options.filters * (height // 2) * (width // 2)
        head = linear_params("head", self.flat, outputs)
        self.params = {**block_params("1", channels, options.filters), **head}
        self.head_names = frozenset(head)
        self.norm_names = frozenset({"norm1.weight", "norm1.bias"})

    def features(self, p: TaskParams, x: Images) -> Maps:
        """(T, n, C, H, W) -> (T, n, filters, H//2, W//2)."""
        return unfold(block(p, "1", fold(x), pool=True), x.shape[0])

    def head(self, p: TaskParams, z: Images) -> Outputs:
        """(T, n, filters, h, w) -> (T, n, outputs)."""
        return linear(p, "head", z.flatten(2))

    def colearner(self, depth: int) -> CoLearner:
        """See :class:`TemplateCoLearner`."""
        return TemplateCoLearner(self, depth)

    def tasks_at_once(self, device: torch.device) -> int:
        """How many tasks fit into the cache together; only speed depends on it."""
        return 4
