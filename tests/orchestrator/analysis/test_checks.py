"""Every check fails, asks for caution or passes where it must, and its sentence has the numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from orchestrator.analysis.checks import Check, checks_table, named, standing, worded
from orchestrator.analysis.model_checks import (
    Accuracy,
    accuracy_check,
    broken_models_check,
    repeats_check,
    scoring_models_check,
)
from orchestrator.analysis.query_checks import (
    controls_check,
    leaked_queries_check,
    queries_check,
    random_sets_check,
    saturated_queries_check,
    scores_check,
    wrong_queries_check,
)

VERDICT = "For proponents, tracin beats random: difference -0.1."


def accuracy_of(accuracies, counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return Accuracy.of("reference models", "test", accuracies, labels)


# --- accuracy --------------------------------------------------------------------------------------------------------


def test_models_no_better_than_the_largest_class_fail_and_every_verdict_says_so():
    check = accuracy_check([accuracy_of([0.27, 0.27], (137, 135, 128))])
    assert check.status == "failed"
    assert check.sentence == (
        "The reference models are right on 27.0% of the 400 measured examples of split test (95% interval 22.7% to 31.6%). "
        "This is no better than always answering the largest class (34.2%)."
    )
    (said,) = worded([VERDICT], [check, queries_check(2)])
    assert said == (f"Not to be relied on: accuracy 27.0%, no better than the largest class at 34.2%. {VERDICT}")


def test_the_interval_is_that_of_a_binomial_share():
    one = accuracy_of([0.27], (137, 135, 128))
    exact = binomtest(108, 400).proportion_ci(0.95, "exact")
    assert one.interval == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert accuracy_of([0.2, 0.4], (50, 50)).right == pytest.approx(30)


@pytest.mark.parametrize(
    ("accuracy", "counts", "status"),
    [
        (0.95, (90, 80, 75), "passed"),
        (0.36, (137, 135, 128), "failed"),  # above the largest class, and 400 examples cannot tell it from that
        (0.91, (360, 40), "failed"),  # 91% where 90% are one class
        (0.95, (360, 40), "passed"),
        (0.75, (4, 4), "caution"),  # 6 of 8: too few examples to tell
        (0.5, (4, 4), "caution"),  # 4 of 8 show neither that models are at chance nor that they are not
        (0.4, (15, 15), "failed"),
        (1.0, (4, 4), "passed"),
        (0.05, (50, 50), "failed"),  # worse than chance is no better than chance
    ],
)
def test_accuracy_is_judged_by_its_interval_against_the_largest_class(accuracy, counts, status):
    assert accuracy_check([accuracy_of([accuracy], counts)]).status == status


def test_the_worst_of_several_kinds_of_model_decides_unless_any_will_do():
    good, bad = accuracy_of([0.9], (100, 100)), accuracy_of([0.4], (100, 100))
    assert accuracy_check([good, bad]).status == "failed"
    assert accuracy_check([good, bad], any_will_do=True).status == "caution"
    assert accuracy_check([bad, bad], any_will_do=True).status == "failed"
    assert accuracy_check([good, good], any_will_do=True).status == "passed"


def test_without_anything_to_be_right_about_accuracy_is_not_checked():
    assert accuracy_check([], "no classes") == Check("accuracy", "not_checked", "no classes")


# --- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "status"), [(1, "caution"), (4, "caution"), (5, "passed"), (15, "passed")])
def test_fewer_than_five_queries_or_repeats_ask_for_caution(n, status):
    assert queries_check(n).status == repeats_check(n).status == status
    there = f"There is {n} " if n == 1 else f"There are {n} "
    assert queries_check(n).sentence.startswith(there)
    assert repeats_check(n).sentence.startswith(there)


def test_queries_and_repeats_that_a_verdict_rests_on_are_told_beside_those_asked():
    few, most = queries_check(2, 20), queries_check(18, 20)
    assert (few.status, most.status) == ("caution", "passed")
    assert few.sentence.startswith("A verdict rests on 2 queries of 20 asked, fewer than 5")
    assert most.sentence == "A verdict rests on 18 queries of 20 asked."
    assert few.numbers == {"n_queries": 2, "n_asked": 20, "at_least": 5}
    repeats = repeats_check(1, n_asked=10)
    assert repeats.status == "caution"
    assert repeats.sentence.startswith("A verdict rests on 1 repeat of 10 asked, fewer than 5")
    assert queries_check(7, 7) == queries_check(7)
    assert repeats_check(7, n_asked=7) == repeats_check(7)


def test_one_scoring_model_asks_for_caution_unless_the_question_is_about_that_model():
    assert scoring_models_check(1, judges_own_model=False).status == "caution"
    assert scoring_models_check(3, judges_own_model=False).status == "passed"
    assert scoring_models_check(1, judges_own_model=True).status == "not_checked"


# --- queries ---------------------------------------------------------------------------------------------------------


def test_queries_that_most_models_get_wrong_are_counted_and_many_ask_for_caution():
    check = wrong_queries_check(np.array([1.0, 0.5, 0.0, 0.6]), [10, 11, 12, 13])
    assert check.status == "caution"
    assert check.numbers["query_ids"] == [10, 13]
    assert "2 of 4 queries wrongly (queries 10, 13)" in check.sentence
    assert wrong_queries_check(np.array([1.0, 0.5, 0.0, 0.2]), [10, 11, 12, 13]).status == "passed"
    assert wrong_queries_check(np.ones(4), [1, 2, 3, 4], asked_for=True).status == "passed"


def test_queries_at_a_ceiling_or_a_floor_are_counted_and_many_ask_for_caution():
    check = saturated_queries_check(np.array([0.9995, 0.0002, 0.5, 0.999]), [10, 11, 12, 13])
    assert check.status == "caution"
    assert (check.numbers["n_ceiling"], check.numbers["n_floor"]) == (1, 1)
    assert "2 of 4 queries (queries 10, 11)" in check.sentence
    assert saturated_queries_check(np.array([0.9995, 0.5, 0.5, 0.5]), [1, 2, 3, 4]).status == "passed"


def test_a_query_in_the_train_set_asks_for_caution():
    check = leaked_queries_check({12: [44, 45]}, 3, "the same words")
    assert check.status == "caution"
    assert "1 of 3 queries" in check.sentence
    assert "query 12 is there as train examples 44, 45" in check.sentence
    assert leaked_queries_check({}, 3, "the same words").status == "passed"


def test_many_copies_of_a_query_are_counted_and_not_all_listed():
    check = leaked_queries_check({1: range(100), 2: range(5000)}, 2, "the same words")
    assert check.numbers["n_copies"] == {"2": 5000}
    assert check.numbers["copies"] == {"1": list(range(100)), "2": list(range(100))}


def test_sentences_have_the_ids_that_the_data_give():
    names, train_names = {2**62: "q-1", 2**62 + 1: "q-2"}, {2**61: "t-1"}
    ids = list(names)
    for check in (
        wrong_queries_check(np.ones(2), ids, names=names),
        saturated_queries_check(np.ones(2), ids, names),
        leaked_queries_check({ids[0]: [2**61], ids[1]: [2**61]}, 2, "the same words", names, train_names),
    ):
        assert "queries q-1, q-2" in check.sentence
        assert str(2**62)[:6] not in check.sentence
    assert "query q-1 is there as train example t-1." in check.sentence
    assert check.numbers["copies"] == {str(one): [2**61] for one in ids}


# --- controls, removals, scores --------------------------------------------------------------------------------------


def summary_row(method, low, high, fixed_low=-1.0, fixed_high=1.0):
    numbers = {"ci_low": low, "ci_high": high, "ci_fixed_low": fixed_low, "ci_fixed_high": fixed_high}
    return {"method": method, "group": "proponents", "auc_del": (low + high) / 2, **numbers}


def test_a_control_whose_own_interval_excludes_zero_asks_for_caution():
    still, judged = summary_row("random", -0.1, 0.2), summary_row("tracin", -0.3, -0.1)
    assert controls_check([still, judged], ["random"]).status == "passed"
    moved = controls_check([summary_row("random", -0.3, -0.1), judged], ["random"])
    assert moved.status == "caution"
    assert "random, proponents: -0.2 [-0.3, -0.1]" in moved.sentence
    assert "tracin" not in moved.sentence
    fixed = controls_check([summary_row("random", -0.1, 0.2, 0.01, 0.09)], ["random"])
    assert fixed.status == "caution"
    assert "[0.01, 0.09]" in fixed.sentence


def test_controls_without_an_interval_have_not_passed():
    nan = float("nan")
    blank, still = summary_row("random", nan, nan, nan, nan), summary_row("random", -0.1, 0.2)
    assert controls_check([blank], ["random"]).status == "not_checked"
    assert controls_check([], ["random"]).status == "not_checked"
    assert controls_check([{**blank, "auc_del": -3.88}] * 2, ["random"]).status == "not_checked"
    assert controls_check([summary_row("random", nan, nan, -0.1, 0.1)], ["random"]).status == "passed"
    some = controls_check([still, {**blank, "group": "opponents"}], ["random"])
    assert some.status == "caution"
    assert "no interval for random, opponents" in some.sentence
    both = controls_check([summary_row("random", -0.3, -0.1), {**blank, "group": "opponents"}], ["random"])
    assert both.status == "caution"
    assert "random, proponents: -0.2" in both.sentence
    assert "no interval for random, opponents" in both.sentence


def test_random_sets_without_an_interval_have_not_passed():
    names = {"test": "all", "start": "original", "action": "random both", "share": 0.9}
    blank = {**names, "ci_seed_low": float("nan"), "ci_seed_high": float("nan")}
    still = {**names, "action": "random up", "ci_seed_low": 0.4, "ci_seed_high": 0.99}
    assert random_sets_check([blank], ["random"]).status == "not_checked"
    assert random_sets_check([], ["random"]).status == "not_checked"
    some = random_sets_check([still, blank], ["random"])
    assert some.status == "caution"
    assert "no interval for random both from original" in some.sentence


def test_a_campaign_without_a_control_asks_for_caution():
    assert controls_check([summary_row("tracin", -0.3, -0.1)], []).status == "caution"
    assert random_sets_check([], []).status == "caution"


def test_random_sets_that_move_the_effect_ask_for_caution():
    names = {"test": "all", "start": "original", "action": "random both", "share": 0.9}
    moved = random_sets_check([{**names, "ci_seed_low": 0.6, "ci_seed_high": 0.99}], ["random"])
    assert moved.status == "caution"
    assert "random both from original: share 0.9 [0.6, 0.99]" in moved.sentence
    still = {**names, "ci_seed_low": 0.4, "ci_seed_high": 0.99}
    for other in (
        {**names, "action": "both", "ci_seed_low": 0.6, "ci_seed_high": 0.99},
        {**names, "test": "one", "ci_seed_low": 0.6, "ci_seed_high": 0.99},
    ):
        assert random_sets_check([still, other], ["random"]).status == "passed"


def test_removals_that_lower_the_accuracy_on_everything_ask_for_caution():
    drops = {
        ("tracin", "proponents", 10): 0.01,
        ("tracin", "proponents", 200): 0.123,
        ("random", "opponents", 200): 0.04,
    }
    check = broken_models_check(drops, "test")
    assert check.status == "caution"
    assert check.numbers["broken"] == [["tracin", "proponents", 200, 0.123]]
    assert "tracin, proponents, k 200: 12.3 points" in check.sentence
    assert broken_models_check({("tracin", "proponents", 10): 0.05}, "test").status == "passed"
    assert broken_models_check({("tracin", "proponents", 10): float("nan")}, "test").status == "not_checked"


def test_scores_that_rank_nothing_ask_for_caution():
    nan, ranks = np.full((1, 3), np.nan), np.array([[1.0, 2.0, 3.0]])
    check = scores_check([("cg", np.concatenate([nan, ranks])), ("tfidf", np.zeros((2, 3))), ("good", ranks)])
    assert check.status == "caution"
    assert "cg has no scores for 1 of 2 queries" in check.sentence
    assert "tfidf gives every training example the same score for 2 of 2 queries" in check.sentence
    assert "good" not in check.sentence
    assert scores_check([("good", ranks), ("good", -ranks)]).status == "passed"
    assert scores_check([]).status == "not_checked"


# --- what is made of them --------------------------------------------------------------------------------------------


def test_a_caution_leaves_the_words_of_a_verdict_as_they_are():
    assert worded([VERDICT], [queries_check(2)]) == (VERDICT,)


def test_a_check_that_fails_without_a_reason_is_refused():
    with pytest.raises(ValueError, match="accuracy failed, but its reason is empty"):
        Check("accuracy", "failed", "wrong")


def test_how_the_checks_stand_is_one_sentence():
    checks = [queries_check(2), repeats_check(2), queries_check(9), accuracy_check([], "none")]
    assert standing(checks) == "Of 4 checks, 2 ask for caution, 1 passed, 1 does not apply (checks.csv)."
    assert standing([]) == ""


def test_the_table_holds_the_numbers_as_json_that_any_reader_takes():
    numbers = {"a": np.float64("nan"), "b": np.int64(3), "c": [np.float32(0.5), float("inf")], "d": {"e": (1,)}}
    table = checks_table([Check("one", "passed", "Fine.", numbers)])
    assert json.loads(table["numbers"][0]) == {"a": None, "b": 3, "c": [0.5, None], "d": {"e": [1]}}


def test_many_ids_are_cut_short():
    assert named([3]) == "query 3"
    assert named(list(range(8))) == "queries 0, 1, 2, 3, 4 and 3 more"
