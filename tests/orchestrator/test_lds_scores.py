"""LDS from predicted sums and measurements: against SciPy, on ridge regression with exact influence, and with holes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from influence.methods.cross_loss_influence import CrossLossInfluence
from influence.methods.random import RandomControl
from influence.methods.random_same_label import RandomSameLabel
from influence.scoring import Scorer
from influence.solvers import Exact
from orchestrator.campaigns.lds import tables
from orchestrator.campaigns.lds.checks import ceiling_check
from orchestrator.campaigns.lds.correlations import ceiling, lds_left_out, rank_correlation, seed_halves
from orchestrator.campaigns.lds.results import complete, holes, judge
from orchestrator.campaigns.lds.subsets import control_scores, predicted_sums, removed_sets
from tests.influence.convex_tasks import Ridge, point, queries_of

IDS = np.array([7, 3, 12, 5, 9, 1, 4, 8])


# --- subsets ---------------------------------------------------------------------------------------------------------


def test_subsets_do_not_depend_on_their_number_or_on_the_order_of_the_rows():
    few, many = removed_sets(IDS, 3, 0.5, 2021), removed_sets(np.sort(IDS)[::-1], 9, 0.5, 2021)
    for one, other in zip(few, many, strict=False):
        np.testing.assert_array_equal(one, other)
    assert len({tuple(sorted(one)) for one in many}) > 5
    assert not np.array_equal(few[0], removed_sets(IDS, 1, 0.5, 2022)[0])


@pytest.mark.parametrize(("fraction", "n_removed"), [(0.5, 4), (0.75, 2), (0.1, 7)])
def test_a_subset_keeps_its_fraction(fraction, n_removed):
    for ids in removed_sets(IDS, 4, fraction, 0):
        assert len(set(ids.tolist())) == n_removed
        assert set(ids.tolist()) < set(IDS.tolist())


def test_the_predicted_sum_is_that_of_the_kept_examples():
    rng = np.random.default_rng(0)
    scores, kept = rng.normal(size=(3, 8)), rng.random((5, 8)) < 0.5
    np.testing.assert_allclose(predicted_sums(scores, kept), scores @ kept.T.astype(float), rtol=1e-12)


def test_random_scores_are_drawn_for_every_query_and_follow_the_train_ids():
    labels = np.zeros(8, np.int64)
    found = control_scores(RandomControl(), IDS, labels, {10: 0, 11: 0}, 5)
    turned = control_scores(RandomControl(), IDS[::-1], labels, {11: 0}, 5)
    assert not np.array_equal(found.scores[0], found.scores[1])
    np.testing.assert_array_equal(turned.scores[0][::-1], found.scores[1])


@pytest.mark.parametrize("query_id", [-5, 0, 2**63 - 1])
def test_any_64_bit_id_of_a_query_has_random_scores(query_id):
    found = control_scores(RandomControl(), IDS, np.zeros(8, np.int64), {query_id: 0}, 5)
    assert np.isfinite(found.scores).all()


def test_the_label_control_counts_the_examples_of_the_label():
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    found = control_scores(RandomSameLabel(), IDS, labels, {10: 1, 11: 0}, 5)
    np.testing.assert_array_equal(found.scores, [labels == 1, labels == 0])


# --- correlations ----------------------------------------------------------------------------------------------------


def test_lds_is_spearmans_correlation_of_sums_with_means_over_repeats():
    rng = np.random.default_rng(0)
    predicted, measured = rng.integers(0, 6, (2, 3, 25)).astype(float), rng.normal(size=(4, 3, 25))
    found = lds_left_out(predicted, measured)
    for m, q in np.ndindex(2, 3):
        expected = spearmanr(predicted[m, q], measured[:, q].mean(axis=0)).statistic
        assert found.levels[m, q] == pytest.approx(expected, abs=1e-12)
        left = np.arange(25) % 20 != 3  # the fourth of 20 blocks
        expected = spearmanr(predicted[m, q, left], measured[1:, q][:, left].mean(axis=0)).statistic
        assert found.values[m, 4, 1, q] == pytest.approx(expected, abs=1e-12)


def test_without_variation_the_correlation_is_zero():
    assert rank_correlation(np.ones(5), np.arange(5.0)) == 0
    assert rank_correlation(np.arange(5.0), np.arange(5.0) ** 3) == 1


@pytest.mark.parametrize(("n_repeats", "n_splits"), [(2, 1), (3, 3), (4, 3), (5, 15), (6, 10)])
def test_every_split_of_the_seeds_into_halves_is_used_once(n_repeats, n_splits):
    splits = seed_halves(n_repeats)
    assert len({frozenset(map(frozenset, split)) for split in splits}) == n_splits == len(splits)
    assert all(len(a) == len(b) == n_repeats // 2 and not set(a) & set(b) for a, b in splits)


@pytest.mark.parametrize("n_repeats", [2, 3, 5])
def test_the_ceiling_is_the_lds_of_the_exact_effects(n_repeats):
    rng = np.random.default_rng(n_repeats)
    effect = rng.normal(size=(30, 400))
    measured = effect + 1.5 * rng.normal(size=(n_repeats, 30, 400))
    judged = judge({"exact": effect}, measured, np.arange(30))
    row = tables.summary(judged).iloc[0]
    assert row["lds"] == pytest.approx(row["ceiling"], abs=0.02)
    assert row["ceiling"] == pytest.approx(np.sqrt(1 / (1 + 1.5**2 / n_repeats)), abs=0.03)
    assert row["ceiling_ci_low"] < row["ceiling"] < row["ceiling_ci_high"] <= 1


@pytest.mark.parametrize("n_repeats", [2, 5])
def test_the_ceiling_is_the_lds_of_the_exact_effects_if_some_queries_are_noisier_than_others(n_repeats):
    rng = np.random.default_rng(n_repeats)
    effect, noise = rng.normal(size=(40, 400)), np.repeat([0.3, 10.0], 20)[:, None]
    measured = effect + noise * rng.normal(size=(n_repeats, 40, 400))
    judged = judge({"exact": effect}, measured, np.arange(40))
    row = tables.summary(judged).iloc[0]
    assert row["lds"] == pytest.approx(row["ceiling"], abs=0.03)
    assert row["ceiling"] == pytest.approx(tables.by_query(judged)["ceiling"].mean(), abs=1e-12)
    assert row["split_half_ci_low"] < row["split_half"] < row["split_half_ci_high"]


@pytest.mark.parametrize(("n_queries", "noise"), [(1, 0.05), (5, 0.0)])
def test_a_ceiling_without_an_interval_does_not_say_that_the_seeds_disagree(n_queries, noise):
    """A single query has no interval over queries, and without noise of the seeds there is no spread."""
    rng = np.random.default_rng(0)
    effect = rng.normal(size=(n_queries, 40))
    measured = effect + noise * rng.normal(size=(2, n_queries, 40))
    table = tables.summary(judge({"exact": effect}, measured, np.arange(n_queries)))
    assert np.isnan(table["ceiling_ci_low"].iloc[0])
    check = ceiling_check(table)
    assert check.status == "passed"
    assert "nan" not in check.sentence


@pytest.mark.parametrize(
    ("n_subsets", "status", "said"),
    [(40, "failed", "do not agree about the subsets"), (8, "caution", "8 subsets are too few to tell")],
)
def test_seeds_that_disagree_about_the_subsets_fail_the_check_if_there_are_enough_subsets(n_subsets, status, said):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 20, n_subsets))
    check = ceiling_check(tables.summary(judge({"exact": rng.normal(size=(20, n_subsets))}, noise, np.arange(20))))
    assert check.status == status
    assert said in check.sentence


def test_halves_that_disagree_have_a_ceiling_of_zero():
    np.testing.assert_array_equal(ceiling(np.array([-0.3, 0.0, 1.0]), 4), [0, 0, 1])


# --- ridge regression ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ridge():
    """LDS tables of exact influence and of random scores, on 40 random halves of ridge regression under 3 seeds of label noise."""
    task = Ridge(n_train=1500, n_test=25)
    train, queries, n_subsets = task.splits["train"], queries_of(task), 40
    scores = Scorer(
        task, [point(task, task.fitted())], queries, {"m": CrossLossInfluence(solver=Exact())}, {"m": None}
    ).score_range(0, len(train))["m"]
    removed = removed_sets(train.ids, n_subsets, 0.5, 2021)
    kept = np.array([~np.isin(train.ids, ids) for ids in removed])
    drawn = control_scores(RandomControl(), train.ids, train.labels, dict.fromkeys(queries.ids.tolist(), 0), 2021)
    measured = np.array([[measure(task, queries, of_subset, seed) for of_subset in kept] for seed in range(3)])
    predicted = {"exact": predicted_sums(scores, kept), "random": predicted_sums(drawn.scores, kept)}
    judged = judge(predicted, measured.transpose(0, 2, 1), queries.ids)
    return tables.summary(judged).set_index("method"), tables.contrasts(judged, ["random"])


def measure(task, queries, kept, seed):
    """Minus the query losses of the ridge regression on the kept examples, whose targets have a little noise of the seed."""
    x, y = task.splits["train"].features, task.targets["train"]
    y = y + 0.1 * np.random.default_rng(seed).normal(size=len(y))
    gram = x[kept].T @ x[kept] / kept.sum() + task.penalty_weight * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x[kept].T @ y[kept] / kept.sum())
    network = task.network(0)
    network.load_state_dict({"weight": torch.as_tensor(weights).view_as(network.weight)})
    return -task.query_losses(network, "test", queries.rows, queries.labels).detach().numpy()


def test_exact_influence_predicts_ridge_regression_on_random_halves(ridge):
    summary, _ = ridge
    assert summary.loc["exact", "lds"] > 0.95
    assert summary.loc["exact", "ci_low"] > 0.9
    assert summary.loc["exact", "ceiling"] > 0.95


def test_random_scores_cover_zero_and_lose_to_exact_influence(ridge):
    summary, contrasts = ridge
    assert summary.loc["random", "ci_low"] < 0 < summary.loc["random", "ci_high"]
    [sentence] = tables.verdicts(contrasts)
    assert sentence.startswith("By LDS, exact is better than random: difference")


# --- holes and odd rows ----------------------------------------------------------------------------------------------


def test_a_subset_without_a_result_in_some_repeat_is_left_out_for_all():
    values = np.random.default_rng(0).normal(size=(3, 8, 2))
    values[1, 4] = np.nan
    measured = complete(values)
    assert measured.subsets.tolist() == [s != 4 for s in range(8)]
    assert measured.values.shape == (3, 2, 7)
    assert holes(values).to_dict("records") == [{"subset": 4, "repeat": 1}]
    judged = judge({"m": np.random.default_rng(1).normal(size=(2, 7))}, measured.values, np.array([5, 6]), n_excluded=1)
    assert tables.summary(judged)[["n_subsets", "n_excluded"]].to_numpy().tolist() == [[7, 1]]


def test_a_repeat_without_any_result_does_not_leave_out_every_subset():
    values = np.random.default_rng(0).normal(size=(3, 8, 2))
    values[2] = np.nan
    assert complete(values).values.shape == (2, 2, 8)


def test_if_nothing_can_be_judged_the_tables_still_name_every_method():
    judged = judge({"m": np.zeros((2, 3)), "n": np.zeros((2, 3))}, np.zeros((2, 2, 3)), np.array([5, 6]))
    assert tables.summary(judged)["method"].tolist() == ["m", "n"]
    assert tables.summary(judged)["lds"].isna().all()
    assert len(tables.by_query(judged)) == len(tables.contrasts(judged, [])) == 0
    assert tables.verdicts(tables.contrasts(judged, [])) == ()


def test_queries_without_scores_or_without_variation_count_for_no_method():
    rng = np.random.default_rng(0)
    measured = rng.normal(size=(2, 4, 9))
    measured[:, 1] = 0.5  # saturated: the same for all subsets
    predicted = {name: rng.normal(size=(4, 9)) for name in ("a", "b")} | {"lost": np.full((4, 9), np.nan)}
    predicted["b"][2] = np.nan
    judged = judge(predicted, measured, np.array([10, 11, 12, 13]))
    assert judged.query_ids.tolist() == [10, 13]
    table = tables.summary(judged).set_index("method")
    assert table["n_queries"].tolist() == [2, 2, 2]
    assert table["lds"].isna().tolist() == [False, False, True]
    contrasts = tables.contrasts(judged, [])
    assert contrasts["p"].isna().tolist() == [False, True, True]
    assert (
        sum("could not be compared with lost: one of them has no scores" in one for one in tables.verdicts(contrasts))
        == 2
    )


def test_many_undecided_comparisons_share_a_sentence():
    rng = np.random.default_rng(3)
    predicted = {f"m{i}": rng.normal(size=(6, 12)) for i in range(5)}
    contrasts = tables.contrasts(judge(predicted, rng.normal(size=(2, 6, 12)), np.arange(6)), ["m4"])
    said = tables.verdicts(contrasts)
    assert len(said) == 2
    assert said[0].startswith("By LDS, none of the 4 methods could be told apart from m4")
    assert said[1].startswith("By LDS, none of the 6 pairs of methods could be told apart")


def test_methods_with_equal_scores_differ_by_nothing():
    rng = np.random.default_rng(0)
    sums = rng.normal(size=(4, 9))
    contrasts = tables.contrasts(judge({"a": sums, "b": sums.copy()}, rng.normal(size=(2, 4, 9)), np.arange(4)), [])
    assert contrasts[["diff", "p", "p_holm"]].to_numpy().tolist() == [[0, 1, 1]]
