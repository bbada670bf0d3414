"""Outputs for queries by the examples that they share batch-norm statistics with.

Batch-norm uses the statistics of the batch, in training and at test. The released code gives a
network all queries of a task at once, so a query is normalised with as many of each class. Here
the same adapted parameters see other batches. A query is never normalised with queries of other
tasks, and its label is not used: the classes only choose the batches.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cml_bench.data.episodes import Task
from cml_bench.methods.base import Method
from cml_bench.shapes import Outputs, TaskGroups, TaskParams
from cml_bench.spec import NormalisedWith

_BATCHES = 15  # batches of a task in one program: they copy its parameters


class _Batches(NamedTuple):
    """B batches of a task's examples. ``rows`` (B, m): their places, the support set first.

    ``own`` (B, k): the places in a batch of the queries that are scored in it.
    """

    rows: Tensor
    own: Tensor


def query_outputs(
    method: Method,
    groups: TaskGroups,
    params: TaskParams,
    task: Task,
    heads: tuple[str, ...],
    normalised_with: NormalisedWith,
) -> dict[str, Outputs]:
    """Outputs (T, n, out) of the named heads for the queries, in their order."""
    if normalised_with == "task":
        return method.outputs(groups, params, task.query.x, heads)
    x = torch.cat([task.support.x, task.query.x], dim=1)
    shots, count = task.support.x.shape[1], task.query.x.shape[1]
    batches = _batches(normalised_with, shots, count, method.network.outputs, x.device)
    parts: dict[str, list[Tensor]] = {head: [] for head in heads}
    for rows, own in zip(batches.rows.split(_BATCHES), batches.own.split(_BATCHES), strict=True):
        copies = {g: _copied(group, len(rows)) for g, group in groups.items()}
        wide = x[:, rows].flatten(0, 1)  # (T * B, m, ...)
        out = method.outputs(copies, _copied(params, len(rows)), wide, heads)
        for head in heads:
            every = out[head].unflatten(0, (len(task), len(rows)))
            places = own[None, :, :, None].expand(len(task), -1, -1, every.shape[-1])
            parts[head].append(every.gather(2, places).flatten(1, 2))
    return {head: torch.cat(of_head, dim=1) for head, of_head in parts.items()}


def _copied(params: TaskParams, batches: int) -> TaskParams:
    """The parameters of each task for each of its batches (T * B, ...)."""
    return {name: p.repeat_interleave(batches, dim=0) for name, p in params.items()}


def _batches(
    normalised_with: NormalisedWith, shots: int, count: int, way: int, device: torch.device
) -> _Batches:
    """The batches of a task with ``shots`` support examples and ``count`` queries.

    Examples of a class stand together, so query q is of class q // (count // way).
    """
    each = count // way
    queries = shots + torch.arange(count, device=device)
    if normalised_with == "support":
        support = torch.arange(shots, device=device).expand(count, -1)
        own = torch.full((count, 1), shots, device=device)
        return _Batches(torch.cat([support, queries[:, None]], dim=1), own)
    by_class = queries.view(way, each)
    own = torch.arange(each, device=device).expand(way, -1)
    if normalised_with == "two_classes":  # each class is scored with the next one, once
        by_class = torch.cat([by_class, by_class.roll(-1, dims=0)], dim=1)
    return _Batches(by_class, own)
