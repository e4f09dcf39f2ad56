"""What a curve does query by query: levels with and without holes, and the columns made of them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis import tables
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.intervals import estimate
from orchestrator.analysis.over_queries import query_columns, query_levels
from orchestrator.analysis.sign_flips import sign_flip_p


@pytest.fixture
def rng():
    return np.random.default_rng(12)


def holed(rng, n_queries, n_repeats, frac=0.25):
    complete = rng.random((n_queries, n_repeats)) > frac
    complete[:, 0] = complete[0] = True
    return complete


def test_a_level_is_the_plain_mean_over_repeats_without_holes(rng):
    y = rng.normal(size=(2, 3, 7, 4))
    np.testing.assert_allclose(query_levels(y, np.ones((7, 4), bool)), y.mean(axis=-1), rtol=1e-13)


def test_holes_lose_nothing_of_an_additive_table(rng):
    y, complete = rng.normal(size=(8, 1)) + 3 * rng.normal(size=(1, 5)), holed(rng, 8, 5)
    levels = query_levels(np.where(complete, y, np.nan), complete)
    np.testing.assert_allclose(levels, y.mean(axis=1), rtol=1e-11)


def test_levels_average_to_the_mean_of_the_interval(rng):
    y, complete = rng.normal(size=(8, 5)), holed(rng, 8, 5)
    np.testing.assert_allclose(query_levels(y, complete).mean(), estimate(y, complete).mean, rtol=1e-11)


def test_a_query_without_a_cell_has_no_level_and_parts_that_cannot_be_compared_have_none(rng):
    y, complete = rng.normal(size=(5, 4)), np.ones((5, 4), bool)
    complete[2] = False
    levels = query_levels(y, complete)
    np.testing.assert_array_equal(np.isnan(levels), [False, False, True, False, False])
    np.testing.assert_allclose(levels[[0, 1, 3, 4]], y[[0, 1, 3, 4]].mean(axis=1), rtol=1e-13)
    assert np.isnan(query_levels(y[:4], np.kron(np.eye(2), np.ones((2, 2))) > 0)).all()
    assert np.isnan(query_levels(y, np.zeros((5, 4), bool))).all()


def test_one_repeat_is_enough_since_the_seeds_are_given(rng):
    y = rng.normal(size=(9, 1))
    assert query_columns(query_levels(y, np.ones((9, 1), bool)), np.array(1))["p_flip"] == sign_flip_p(y[:, 0])


@pytest.mark.parametrize("predicted", [-1, 1])
def test_the_share_is_of_queries_that_moved_as_predicted(rng, predicted):
    levels = predicted * np.array([1.0, 0.5, 2.0, 0.0, -0.1, np.nan, 0.1])
    found = query_columns(levels, np.array(predicted))
    expected = stats.binomtest(4, 6).proportion_ci(0.95, method="exact")
    assert found["share_moved"] == 4 / 6
    np.testing.assert_allclose([found["share_moved_ci_low"], found["share_moved_ci_high"]], expected)
    assert np.isnan(query_columns(levels, np.array(0))["share_moved"])


def cells(methods, groups, delta, **more):
    delta = np.asarray(delta, float)
    return Cells(
        methods, groups, range(1, delta.shape[2] + 1), range(delta.shape[3]), range(delta.shape[4]), delta, **more
    )


def test_the_tables_judge_each_group_by_its_claim(rng):
    delta = 0.01 * rng.normal(size=(2, 3, 2, 8, 3))
    delta[0] += np.array([-1, 1, 0])[:, None, None, None]
    delta[1, 2] += 1  # random moves everything in `least`
    table = cells(("good", "random"), ("proponents", "opponents", "least"), delta)
    summary = tables.summary(table).set_index(["method", "group"])
    contrasts = tables.contrasts(table).set_index("group")
    for group in ("proponents", "opponents"):
        assert summary.share_moved["good", group] == 1
        assert summary.p_flip["good", group] == 2**-7
    assert np.isnan(summary.share_moved["good", "least"])
    assert (contrasts.share_moved == 1).all()
    assert (contrasts.p_flip == 2**-7).all()
    np.testing.assert_allclose(contrasts["median"]["proponents"], -1, atol=0.05)
    assert (
        contrasts.median_ci_low["proponents"]
        < contrasts["median"]["proponents"]
        < contrasts.median_ci_high["proponents"]
    )


def test_curves_with_other_repeats_are_each_read_over_their_own(rng):
    delta = rng.normal(size=(2, 1, 1, 7, 5))
    delta[0, ..., 3:] = np.nan
    table = cells(("a", "random"), ("proponents",), delta, n_asked=np.array([[3], [5]]))
    summary, contrasts = tables.summary(table), tables.contrasts(table)
    assert summary.p_flip[0] == sign_flip_p(delta[0, 0, 0, :, :3].mean(axis=-1))
    assert summary.p_flip[1] == sign_flip_p(delta[1, 0, 0].mean(axis=-1))
    assert contrasts.p_flip[0] == sign_flip_p((delta[0] - delta[1])[0, 0, :, :3].mean(axis=-1))


def test_a_rare_large_effect_leaves_a_wide_interval_of_the_share(rng):
    """None of 5 queries moved; up to half of all queries may."""
    still = cells(("m", "random"), ("proponents",), np.zeros((2, 1, 1, 5, 3)))
    row = tables.summary(still).iloc[0]
    assert np.isnan([row.ci_low, row.ci_high]).all()
    assert (row.share_moved, row.share_moved_ci_low) == (0, 0)
    assert row.share_moved_ci_high == pytest.approx(1 - 0.025 ** (1 / 5))


def test_one_query_that_moves_much_among_many_that_do_not_is_no_discovery(rng):
    delta = 1e-3 * rng.normal(size=(2, 1, 1, 20, 3))
    delta[0, 0, 0, 4] -= 5
    row = tables.contrasts(cells(("m", "random"), ("proponents",), delta)).iloc[0]
    assert row.p_flip > 0.2
    assert abs(row["median"]) < 0.01
    assert row.ci_low < 0 < row.ci_high


@pytest.mark.parametrize(("n_queries", "n_repeats"), [(5, 3), (10, 3), (20, 2)])
@pytest.mark.parametrize("sd", [(1, 0, 0), (0, 0, 1), (0.3, 1, 0.3), (0, 1, 0.3)])
def test_given_the_seeds_false_alarms_are_at_most_five_percent(n_queries, n_repeats, sd):
    """Seeds are given: what they do to all queries alike is part of the truth, so the null takes their mean away."""
    rng, n = np.random.default_rng([n_queries, n_repeats]), 2000
    seeds = rng.normal(size=(n, 1, n_repeats))
    seeds -= seeds.mean(axis=-1, keepdims=True)
    queries, residual = rng.normal(size=(n, n_queries, 1)), rng.normal(size=(n, n_queries, n_repeats))
    levels = query_levels(sd[0] * queries + sd[1] * seeds + sd[2] * residual, np.ones((n_queries, n_repeats), bool))
    p = np.array([sign_flip_p(x) for x in levels])
    assert (p < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)


def test_what_the_seeds_do_to_all_queries_alike_is_not_told_from_an_effect():
    """The other side of that: sign flips over queries say nothing of other seeds, t does."""
    rng = np.random.default_rng(6)
    y = np.repeat(rng.normal(size=(500, 1, 3)), 10, axis=1) + 0.1 * rng.normal(size=(500, 10, 3))
    flips = np.array([sign_flip_p(x) for x in query_levels(y, np.ones((10, 3), bool))])
    assert (flips < 0.05).mean() > 0.5
    assert (estimate(y).p < 0.05).mean() < 0.1


def test_equal_cells_of_two_methods_move_in_no_direction(rng):
    delta = rng.normal(size=(1, 1, 1, 8, 3)).repeat(2, axis=0)
    row = tables.contrasts(replace(cells(("m", "random"), ("proponents",), delta))).iloc[0]
    assert (row.p_flip, row.share_moved, row["median"]) == (1, 0, 0)
