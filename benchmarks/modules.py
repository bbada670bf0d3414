"""The networks as ``torch.nn`` modules, as one writes them for learn2learn, higher and torchopt.

Parameters have the engine's names. ``forward`` returns the outputs and the features that the
co-learner reads.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.problem import Problem


class _Conv4(nn.Module):
    def __init__(self, channels: int, filters: int, pooled: int, outputs: int):
        super().__init__()
        for i in range(1, 5):
            setattr(
                self, f"conv{i}", nn.Conv2d(channels if i == 1 else filters, filters, 3, padding=1)
            )
            setattr(self, f"norm{i}", nn.BatchNorm2d(filters, track_running_stats=False))
        self.head = nn.Linear(pooled, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        x = F.max_pool2d(F.relu(self.norm3(self.conv3(x))), 2)
        z = F.relu(self.norm4(self.conv4(x)))
        return self.head(F.max_pool2d(z, 2).flatten(1)), z


class _ConvCoLearner(nn.Module):
    def __init__(self, filters: int, pooled: int, outputs: int):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(filters, filters, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (
            nn.BatchNorm2d(filters, track_running_stats=False) for _ in range(2)
        )
        self.head = nn.Linear(pooled, outputs)

    def forward(self, z: Tensor) -> Tensor:
        z = F.relu(self.norm1(self.conv1(z)))
        return self.head(F.max_pool2d(F.relu(self.norm2(self.conv2(z))), 2).flatten(1))


class _MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden1, self.hidden2, self.head = (
            nn.Linear(1, 40),
            nn.Linear(40, 40),
            nn.Linear(40, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = F.relu(self.hidden2(F.relu(self.hidden1(x))))
        return self.head(z), z


class _VectorCoLearner(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden1, self.head = nn.Linear(40, 40), nn.Linear(40, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden1(z)))


def build(
    problem: Problem, dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, nn.Module | None]:
    """Network and co-learner with the problem's start; None: the method has no co-learner."""
    start = problem.start(dtype)
    if problem.size:
        pooled = problem.filters * (problem.size // 16) ** 2
        net = _Conv4(problem.channels, problem.filters, pooled, problem.way)
        co = _ConvCoLearner(problem.filters, pooled, problem.way)
    else:
        net, co = _MLP(), _VectorCoLearner()
    net.to(dtype).load_state_dict(start["base"])
    if "co" not in start:
        return net, None
    co.to(dtype).load_state_dict(start["co"])
    return net, co


# -- the same network as a function of given parameters --


def _sub(params: OrderedDict, layer: str) -> OrderedDict:
    """The parameters of one layer under their own names.

    As in torchmeta, every forward pass searches for them by prefix.
    """
    prefix = layer + "."
    return OrderedDict(
        (name.removeprefix(prefix), p) for name, p in params.items() if name.startswith(prefix)
    )


def _block(params: OrderedDict, i: int, x: Tensor) -> Tensor:
    conv, norm = _sub(params, f"conv{i}"), _sub(params, f"norm{i}")
    z = F.conv2d(x, conv["weight"], conv["bias"], padding=1)
    return F.relu(F.batch_norm(z, None, None, norm["weight"], norm["bias"], training=True))


def _linear(params: OrderedDict, layer: str, x: Tensor) -> Tensor:
    given = _sub(params, layer)
    return F.linear(x, given["weight"], given["bias"])


def functional(problem: Problem, x: Tensor, params: OrderedDict) -> tuple[Tensor, Tensor]:
    """Outputs and features at ``params``, an ordered dictionary by name."""
    if not problem.size:
        z = F.relu(_linear(params, "hidden2", F.relu(_linear(params, "hidden1", x))))
        return _linear(params, "head", z), z
    for i in (1, 2, 3):
        x = F.max_pool2d(_block(params, i, x), 2)
    z = _block(params, 4, x)
    return _linear(params, "head", F.max_pool2d(z, 2).flatten(1)), z
