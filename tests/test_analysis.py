"""What figures 3 and 4 compute from measurements: similarities, scores and bands."""

import numpy as np
import pytest

from cml_bench.errors import UserError
from cml_bench.evidence.stats import t_interval
from cml_bench.figures.measures import band, linear_cka, silhouette, smoothed, tsne


def points(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_cka_of_identical_features_is_one_whatever_their_rotation_scale_and_place(estimator):
    x = points(30, 12)
    rotation, _ = np.linalg.qr(points(12, 12, seed=1))
    for y in (x, 3.7 * x, x @ rotation, -0.2 * x @ rotation + 5, x.reshape(30, 3, 4)):
        assert linear_cka(x, y, estimator) == pytest.approx(1, abs=1e-12)


def test_cka_is_the_formula_of_its_paper():
    """The formula is |Y'X|^2 / (|X'X| |Y'Y|).

    With Frobenius norms and centred columns (Kornblith et al. 2019, equation 6).
    """
    x, y = points(20, 7), points(20, 5, seed=3) + points(20, 7)[:, :5]
    a, b = x - x.mean(0), y - y.mean(0)
    wanted = np.linalg.norm(b.T @ a) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
    assert linear_cka(x, y) == pytest.approx(wanted, abs=1e-12)
    assert 0.05 < wanted < 0.95
    assert linear_cka(y, x) == pytest.approx(linear_cka(x, y), abs=1e-12)


def test_the_unbiased_estimator_is_the_sum_over_distinct_examples():
    """HSIC is defined as a U-statistic: a mean over all ordered quadruples of distinct examples."""
    from itertools import permutations

    x, y = points(6, 3), points(6, 4, seed=2)

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        terms = [
            k[i, j] * m[i, j] + k[i, j] * m[q, r] - 2 * k[i, j] * m[i, q]
            for i, j, q, r in permutations(range(6), 4)
        ]
        return float(np.mean(terms))

    k, m = x @ x.T, y @ y.T
    wanted = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert linear_cka(x, y, "unbiased") == pytest.approx(wanted, abs=1e-10)


def test_only_the_unbiased_estimator_sees_that_many_random_features_share_nothing():
    similarities = [
        [linear_cka(points(25, 2000, seed=i), points(25, 2000, seed=i + 99), e) for i in range(5)]
        for e in ("biased", "unbiased")
    ]
    assert min(similarities[0]) > 0.9
    assert abs(np.mean(similarities[1])) < 0.1


def test_cka_of_constant_features_is_no_number_and_too_few_examples_are_refused():
    assert np.isnan(linear_cka(np.ones((5, 3)), points(5, 3)))
    with pytest.raises(UserError, match="at least 4 examples, not 3: set estimator: biased"):
        linear_cka(points(3, 2), points(3, 2), "unbiased")


def test_silhouette_is_rousseeuws():
    x, y = np.array([0.0, 1.0, 10.0, 12.0])[:, None], np.array([0, 0, 1, 1])
    between = [(10 + 12) / 2, (9 + 11) / 2, (10 + 9) / 2, (12 + 11) / 2]
    within = [1, 1, 2, 2]
    wanted = np.mean([(b - a) / max(a, b) for a, b in zip(within, between, strict=True)])
    assert silhouette(x, y) == pytest.approx(wanted, abs=1e-12)
    assert silhouette(x, np.array([0, 1, 0, 1])) < 0 < silhouette(x, y)
    assert silhouette(x, np.arange(4)) == 0, "one example a class"


def test_tsne_is_the_same_each_time_and_keeps_clusters_apart():
    y = np.repeat([0, 1, 2], 12)
    x = points(36, 4, 2) + 8 * y[:, None, None]
    first, second = tsne(x, 8), tsne(x, 8)
    assert np.array_equal(first, second)
    assert silhouette(first, y) > 0.5
    with pytest.raises(
        UserError, match="t-SNE of 36 examples needs a perplexity below their number, not 36"
    ):
        tsne(x, 36)


def test_a_band_is_the_t_interval_over_the_seeds_that_have_a_value():
    values = points(6, 4)
    values[2, 1] = np.nan
    values[1:, 3] = np.nan
    mean, half = band(values)
    for j, column in enumerate(values.T):
        wanted = t_interval(column[np.isfinite(column)])
        assert (mean[j], half[j]) == pytest.approx((wanted.mean, wanted.half), nan_ok=True)
    assert np.isnan(half[3])
    assert not np.isnan(mean[3])


def test_smoothing_is_the_mean_of_a_point_and_those_before_it():
    assert smoothed(np.array([[1.0, 3, np.nan, 5]]), 2).tolist() == [[1, 2, 3, 5]]
    assert smoothed(np.array([1.0, 2]), 1).tolist() == [1, 2]
