"""Confound influence differences and their tests, against scipy on the influences themselves."""

import numpy as np
import pytest
from scipy import stats

from orchestrator.campaigns.recipe_grid.confound_influence import cid, cid_over_seeds, mean_cid, welch

RNG = np.random.default_rng(0)
GROUPS = [
    (RNG.normal(0.3, 0.2, 40), RNG.normal(0.1, 0.5, 7)),
    (RNG.normal(0.0, 0.1, 12), RNG.normal(0.0, 0.1, 12)),
    (RNG.normal(-0.2, 0.01, 2), RNG.normal(0.4, 0.3, 300)),
]
NAN = np.nan


def moments_of(groups):
    return np.array(
        [[f(side) for side in pair for f in (len, np.mean, lambda x: np.std(x, ddof=1))] for pair in groups]
    )


MOMENTS = moments_of(GROUPS)


def test_cid_is_the_difference_of_the_means():
    np.testing.assert_allclose(cid(MOMENTS), [a.mean() - b.mean() for a, b in GROUPS])


def test_welch_equals_scipy_on_the_influences_and_on_their_moments():
    found = welch(MOMENTS)
    for row, (same, other) in enumerate(GROUPS):
        expected = stats.ttest_ind(same, other, equal_var=False)
        assert found.t[row] == pytest.approx(expected.statistic, rel=1e-10)
        assert found.p[row] == pytest.approx(expected.pvalue, rel=1e-8)
    n_s, m_s, s_s, n_o, m_o, s_o = MOMENTS.T
    expected = stats.ttest_ind_from_stats(m_s, s_s, n_s, m_o, s_o, n_o, equal_var=False)
    np.testing.assert_allclose([found.t, found.p], expected, rtol=1e-8)


def test_swapped_groups_turn_the_sign_and_nothing_else():
    turned, found = welch(MOMENTS[:, [3, 4, 5, 0, 1, 2]]), welch(MOMENTS)
    np.testing.assert_allclose(turned.t, -found.t)
    np.testing.assert_allclose(turned.p, found.p)


@pytest.mark.parametrize(
    "row",
    [[0, NAN, NAN, 5, 0.1, 0.2], [1, 0.3, NAN, 5, 0.1, 0.2], [5, 0.3, 0.1, 1, 0.1, NAN], [4, 0.3, 0.0, 4, 0.1, 0.0]],
    ids=["an empty group", "one example", "one other", "no spread"],
)
def test_without_a_spread_of_both_groups_there_is_no_test(row):
    found = welch(np.array([row, MOMENTS[0]]))
    assert np.isnan([found.t[0], found.p[0]]).all()
    assert np.isfinite([found.t[1], found.p[1]]).all()


def test_one_group_without_spread_can_be_tested():
    found = welch(np.array([[4, 0.3, 0.0, 6, 0.1, 0.2]]))
    assert found.p[0] == pytest.approx(2 * stats.t.sf(0.2 / (0.2 / np.sqrt(6)), 5))


def test_seeds_are_the_units_of_the_interval():
    seeds = [MOMENTS + shift * np.array([0, 1, 0, 0, 0, 0]) for shift in (0.0, 0.05, -0.02, 0.01)]
    means, found = [cid(one).mean() for one in seeds], cid_over_seeds(seeds)
    assert found.mean == pytest.approx(np.mean(means))
    assert found.se == pytest.approx(stats.sem(means))
    assert found.n == 4
    expected = stats.t.interval(0.95, 3, np.mean(means), stats.sem(means))
    np.testing.assert_allclose([side.item() for side in found.ci], expected)


def test_probes_without_a_cid_and_seeds_without_probes_are_left_out():
    empty = np.array([[3, 0.2, 0.1, 0, NAN, NAN]])
    assert mean_cid(np.concatenate([MOMENTS, empty])) == pytest.approx(mean_cid(MOMENTS))
    assert np.isnan(mean_cid(empty))
    found = cid_over_seeds([MOMENTS, empty])
    assert (found.mean, found.n) == (pytest.approx(mean_cid(MOMENTS)), 1)
    assert np.isnan(found.se)
    assert np.isnan(cid_over_seeds([]).mean)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape \[5\]"):
        cid(np.zeros(5))
