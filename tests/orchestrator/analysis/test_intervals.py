"""Two-way random-effects estimates against textbook formulas, brute-force least squares and degenerate layouts."""

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis.intervals import MeanEstimate, estimate
from orchestrator.analysis.layout import Layout, mean_squares


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def crossed(rng, n_queries, n_repeats, sd=(1.0, 0.5, 0.7)):
    return (0.3 + sd[0] * rng.normal(size=(n_queries, 1)) + sd[1] * rng.normal(size=(1, n_repeats))
            + sd[2] * rng.normal(size=(n_queries, n_repeats)))  # fmt: skip


def random_holes(rng, n_queries, n_repeats, frac=0.25):
    complete = rng.random((n_queries, n_repeats)) > frac
    complete[:, 0] = complete[0] = True  # connected
    return complete


def residual_sum_of_squares(y, design):
    return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())


def designs(complete):
    queries, repeats = complete.nonzero()
    return np.eye(complete.shape[0])[queries], np.eye(complete.shape[1])[repeats]


def test_full_layout_gives_textbook_mean_squares_and_standard_error(rng):
    y = crossed(rng, 6, 4)
    by_query, by_repeat = y.mean(axis=1, keepdims=True), y.mean(axis=0, keepdims=True)
    ms_q = 4 * ((by_query - y.mean()) ** 2).sum() / 5
    ms_r = 6 * ((by_repeat - y.mean()) ** 2).sum() / 3
    ms_e = ((y - by_query - by_repeat + y.mean()) ** 2).sum() / 15
    found = mean_squares(Layout.of(np.ones((6, 4), bool)), y)
    np.testing.assert_allclose([found.queries, found.repeats, found.residual], [ms_q, ms_r, ms_e], rtol=1e-12)
    result = estimate(y)
    np.testing.assert_allclose(result.mean, y.mean(), rtol=1e-13)
    np.testing.assert_allclose(result.se**2, max(ms_q + ms_r - ms_e, ms_q, ms_r, ms_e) / 24, rtol=1e-12)
    assert min(3, 5) <= result.df <= 5 + 3
    assert (result.n_queries, result.n_repeats) == (6, 4)


def test_fixed_interval_of_a_full_layout_is_the_t_interval_of_the_repeat_means(rng):
    y = crossed(rng, 7, 5)
    expected = stats.ttest_1samp(y.mean(axis=0), 0).confidence_interval(0.95)
    np.testing.assert_allclose(estimate(y).ci_fixed, (expected.low, expected.high), rtol=1e-12)


def test_variance_is_floored_at_the_largest_mean_square():
    y = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])  # interaction only: MS_q = MS_r = 0
    result = estimate(y)
    np.testing.assert_allclose(result.se**2, (4 / 4) / 9)
    assert result.df == 4  # those of the residual


def test_p_agrees_with_the_interval(rng):
    y = crossed(rng, 8, 4) + np.linspace(-3, 3, 200)[:, None, None]
    result = estimate(y)
    low, high = result.ci
    np.testing.assert_array_equal(result.p < 0.05, (low > 0) | (high < 0))
    assert 20 < (result.p < 0.05).sum() < 200


@pytest.mark.parametrize("shape", [(5, 3), (9, 4), (4, 9)])
def test_mean_squares_with_holes_equal_brute_force_reductions(rng, shape):
    y, complete = crossed(rng, *shape), random_holes(rng, *shape)
    queries, repeats = designs(complete)
    both, cells = np.hstack([queries, repeats]), y[complete]
    rss = {name: residual_sum_of_squares(cells, d) for name, d in (("q", queries), ("r", repeats), ("qr", both))}
    layout = Layout.of(complete)
    f_q, f_r, f_e = layout.degrees_of_freedom
    assert (f_q, f_r, f_e) == (shape[0] - 1, shape[1] - 1, len(cells) - np.linalg.matrix_rank(both))
    found = mean_squares(layout, np.where(complete, y, np.nan))
    expected = [(rss["r"] - rss["qr"]) / f_q, (rss["q"] - rss["qr"]) / f_r, rss["qr"] / f_e]
    np.testing.assert_allclose([found.queries, found.repeats, found.residual], expected, rtol=1e-9)


def test_mean_with_holes_counts_every_query_and_repeat_alike(rng):
    complete = random_holes(rng, 8, 5)
    weights = Layout.of(complete).weights
    np.testing.assert_allclose(weights.sum(axis=1), 1 / 8, rtol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=0), 1 / 5, rtol=1e-12)
    assert (weights[~complete] == 0).all()
    y = rng.normal(size=(8, 1)) + rng.normal(size=(1, 5))  # additive: holes lose nothing
    np.testing.assert_allclose(estimate(y, complete).mean, y.mean(), rtol=1e-12)


def test_mean_with_holes_is_the_average_fitted_value(rng):
    y, complete = crossed(rng, 6, 4), random_holes(rng, 6, 4)
    queries, repeats = designs(complete)
    coefficients = np.linalg.lstsq(np.hstack([queries, repeats]), y[complete], rcond=None)[0]
    np.testing.assert_allclose(
        estimate(y, complete).mean, coefficients[:6].mean() + coefficients[6:].mean(), rtol=1e-11
    )


def test_variance_with_holes_is_unbiased_before_the_floor(rng):
    complete, sd = random_holes(rng, 8, 5), (1.0, 0.8, 0.9)
    y = (
        sd[0] * rng.normal(size=(40000, 8, 1))
        + sd[1] * rng.normal(size=(40000, 1, 5))
        + sd[2] * rng.normal(size=(40000, 8, 5))
    )
    layout = Layout.of(complete)
    ms = mean_squares(layout, y)
    excess = layout.c_queries + layout.c_repeats - layout.c_residual
    variance = layout.c_queries * ms.queries + layout.c_repeats * ms.repeats - excess * ms.residual
    exact = sd[0] ** 2 / 8 + sd[1] ** 2 / 5 + sd[2] ** 2 * (layout.weights**2).sum()
    np.testing.assert_allclose(variance.mean(), exact, rtol=0.02)
    np.testing.assert_allclose(estimate(y, complete).mean.var(), exact, rtol=0.03)


def test_cells_left_out_are_never_read(rng):
    y, complete = crossed(rng, 6, 4), random_holes(rng, 6, 4)
    with_nan, with_junk = np.where(complete, y, np.nan), np.where(complete, y, 1e9)
    assert repr(estimate(with_nan, complete)) == repr(estimate(with_junk, complete))


def test_empty_rows_and_columns_do_not_count(rng):
    y = crossed(rng, 6, 5)
    complete = np.ones((6, 5), bool)
    complete[2], complete[:, 4] = False, False
    assert repr(estimate(y, complete)) == repr(estimate(np.delete(np.delete(y, 2, 0), 4, 1)))


def test_a_table_has_the_same_numbers_whatever_stands_beside_it(rng):
    y, complete = rng.normal(size=(3, 4, 9, 5)), random_holes(rng, 9, 5)
    together = estimate(y, complete)
    for index in np.ndindex(3, 4):
        alone = estimate(y[index], complete)
        assert (alone.mean, alone.se, alone.df, alone.se_fixed) == tuple(
            getattr(together, name)[index] for name in ("mean", "se", "df", "se_fixed")
        )


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3e-5])
@pytest.mark.parametrize("holes", [False, True])
def test_constant_table_has_no_spread_and_its_exact_value(rng, value, holes):
    complete = random_holes(rng, 7, 3) if holes else np.ones((7, 3), bool)
    result = estimate(np.full((7, 3), value), complete)
    assert (result.mean, result.se, result.se_fixed) == (value, 0, 0)
    assert result.ci_fixed == (value, value)
    assert np.isnan(result.ci).all()
    assert result.p == (1 if value == 0 else 2**-2)


@pytest.mark.parametrize("shape", [(2, 2), (5, 3), (3, 5), (20, 3), (40, 40)])
@pytest.mark.parametrize("size", [1e-300, 1e-6, 1.0, 1e12])
def test_without_spread_p_is_that_of_a_sign_test_of_the_scarcer_units_whatever_the_size(shape, size):
    result = estimate(np.full(shape, -size))
    assert result.p == 2.0 ** (1 - min(shape))
    assert np.isnan(result.ci).all()


def test_without_spread_every_table_of_a_stack_has_the_floor_of_its_own_units():
    both = MeanEstimate(*(np.array([a, a]) for a in (-1e-6, 0.0, np.nan, 0.0, 2.0)), np.array([5, 9]), np.array([3, 9]))
    np.testing.assert_array_equal(both.p, [2**-2, 2**-8])


def test_a_spread_however_small_is_tested_by_t(rng):
    y = -1e-6 * (1 + 1e-6 * crossed(rng, 5, 3))
    assert estimate(y).p < 1e-6
    assert estimate(y).ci[1] < 0


def test_deterministic_training_leaves_only_query_spread(rng):
    result = estimate(np.repeat(rng.normal(size=(6, 1)), 4, axis=1))
    assert result.se_fixed == 0
    assert result.ci_fixed == (result.mean, result.mean)
    assert result.se > 0
    assert result.df == 5


def test_one_query_says_nothing_of_other_queries(rng):
    y = rng.normal(size=(1, 6))
    result = estimate(y)
    assert np.isnan([result.se, *result.ci, result.p]).all()
    np.testing.assert_allclose(result.se_fixed, stats.sem(y[0]))


def test_one_repeat_says_nothing_of_other_seeds(rng):
    y = rng.normal(size=(6, 1))
    result = estimate(y)
    np.testing.assert_allclose(result.mean, y.mean())
    assert np.isnan([result.se, result.se_fixed, result.p, *result.ci, *result.ci_fixed]).all()


def test_one_cell_is_its_own_mean():
    result = estimate(np.array([[0.25]]))
    assert result.mean == 0.25
    assert np.isnan([result.se, result.se_fixed]).all()


def test_no_cells_give_no_numbers():
    result = estimate(np.full((2, 3, 4), np.nan), np.zeros((3, 4), bool))
    assert np.isnan(result.mean).all()
    assert result.mean.shape == (2,)
    assert (result.n_queries, result.n_repeats) == (0, 0)
    assert np.isnan(result.ci).all()


def test_parts_that_share_no_query_and_no_repeat_give_the_plain_mean_only(rng):
    y = rng.normal(size=(4, 4))
    complete = np.kron(np.eye(2), np.ones((2, 2))) > 0
    result = estimate(y, complete)
    np.testing.assert_allclose(result.mean, y[complete].mean())
    assert np.isnan([result.se, result.se_fixed]).all()


def test_no_residual_degrees_of_freedom_leave_the_interval_open(rng):
    result = estimate(rng.normal(size=(2, 2)), np.array([[True, True], [True, False]]))
    assert np.isnan(result.se)
    assert result.se_fixed > 0
