"""What figures 3 and 4 are computed with, on plain arrays. Imports no torch."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cml_bench.errors import UserError
from cml_bench.evidence.stats import t_interval

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
    found = np.full((2, flat.shape[1]), np.nan)
    for j, column in enumerate(flat.T):
        there = column[np.isfinite(column)]
        if len(there):
            interval = t_interval(there)
            found[:, j] = interval.mean, interval.half
    return Band(*found.reshape(2, *np.shape(values)[1:]))


def smoothed(values: Array, points: int) -> Array:
    """Mean of each value along the last axis with the ``points - 1`` before it; of those there are
    at the start.

    Values that are nan are left out.
    """
    found = np.full(np.shape(values), np.nan)
    for i in range(found.shape[-1]):
        part = np.asarray(values, np.float64)[..., max(0, i - points + 1) : i + 1]
        there = np.isfinite(part)
        total, count = np.where(there, part, 0).sum(-1), there.sum(-1)
        found[..., i] = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return found
