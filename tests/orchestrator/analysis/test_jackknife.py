"""The crossed jackknife: exact for a mean over seeds and subsets, and blank where the layout does not determine it."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.analysis.intervals import estimate
from orchestrator.analysis.jackknife import BLOCKS, LeftOut, blocks_of, crossed_estimate


def left_out_means(x: np.ndarray) -> np.ndarray:
    """The mean over repeats and subsets of x [n_queries, n_repeats, n_subsets], with one of each, or both, left out."""
    n_queries, n_repeats, n_subsets = x.shape
    found = np.empty((1 + n_subsets, 1 + n_repeats, n_queries))
    for s, r in np.ndindex(1 + n_subsets, 1 + n_repeats):
        kept = x[:, np.arange(n_repeats) != r - 1][:, :, np.arange(n_subsets) != s - 1]
        found[s, r] = kept.mean(axis=(1, 2))
    return found


def variance_of_mean(x: np.ndarray) -> float:
    return float(x.var(ddof=1) / len(x))


def crossed(x: np.ndarray) -> float:
    """The mean square of the interaction of a table, over its number of cells."""
    residual = x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()
    return float((residual**2).sum() / ((x.shape[0] - 1) * (x.shape[1] - 1)) / x.size)


@pytest.mark.parametrize(("seed", "seed_effect"), [(0, 0.0), (1, 0.0), (2, 3.0)])
def test_for_a_mean_the_variances_are_those_of_the_analysis_of_variance(seed, seed_effect):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 4, 9)) + rng.normal(size=(6, 1, 1)) + rng.normal(size=(1, 1, 9))
    x = x + seed_effect * rng.normal(size=(1, 4, 1))
    found = crossed_estimate(left_out_means(x))
    of_queries, of_subsets = variance_of_mean(x.mean((1, 2))), variance_of_mean(x.mean((0, 1)))
    of_both = crossed(x.mean(1))
    of_seeds = max(variance_of_mean(x.mean((0, 2))) - crossed(x.mean(0)), 0) * 4 / 3
    np.testing.assert_allclose(found.mean, x.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.se_fixed**2, of_subsets + of_seeds, rtol=1e-9)
    expected = max(of_queries + of_subsets - of_both, of_queries, of_subsets) + of_seeds
    np.testing.assert_allclose(found.se**2, expected, rtol=1e-9)


def test_if_seeds_change_nothing_the_layout_is_one_of_queries_and_subsets():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(7, 12)) + rng.normal(size=(1, 12))
    found = crossed_estimate(left_out_means(np.repeat(table[:, None], 3, axis=1)))
    two_way = estimate(table)
    np.testing.assert_allclose([found.mean, found.se], [two_way.mean, two_way.se], rtol=1e-9)
    np.testing.assert_allclose(found.se_fixed, two_way.se_fixed, rtol=1e-9)


def test_many_at_once_equal_one_at_a_time():
    values = np.random.default_rng(0).normal(size=(3, 6, 4, 5))
    together = crossed_estimate(values)
    for i in range(3):
        alone = crossed_estimate(values[i])
        for name in ("mean", "se", "df", "se_fixed", "df_fixed"):
            np.testing.assert_array_equal(getattr(together, name)[i], getattr(alone, name))


def test_without_spread_there_is_no_interval_and_p_is_one_for_a_mean_of_zero():
    found = crossed_estimate(np.zeros((6, 3, 4)))
    assert (float(found.mean), float(found.se), float(found.p)) == (0, 0, 1)
    assert np.isnan(found.ci).all()


@pytest.mark.parametrize("shape", [(6, 2, 4), (2, 4, 4), (6, 4, 0)])
def test_one_seed_one_block_or_no_query_has_no_interval(shape):
    found = crossed_estimate(np.random.default_rng(0).normal(size=shape))
    assert np.isnan([found.se, found.se_fixed]).all()


def test_one_query_has_only_the_interval_for_this_query():
    found = crossed_estimate(np.random.default_rng(0).normal(size=(6, 4, 1)))
    assert np.isnan(found.se)
    assert found.se_fixed > 0


def test_blocks_are_single_subsets_up_to_their_largest_number():
    assert blocks_of(7).tolist() == list(range(7))
    assert np.bincount(blocks_of(5 * BLOCKS + 3)).tolist() == [6] * 3 + [5] * (BLOCKS - 3)


def test_a_difference_is_formed_query_by_query():
    one, other = np.random.default_rng(0).normal(size=(2, 6, 4, 5))
    found = LeftOut(one, 5) - LeftOut(other, 5)
    np.testing.assert_array_equal(found.estimate().mean, crossed_estimate(one - other).mean)
