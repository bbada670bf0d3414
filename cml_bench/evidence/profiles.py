"""A whole table at one look: performance profiles, and probabilities of improvement.

Both as in Agarwal et al. 2021 (Deep Reinforcement Learning at the Edge of the Statistical
Precipice, sections 4.2 and 4.3). They illustrate and decide nothing. Imports no torch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cml_bench.evidence import stats
from cml_bench.evidence.table import Cell, Table, TableRow

LEVELS = 60
"""Scores at which a profile is computed."""


class Profile(NamedTuple):
    """Of one row: the share of its runs above each score, with the ends of a 95 % bootstrap
    interval (nan below ``stats.MIN_SEEDS`` seeds); all of shape (levels,).
    """

    label: str
    levels: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Improvement(NamedTuple):
    """Over how many cells and seeds a row is set against its baseline, and the outcome."""

    label: str
    against: str
    whole: stats.Aggregate


def profile(scores: ArrayLike, levels: ArrayLike, *, seed: int = 0) -> np.ndarray:
    """The share of runs whose score is above each level, and its interval, of shape (3, levels).

    ``scores`` has shape (cells, seeds); every cell has the same weight. The interval is a 95 %
    percentile bootstrap of ``stats.RESAMPLES`` samples, stratified by cell: one draw of seeds
    serves all cells, as in :func:`cml_bench.evidence.stats.aggregate`.
    """
    x, tau = np.asarray(scores, dtype=np.float64), np.asarray(levels, dtype=np.float64)
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"scores must be finite, of shape (cells, seeds), got shape {x.shape}")
    above = (x[:, :, None] > tau).mean(axis=0)  # (seeds, levels): the share of cells
    n = len(above)
    if n < stats.MIN_SEEDS:
        ends = np.full((2, tau.size), np.nan)
    else:
        draws = np.random.default_rng(seed).integers(n, size=(stats.RESAMPLES, n))
        ends = np.quantile(above[draws].mean(axis=1), [0.025, 0.975], axis=0)
    return np.stack([above.mean(axis=0), *ends])


def profiles(table: Table) -> list[Profile]:
    """Of each row that is complete in every column of means, over the same levels; empty unless the
    table has several such columns and rows.

    Higher scores must be better, since errors differ by orders of magnitude between columns.
    """
    columns = [column for column in table.columns if column.statistic == "mean"]
    if len(columns) < 2 or table.better < 0:
        return []
    found = {}
    for row in table.results:
        cells = [row.cells[column] for column in columns]
        if not row.untrained and _same_seeds(cells) and all(cell.complete for cell in cells):
            found[row.label] = _scores(cells)
    if len(found) < 2:
        return []
    every = np.concatenate([scores.ravel() for scores in found.values()])
    levels = np.linspace(every.min(), every.max(), LEVELS)
    levels[0] = np.nextafter(levels[0], -np.inf)  # all runs are above the first
    return [Profile(label, levels, *profile(scores, levels)) for label, scores in found.items()]


def improvements(table: Table) -> list[Improvement]:
    """Each row against its baseline over the whole table; see :func:`aggregated`."""
    found = [(row, aggregated(table, row)) for row in (table.rows if table.compares else ())]
    return [Improvement(row.label, row.against or "", whole) for row, whole in found if whole]


def aggregated(table: Table, row: TableRow) -> stats.Aggregate | None:
    """A row against its baseline over the whole table. None unless it has several columns and each
    can be tested, with the same seeds, since whole seeds are resampled.
    """
    pairs, testable = [], True
    for column in table.columns:
        cell = row.cells[column]
        if column.statistic == "mean" and cell.difference and cell.base:
            pairs.append((cell, cell.base))
            testable &= cell.difference.testable
    # Table 3's G-Meta has fewer class splits on one graph.
    if len(pairs) < 2 or not testable or not _same_seeds([cell for cell, _ in pairs]):
        return None
    a, b = (table.better * _scores(cells) for cells in zip(*pairs, strict=True))
    return stats.aggregate(a, b, seed=0)


def _same_seeds(cells: Sequence[Cell]) -> bool:
    return len({tuple(sorted(cell.values)) for cell in cells}) == 1


def _scores(cells: Sequence[Cell]) -> np.ndarray:
    """The scores of cells with the same seeds, of shape (cells, seeds)."""
    return np.array([[cell.values[seed] for seed in sorted(cell.values)] for cell in cells])
