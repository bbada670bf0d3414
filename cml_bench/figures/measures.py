"""What figures 3 and 4 are computed with, on plain arrays. Imports no torch."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cml_bench.errors import UserError
from cml_bench.evidence.stats import t_interval
from cml_bench.records import Record, Store
from cml_bench.spec import RunSpec
from cml_bench.study.figure_config import Arrays, Row, Wanted

Array = NDArray[np.float64]


def linear_cka(x: Array, y: Array, estimator: Literal["biased", "unbiased"] = "biased") -> float:
    """Linear centred kernel alignment of two representations (n, p) and (n, q) of the same n
    examples.

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X X', L = Y Y' (Kornblith et al. 2019, section
    3). Biased: HSIC is that of the centred kernels, and the value lies in [0, 1]. Unbiased: the
    U-statistic of Song et al. 2012 (equation 5), which needs n >= 4, does not grow with p / n, and
    may be below 0. nan where a representation is constant.
    """
    k, m = (np.asarray(z, np.float64).reshape(len(z), -1) for z in (x, y))
    k, m = ((z - z.mean(0)) @ (z - z.mean(0)).T for z in (k, m))
    hsic = _biased if estimator == "biased" else _unbiased
    scale = hsic(k, k) * hsic(m, m)
    return float(hsic(k, m) / np.sqrt(scale)) if scale > 0 else float("nan")


def _biased(k: Array, m: Array) -> float:
    return float((k * m).sum())


def _unbiased(k: Array, m: Array) -> float:
    """Up to the factor 1 / (n (n - 3)), which cancels."""
    n = len(k)
    if n < 4:
        raise UserError(
            f"the unbiased estimator needs at least 4 examples, not {n}: set estimator: biased."
        )
    k, m = (z - np.diag(np.diag(z)) for z in (k, m))
    return float(
        (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * k.sum(0) @ m.sum(0) / (n - 2)
    )


def silhouette(features: Array, labels: NDArray[np.int64]) -> float:
    """Mean silhouette (Rousseeuw 1987) of labelled features (n, ...), Euclidean: 1 for tight
    classes far apart.

    A class of one example has the value 0; so has a task of one example a class.
    """
    from sklearn.metrics import silhouette_score

    flat = np.asarray(features, np.float64).reshape(len(features), -1)
    if len(np.unique(labels)) == len(labels):
        return 0.0
    return float(silhouette_score(flat, labels))


def tsne(features: Array, perplexity: float) -> Array:
    """t-SNE (n, 2) of features (n, ...) with a start by PCA: the same for the same features."""
    from sklearn.manifold import TSNE

    flat = np.asarray(features, np.float64).reshape(len(features), -1)
    if perplexity >= len(flat):
        raise UserError(
            f"t-SNE of {len(flat)} examples needs a perplexity below their number, not"
            f" {perplexity:g}: lower it."
        )
    return (
        TSNE(perplexity=perplexity, init="pca", random_state=0)
        .fit_transform(flat)
        .astype(np.float64)
    )


class Band(NamedTuple):
    """A mean over seeds (...,) and the half-width of its 95 % t interval; nan where fewer than two
    have a value.
    """

    mean: Array
    half: Array


def band(values: Array) -> Band:
    """Over the first axis, leaving out seeds without a value (nan)."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    bands = np.full((2, flat.shape[1]), np.nan)
    for j, column in enumerate(flat.T):
        there = column[np.isfinite(column)]
        if len(there):
            interval = t_interval(there)
            bands[:, j] = interval.mean, interval.half
    shape = list(np.shape(values))[1:]
    return Band(bands[0].reshape(shape), bands[1].reshape(shape))


def smoothed(values: Array, points: int) -> Array:
    """Mean of each value along the last axis with the ``points - 1`` before it.

    At the start there are fewer before it. Values that are nan are left out.
    """
    whole = np.asarray(values, np.float64)
    means = np.full_like(whole, np.nan)
    for i in range(len(whole.T)):
        part = whole[..., max(0, i - points + 1) : i + 1]
        there = np.isfinite(part)
        total, count = np.where(there, part, 0).sum(-1), there.sum(-1)
        means[..., i] = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


Points = Callable[[Record, Row], dict[str, dict[int, float]]]  # name -> outer step -> value


def series(
    lines: Sequence[Row], wanted: Wanted, store: Store, names: tuple[str, ...], points: Points
) -> Arrays:
    """For each shot K: ``steps/K`` (steps,) and for each name ``NAME/K`` (rows, seeds, steps).

    The steps are those of any run; nan where a run has no value at a step.
    """
    out: Arrays = {}
    for shot, rows in wanted.items():
        read = [
            [points(_finished(store, spec), row) for spec in runs]
            for row, runs in zip(lines, rows, strict=True)
        ]
        steps = sorted(
            {step for row in read for run in row for name in names for step in run[name]}
        )
        out[f"steps/{shot}"] = np.array(steps)
        for name in names:
            table = np.full((len(rows), max(map(len, rows)), len(steps)), np.nan)
            for i, row in enumerate(read):
                for j, run in enumerate(row):
                    table[i, j] = [run[name].get(step, np.nan) for step in steps]
            out[f"{name}/{shot}"] = table
    return out


def _finished(store: Store, spec: RunSpec) -> Record:
    record = store.read(spec)
    assert record is not None, "a figure is drawn from finished runs only"
    return record
