"""Selection of settings and the tables of a recipe grid, from trials made up here, against closed forms and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from orchestrator.analysis.contrasts import holm
from orchestrator.campaigns.recipe_grid.selection import Choice, GridSetting, GridTrials, choose
from orchestrator.campaigns.recipe_grid.tables import (
    ACCURACY,
    SETTINGS,
    TRIALS,
    accuracy_table,
    accuracy_verdicts,
    settings_table,
    trials_table,
    unpaired_p,
)

SEEDS = (2021, 2022, 2023, 2024, 2025)
NAN = np.nan
# Table 2 of the paper, TextLen, per seed: fine-tuning, influence tuning
PUBLISHED = np.array([[0.776, 0.752, 0.766, 0.760, 0.746], [0.808, 0.774, 0.796, 0.826, 0.820]])


def settings_of(*arms: str) -> list[GridSetting]:
    return [GridSetting(arm, f"{arm}.{n}", options={"recipe.epochs": n}) for n, arm in enumerate(arms)]


def trials_of(settings, dev, test=None, train=None, outcome=None, failed_below=0.55) -> GridTrials:
    dev = np.asarray(dev, float)
    return GridTrials(
        settings,
        SEEDS[: dev.shape[1]],
        np.full(dev.shape, "ok") if outcome is None else np.array(outcome),
        np.ones(dev.shape) if train is None else np.asarray(train, float),
        dev,
        dev if test is None else np.asarray(test, float),
        failed_below,
    )


def published() -> GridTrials:
    return trials_of(settings_of("finetuning", "influence"), PUBLISHED)


# --- which trials failed -------------------------------------------------------------------------------------------


def test_a_trial_fails_by_its_train_accuracy_alone():
    trials = trials_of(settings_of("a"), [[0.1, 0.9, 0.9]], train=[[0.55, 0.5499, 1.0]])
    assert trials.status.tolist() == [["ok", "failed", "ok"]]


def test_a_trial_that_did_not_end_is_not_called_failed_and_not_used():
    outcome = [["diverged", "quarantined", "ok"]]
    trials = trials_of(settings_of("a"), [[NAN, NAN, 0.5]], train=[[NAN, NAN, 0.9]], outcome=outcome)
    assert trials.status.tolist() == outcome
    assert trials.usable.tolist() == [[False, False, True]]


# --- selection -----------------------------------------------------------------------------------------------------


def test_the_highest_mean_dev_of_trials_that_did_not_fail_is_chosen():
    dev = [[0.8, 0.8, 0.8], [0.9, 0.9, 0.1], [0.7, 0.7, 0.7]]
    train = [[1, 1, 1], [1, 1, 0.5], [1, 1, 1]]
    trials = trials_of(settings_of("a", "a", "a"), dev, train=train)
    assert choose(trials, 2) == [Choice(1, True)]
    assert choose(trials, 3) == [Choice(0, True)]


def test_of_equals_the_first_is_chosen_whatever_the_order_of_seeds():
    dev = np.array([0.03, 0.12, 0.67, 0.65, 0.62])
    first, second = np.stack([dev, dev[::-1]]).sum(axis=1)
    assert first != second  # the same accuracies, added up in another order
    for rows in ([dev, dev[::-1]], [dev[::-1], dev]):
        assert choose(trials_of(settings_of("a", "a"), rows), 3) == [Choice(0, True)]


def test_without_trials_enough_the_setting_with_most_of_them_stands_and_says_so():
    train = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0]]
    trials = trials_of(settings_of("a", "a", "a"), np.full((3, 5), 0.9), train=train)
    assert choose(trials, 3) == [Choice(1, False)]


def test_every_level_has_a_choice_of_its_own():
    settings = [GridSetting("a", "a", None), *(GridSetting("b", f"b.{n}", n % 2) for n in range(4))]
    dev = np.array([[0.5], [0.6], [0.7], [0.9], [0.8]]).repeat(3, axis=1)
    trials = trials_of(settings, dev)
    assert choose(trials, 3) == [Choice(0, True), Choice(3, True), Choice(4, True)]
    assert np.array_equal(
        accuracy_table(trials, choose(trials, 3), "a", [NAN] * 3)["level"], [NAN, 0, 1], equal_nan=True
    )


@given(st.data())
def test_no_test_accuracy_changes_a_choice(data):
    shape = (4, 3)
    fractions = arrays(float, shape, elements=st.integers(0, 8).map(lambda n: n / 8))
    dev, train, test, other = (data.draw(fractions) for _ in range(4))
    settings = settings_of("a", "a", "b", "b")
    chosen = choose(trials_of(settings, dev, test, train), 2)
    assert choose(trials_of(settings, dev, other, train), 2) == chosen
    assert choose(trials_of(settings, dev, data.draw(st.permutations(test.tolist())), train), 2) == chosen
    assert choose(trials_of(settings, dev, np.full(shape, NAN), train), 2) == chosen


@given(st.data())
def test_a_choice_is_in_its_group_and_no_eligible_setting_beats_it(data):
    shape = (5, 4)
    elements = st.integers(0, 16).map(lambda n: n / 16)
    dev, train = (data.draw(arrays(float, shape, elements=elements)) for _ in range(2))
    trials = trials_of(settings_of("a", "b", "a", "b", "a"), dev, train=train)
    for arm, choice in zip("ab", choose(trials, 2), strict=True):
        members = [s for s in range(5) if trials.settings[s].arm == arm]
        means = {s: dev[s, trials.usable[s]].mean() for s in members if trials.usable[s].sum() >= 2}
        assert choice.setting in members
        assert choice.is_eligible == bool(means)
        if means:
            assert means[choice.setting] >= max(means.values()) - 1e-12


# --- tables --------------------------------------------------------------------------------------------------------


def test_accuracy_against_the_baseline_is_what_scipy_says():
    accuracy = accuracy_table(published(), [Choice(0, True), Choice(1, True)], "finetuning", [0.76, 0.8048])
    assert list(accuracy.columns) == ACCURACY
    base, ours = accuracy.to_dict("records")
    paired = stats.ttest_rel(PUBLISHED[1], PUBLISHED[0])
    low, high = paired.confidence_interval()
    assert ours["test"] == pytest.approx(0.8048)
    assert ours["se"] == pytest.approx(stats.sem(PUBLISHED[1]))
    assert (ours["ci_low"], ours["ci_high"]) == pytest.approx(
        stats.t.interval(0.95, 4, 0.8048, stats.sem(PUBLISHED[1]))
    )
    assert ours["diff"] == pytest.approx(0.0448)
    assert (ours["diff_ci_low"], ours["diff_ci_high"]) == pytest.approx((low, high))
    assert ours["p"] == ours["p_holm"] == pytest.approx(paired.pvalue)
    assert ours["p_unpaired"] == pytest.approx(stats.ttest_ind(PUBLISHED[1], PUBLISHED[0]).pvalue)
    assert base["test"] == pytest.approx(0.76)
    assert all(np.isnan(base[name]) for name in ("diff", "diff_se", "p", "p_holm", "p_unpaired"))
    assert (base["paper"], ours["paper"]) == (0.76, 0.8048)


def test_failed_trials_are_in_no_mean_and_no_test_but_counted_and_shown():
    test = np.vstack([PUBLISHED, [0.9, 0.5, 0.8, 0.85, 0.7]])
    train = np.ones((3, 5))
    train[0, 2], train[2, 1] = 0.5, 0.54
    outcome = np.full((3, 5), "ok", dtype="U16")
    outcome[2, 3], test[2, 3], train[2, 3] = "diverged", NAN, NAN
    trials = trials_of(settings_of("finetuning", "influence", "other"), test, train=train, outcome=outcome)
    choices = [Choice(s, True) for s in range(3)]
    base, ours, other = accuracy_table(trials, choices, "finetuning", [NAN] * 3).to_dict("records")
    assert [row["n_failed"] for row in (base, ours, other)] == [1, 0, 2]
    assert {row["n_trials"] for row in (base, ours, other)} == {5}
    both = [0, 1, 3, 4]
    assert ours["diff"] == pytest.approx((test[1] - test[0])[both].mean())
    assert ours["p"] == pytest.approx(stats.ttest_rel(test[1, both], test[0, both]).pvalue)
    assert ours["p_unpaired"] == pytest.approx(stats.ttest_ind(test[1], test[0, both]).pvalue)
    assert other["test"] == pytest.approx(test[2, [0, 2, 4]].mean())
    assert other["test_all"] == pytest.approx(test[2, [0, 1, 2, 4]].mean())  # the failed one too, not the diverged
    assert other["diff"] == pytest.approx((test[2] - test[0])[[0, 4]].mean())
    assert [ours["p_holm"], other["p_holm"]] == pytest.approx(holm(np.array([ours["p"], other["p"]])))
    shown = trials_table(trials)
    assert list(shown.columns) == TRIALS
    assert shown["status"].value_counts().to_dict() == {"ok": 12, "failed": 2, "diverged": 1}
    assert shown.loc[shown["status"] == "failed", "test"].tolist() == [0.766, 0.5]


def test_settings_show_what_selection_looked_at():
    trials = trials_of(settings_of("a", "a"), PUBLISHED, test=PUBLISHED / 2, train=[[1, 1, 0, 1, 1], [1] * 5])
    table = settings_table(trials, [Choice(1, True)])
    assert list(table.columns) == SETTINGS
    first, second = table.to_dict("records")
    kept = PUBLISHED[0, [0, 1, 3, 4]]
    assert (first["dev"], first["dev_se"], first["n_failed"]) == pytest.approx((kept.mean(), stats.sem(kept), 1))
    assert (first["chosen"], second["chosen"]) == (False, True)
    assert second["options"] == '{"recipe.epochs":1}'


def test_the_same_trainings_as_the_baseline_differ_by_nothing():
    trials = trials_of(settings_of("a", "b"), PUBLISHED[[0, 0]])
    row = accuracy_table(trials, [Choice(0, True), Choice(1, True)], "a", [NAN] * 2).iloc[1]
    assert (row["diff"], row["diff_se"], row["p"], row["p_unpaired"]) == (0, 0, 1, pytest.approx(1))


def test_an_arm_without_a_trial_that_fitted_has_no_number_and_takes_part_in_no_correction():
    trials = trials_of(settings_of("a", "b", "c"), PUBLISHED[[0, 1, 1]], train=[[1] * 5, [0] * 5, [1] * 5])
    accuracy = accuracy_table(trials, [Choice(s, True) for s in range(3)], "a", [NAN] * 3)
    lost, found = accuracy.iloc[1], accuracy.iloc[2]
    assert np.isnan([lost[name] for name in ("test", "se", "diff", "p", "p_holm", "p_unpaired")]).all()
    assert lost["test_all"] == pytest.approx(0.8048)
    assert found["p_holm"] == found["p"]


@given(
    arrays(float, st.integers(2, 6), elements=st.floats(0, 1)),
    arrays(float, st.integers(2, 6), elements=st.floats(0, 1)),
)
def test_the_unpaired_p_is_students(a, b):
    a, b = np.append(a, [0.0, 0.5]), np.append(b, [0.25, 1.0])  # some spread: without any, t has no scale
    assert unpaired_p(np.append(a, NAN), b) == pytest.approx(stats.ttest_ind(a, b, equal_var=True).pvalue)


def test_the_unpaired_p_of_too_few_or_of_constants():
    assert np.isnan(unpaired_p(np.array([0.5]), np.array([0.1, 0.9])))
    assert unpaired_p(np.full(3, 0.7), np.full(4, 0.7)) == 1
    assert np.isnan(unpaired_p(np.full(3, 0.7), np.full(3, 0.6)))


def test_levels_that_are_no_numbers_stand_as_text():
    settings = [GridSetting("a", "a"), GridSetting("b", "b.0", "all"), GridSetting("b", "b.1", ["x", 1])]
    level = trials_table(trials_of(settings, [[0.5]] * 3))["level"]
    assert np.isnan(level[0])
    assert level[1:].tolist() == ["all", '["x",1]']


# --- sentences -----------------------------------------------------------------------------------------------------


def sentences(trials: GridTrials, baseline: str) -> list[str]:
    choices = [Choice(s, True) for s in range(len(trials.settings))]
    table = accuracy_table(trials, choices, baseline, [NAN] * len(choices))
    return accuracy_verdicts(table.to_dict("records"), baseline)


def test_verdicts_say_which_way_and_by_how_much():
    base, ours = sentences(published(), "finetuning")
    assert base == "finetuning: test accuracy 0.76 [0.745, 0.775]; the others are compared with it."
    assert ours.startswith(
        "influence: test accuracy 0.805 [0.779, 0.831], better than finetuning: difference +0.0448 ["
    )
    assert ours.endswith("p 0.013 (Holm 0.013).")
    worse, _ = sentences(published(), "influence")
    assert "worse than influence: difference -0.0448" in worse


def test_verdicts_claim_nothing_that_the_p_does_not_carry():
    told = sentences(trials_of(settings_of("a", "b"), [[0.7, 0.8, 0.9], [0.8, 0.9, 0.7]]), "a")
    assert "not distinguishable from a: difference 0 [" in told[1]


def test_verdicts_say_what_was_left_out():
    settings = [GridSetting("a", "a"), GridSetting("b", "b.0", 0.05), GridSetting("b", "b.1", 1.0)]
    trials = trials_of(settings, PUBLISHED[[0, 1, 1], :3], train=[[1, 1, 1], [0, 0, 0], [1, 0, 0]])
    _, lost, lone = sentences(trials, "a")
    assert (
        lost
        == "b at 0.05: none of 3 trials can be used (failed, diverged or quarantined: trials.csv); no test accuracy."
    )
    assert "over the 1 of 3 trials that did not fail" in lone
    assert "could not be compared with a: fewer than two seeds" in lone
