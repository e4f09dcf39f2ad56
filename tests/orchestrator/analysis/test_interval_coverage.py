"""How often both 95% intervals hold the truth, by simulation; benchmarks/interval_coverage.py has the full table."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis.intervals import estimate

REPLICATES = 4000  # Monte Carlo standard error 0.35% at 95%
NOMINAL, LEAST = 0.95, 0.925
RATIOS = [ratio for ratio in product((0.0, 0.3, 1.0), repeat=3) if any(ratio)]
SIZES = [(5, 3), (20, 3), (10, 5), (5, 10), (20, 10)]


def effects(n_queries, n_repeats, seed):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(REPLICATES, n_queries, 1)), rng.normal(size=(REPLICATES, 1, n_repeats)),
            rng.normal(size=(REPLICATES, n_queries, n_repeats)))  # fmt: skip


def covered(interval, truth):
    low, high = interval
    rounding = 1e-12
    return ((low <= truth + rounding) & (truth - rounding <= high)).mean()


def coverages(n_queries, n_repeats, complete, seed):
    """{ratio: (coverage for queries of this kind, where the truth is 0; for these, where it is their own mean)}."""
    queries, repeats, residual = effects(n_queries, n_repeats, seed)
    found = {}
    for sd in RATIOS:
        result = estimate(sd[0] * queries + sd[1] * repeats + sd[2] * residual, complete)
        found[sd] = covered(result.ci, 0.0), covered(result.ci_fixed, sd[0] * queries.mean(axis=(1, 2)))
    return found


@pytest.mark.parametrize(("n_queries", "n_repeats"), SIZES)
def test_both_intervals_cover_in_every_normal_cell(n_queries, n_repeats):
    found = coverages(n_queries, n_repeats, None, seed=n_queries * 100 + n_repeats)
    assert {sd: c for sd, c in found.items() if min(c) < LEAST} == {}
    exact = [fixed for (_, repeats, residual), (_, fixed) in found.items() if repeats or residual]
    np.testing.assert_allclose(exact, NOMINAL, atol=4 * np.sqrt(NOMINAL * (1 - NOMINAL) / REPLICATES))


@pytest.mark.parametrize(("n_queries", "n_repeats"), [(8, 4), (20, 3), (12, 8)])
def test_both_intervals_cover_with_a_tenth_of_the_cells_missing(n_queries, n_repeats):
    complete = np.random.default_rng(5).random((n_queries, n_repeats)) > 0.1
    assert 0 < (~complete).sum() < 0.25 * complete.size
    found = coverages(n_queries, n_repeats, complete, seed=n_queries)
    assert {sd: c for sd, c in found.items() if min(c) < LEAST} == {}


def test_without_any_spread_only_the_interval_over_seeds_is_given():
    result = estimate(np.zeros((5, 10, 5)))
    np.testing.assert_array_equal(result.ci_fixed, 0)
    assert np.isnan(result.ci).all()


def test_rare_large_effects_that_no_query_showed_get_no_interval_instead_of_a_wrong_one():
    rng = np.random.default_rng(9)
    moved = np.where(rng.random((REPLICATES, 5, 1)) < 0.1, -1.0, 0.0)
    result = estimate(np.repeat(moved, 3, axis=2))
    given = ~np.isnan(result.ci[0])
    assert given.mean() == pytest.approx(1 - 0.9**5 - 0.1**5, abs=0.03)
    assert covered([end[given] for end in result.ci], -0.1) > 0.95


def test_pretending_that_queries_are_all_there_is_would_be_caught():
    queries, repeats, residual = effects(20, 3, seed=1)
    means = (0.3 * queries + repeats + 0.3 * residual).mean(axis=2)
    half = stats.t.ppf(0.975, 19) * means.std(axis=1, ddof=1) / np.sqrt(20)
    centre = means.mean(axis=1)
    assert covered((centre - half, centre + half), 0.0) < 0.5
