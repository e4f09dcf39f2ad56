"""Effects before and after fine-tunes: honest choice of settings, intervals, sentences."""

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis.contrasts import holm
from orchestrator.campaigns.debias import tables
from orchestrator.campaigns.debias.choice import reported
from orchestrator.campaigns.debias.effects import EffectGrid, Setting, Variant

PARTS = ("all", "first", "second")
OURS = Variant("ours", "original", ("undo", "reinforce"))
AFTER = Variant("ours_after_hard", "hard_debiased", ("undo", "reinforce"))


def grid(effects, original, parts=PARTS, tests=("career",), settings=None, hard=None, corrected=None):
    """effects [n_corrected, n_settings, n_tests, n_parts, n_seeds], original [n_tests, n_parts, n_seeds]."""
    effects = np.asarray(effects, float)
    settings = settings or [Setting("undo", 10 * (i + 1), 5) for i in range(effects.shape[1])]
    return EffectGrid(tests, corrected or tests, parts, settings, range(effects.shape[-1]), np.asarray(original, float),
                      effects, hard)  # fmt: skip


def one_test(by_part, original=1.0, **more):
    """One test: by_part [n_settings, n_parts, n_seeds]; the original has one effect throughout."""
    by_part = np.asarray(by_part, float)
    return grid(by_part[None, :, None], np.full((1, *by_part.shape[1:]), original), **more)


def noise_only(n_settings, n_seeds, rng):
    """Settings that do nothing: effect 0.3 on every part, with noise apart for the halves and `all` their mean."""
    halves = 0.3 + rng.normal(size=(n_settings, 2, n_seeds)) * 0.4
    return one_test(np.concatenate([halves.mean(axis=1, keepdims=True), halves], axis=1), original=0.3)


def test_held_out_swaps_the_halves_and_averages():
    by_part = [[[0.1, 0.1], [0.05, -0.05], [0.4, 0.6]],  # best on first
               [[0.2, 0.2], [-0.3, -0.5], [0.02, 0.02]],  # best on second
               [[0.01, -0.01], [0.2, 0.2], [0.2, 0.2]]]  # fmt: skip
    found = reported(one_test(by_part), OURS, "career", "held_out")
    np.testing.assert_allclose(found.values, [[0.4, 0.6], [-0.3, -0.5]])
    np.testing.assert_allclose(found.effect, [0.05, 0.05])
    np.testing.assert_allclose(found.abs_effect, [0.35, 0.55])  # halves of opposite sign do not cancel
    assert found.setting == "undo 10 x 5 (on first); undo 20 x 5 (on second)"
    on_test = reported(one_test(by_part), OURS, "career", "chosen")
    np.testing.assert_allclose(on_test.values, [[0.01, -0.01]])
    assert on_test.setting == "undo 30 x 5"


def test_a_choice_for_each_seed_is_never_worse_than_one_for_all():
    by_part = np.random.default_rng(0).normal(size=(6, 3, 8))
    for_all, each = (reported(one_test(by_part), OURS, "career", rule) for rule in ("chosen", "chosen_per_seed"))
    np.testing.assert_allclose(each.abs_effect, np.abs(by_part[:, 0]).min(axis=0))
    assert (each.abs_effect <= for_all.abs_effect).all()
    np.testing.assert_allclose(for_all.abs_effect.mean(), np.abs(by_part[:, 0]).mean(axis=1).min())
    assert [pick.seed for pick in each.picks] == list(range(8))


def test_choosing_on_the_test_finds_debiasing_where_there_is_none_and_held_out_does_not():
    rng = np.random.default_rng(1)
    chosen, held = [], []
    for _ in range(300):
        numbers = noise_only(n_settings=48, n_seeds=1, rng=rng)
        chosen.append(reported(numbers, OURS, "career", "chosen").abs_effect.mean())
        held.append(reported(numbers, OURS, "career", "held_out").abs_effect.mean())
    truth = np.abs(0.3 + 0.4 * rng.normal(size=200_000)).mean()
    assert np.mean(chosen) < 0.03  # 48 settings that do nothing: almost neutral
    assert np.mean(held) == pytest.approx(truth, abs=4 * np.std(held) / np.sqrt(300))


def test_held_out_still_finds_a_setting_that_works():
    rng = np.random.default_rng(2)
    halves = 1.0 + 0.1 * rng.normal(size=(10, 2, 5))
    halves[7] -= 0.9
    found = one_test(np.concatenate([halves.mean(axis=1, keepdims=True), halves], axis=1))
    held = reported(found, OURS, "career", "held_out")
    assert {pick.setting.size for pick in held.picks} == {80}
    rows = tables.effect_contrasts(tables.collect(found, [OURS]), ["original"]).to_dict("records")
    (row,) = [r for r in rows if r["half"] == "held_out"]
    assert row["diff"] == pytest.approx(-0.9, abs=0.1)
    assert "For career, ours is less biased than original" in tables.effect_verdicts([row])[0]


def test_a_test_without_halves_is_held_out_nowhere():
    missing = np.stack([np.full((3, 4), 0.2), np.full((3, 4), np.nan), np.full((3, 4), np.nan)], axis=1)
    original = np.stack([np.ones((1, 4)), np.full((1, 4), np.nan), np.full((1, 4), np.nan)], axis=1)
    for n_parts in (3, 1):
        found = grid(missing[None, :, None, :n_parts], original[:, :n_parts], parts=PARTS[:n_parts])
        held, chosen = (reported(found, OURS, "career", rule) for rule in ("held_out", "chosen"))
        assert np.isnan(held.values).all()
        assert held.setting == ""
        np.testing.assert_array_equal(chosen.effect, 0.2)
        effects = tables.effects(tables.collect(found, [OURS])).set_index(["variant", "half"])
        assert effects.loc[("ours", "held_out"), "n_seeds"] == 0
        assert np.isnan(effects.loc[("original", "halves"), "abs_effect"])
        rows = tables.effect_contrasts(tables.collect(found, [OURS]), ["original"]).to_dict("records")
        assert any("could not be compared" in said for said in tables.effect_verdicts(rows))
        assert tables.settings([held])["size"].isna().all()


def test_a_setting_that_diverged_is_not_chosen_and_a_seed_without_a_start_is_left_out():
    all_words = np.array([[0.0, np.nan, 0.0], [0.3, 0.3, np.nan], [0.5, 0.5, np.nan]])
    original = np.array([[[1.0, 1.0, np.nan]]])
    found = grid(all_words[None, :, None, None], original, parts=("all",))
    chosen = reported(found, OURS, "career", "chosen")
    assert chosen.setting == "undo 20 x 5"
    assert (chosen.picks[0].n_candidates, chosen.picks[0].n_eligible) == (3, 2)
    np.testing.assert_array_equal(chosen.values, [[0.3, 0.3, np.nan]])
    nothing = grid(np.full((1, 2, 1, 1, 2), np.nan), np.ones((1, 1, 2)), parts=("all",))
    assert reported(nothing, OURS, "career", "chosen").picks[0].setting is None


def test_variants_choose_among_their_own_actions_start_and_aim():
    settings = [Setting("undo", 5, 1), Setting("amplify", 5, 1), Setting("undo", 5, 1, "hard_debiased"),
                Setting("amplify", 9, 1)]  # fmt: skip
    effects = np.array([0.4, 0.0, 0.1, -2.0])[None, :, None, None, None] * np.ones((1, 4, 1, 3, 2))
    found = grid(effects, np.ones((1, 3, 2)), settings=settings, hard=np.full((1, 3, 2), 0.5))
    over = Variant("over_biased", "original", ("amplify",), aim="polar")
    chosen = [reported(found, v, "career", "chosen") for v in (OURS, AFTER, over)]
    assert [c.setting for c in chosen] == ["undo 5 x 1", "undo 5 x 1", "amplify 9 x 1"]
    np.testing.assert_array_equal([c.effect[0] for c in chosen], [0.4, 0.1, -2.0])
    table = tables.settings(tables.collect(found, [OURS, AFTER, over]))
    assert list(table.columns) == tables.SETTINGS
    assert list(table[table["variant"] == "ours_after_hard"]["start"].unique()) == ["hard_debiased"]
    assert len(table) == 3 * (2 + 1 + 2)
    with pytest.raises(ValueError, match="have the same name"):
        tables.collect(found, [OURS, OURS])


def test_effects_are_t_intervals_over_seeds_of_effect_and_of_its_size():
    rng = np.random.default_rng(3)
    original = rng.normal(size=(2, 3, 6))
    effects = rng.normal(size=(1, 2, 2, 3, 6))
    found = grid(effects, original, tests=("career", "math"), corrected=("math",))
    frame = tables.effects(tables.collect(found, [OURS]))
    assert list(frame.columns) == tables.EFFECTS
    keyed = frame.set_index(["test", "half", "variant"])
    assert [key for key in keyed.index if key[0] == "career"] == [("career", "all", "original"),
                                                                  ("career", "halves", "original")]  # fmt: skip
    row = keyed.loc[("career", "all", "original")]
    for values, names in ((original[0, 0], ("effect", "ci_low", "ci_high")),
                          (np.abs(original[0, 0]), ("abs_effect", "abs_ci_low", "abs_ci_high"))):  # fmt: skip
        interval = stats.ttest_1samp(values, 0).confidence_interval()
        np.testing.assert_allclose([row[n] for n in names], [values.mean(), *interval])
    halves = keyed.loc[("career", "halves", "original"), "abs_effect"]
    np.testing.assert_allclose(halves, np.abs(original[0, 1:]).mean())


def test_contrasts_pair_by_seed_on_the_same_words():
    rng = np.random.default_rng(4)
    original = rng.normal(size=(1, 3, 5))
    effects = rng.normal(size=(1, 4, 1, 3, 5))
    settings = [Setting("undo", 1, 1), Setting("undo", 2, 1), *[Setting("undo", n, 1, "hard_debiased") for n in (1, 2)]]
    found = grid(effects, original, settings=settings, hard=0.5 * original)
    everything = tables.collect(found, [OURS, AFTER])
    frame = tables.effect_contrasts(everything, ["original", "hard_debiased"])
    assert list(frame.columns) == tables.CONTRASTS
    keyed = frame.set_index(["half", "variant", "baseline"])
    assert len(frame) == 2 * 1 + 3 * 2 * 2
    held = next(e for e in everything if (e.variant, e.half) == ("ours", "held_out"))
    expected = stats.ttest_rel(held.abs_effect, np.abs(original[0, 1:]).mean(axis=0))
    row = keyed.loc[("held_out", "ours", "original")]
    np.testing.assert_allclose(row["p"], expected.pvalue)
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], list(expected.confidence_interval()))
    chosen = next(e for e in everything if (e.variant, e.half) == ("ours_after_hard", "chosen"))
    np.testing.assert_allclose(keyed.loc[("chosen", "ours_after_hard", "hard_debiased"), "diff"],
                               (chosen.abs_effect - 0.5 * np.abs(original[0, 0])).mean())  # fmt: skip
    assert ("all", "hard_debiased", "original") in keyed.index
    for _, family in frame.groupby("half"):
        np.testing.assert_allclose(family["p_holm"], holm(family["p"].to_numpy()))


def test_sentences_name_the_rule_and_its_bias():
    base = {"test": "math", "variant": "ours", "baseline": "original", "ci_low": -0.5, "ci_high": -0.1}
    row = {**base, "half": "held_out", "diff": -0.3, "p_holm": 0.01}
    assert tables.effect_verdicts([row]) == [
        "For math, ours is less biased than original (settings chosen on one half of the words and reported on the "
        "other): difference of |effect| -0.3 [-0.5, -0.1], Holm p 0.01."
    ]
    assert "is more biased than" in tables.effect_verdicts([{**row, "diff": 0.3}])[0]
    assert "which favours the variant" in tables.effect_verdicts([{**row, "half": "chosen"}])[0]
    assert "could not be told apart" in tables.effect_verdicts([{**row, "p_holm": 0.05}])[0]


def test_the_grid_shows_every_test_under_every_correction():
    rng = np.random.default_rng(5)
    original, effects = rng.normal(size=(2, 1, 4)), rng.normal(size=(2, 3, 2, 1, 4))
    effects[1, 2, 0, 0, 3] = np.nan
    found = grid(effects, original, parts=("all",), tests=("career", "math"))
    frame = tables.grid_table(found)
    assert list(frame.columns) == tables.GRID
    assert len(frame) == 2 * 2 * 3
    row = frame[(frame["corrected"] == "math") & (frame["test"] == "career") & (frame["size"] == 30)].iloc[0]
    change = (effects[1, 2, 0, 0] - original[0, 0])[:3]
    np.testing.assert_allclose([row["effect"], row["change"]], [effects[1, 2, 0, 0, :3].mean(), change.mean()])
    np.testing.assert_allclose([row["change_ci_low"], row["change_ci_high"]],
                               list(stats.ttest_1samp(change, 0).confidence_interval()))  # fmt: skip
    assert (row["n_seeds"], row["n_holes"]) == (3, 1)


def test_bad_grids_are_refused():
    good = {"tests": ("a",), "corrected": ("a",), "parts": ("all",), "settings": (Setting("undo", 1, 1),), "seeds": (0,),
            "original": np.ones((1, 1, 1)), "effects": np.ones((1, 1, 1, 1, 1))}  # fmt: skip
    EffectGrid(**good)
    for change, message in [({"tests": ("a", "a")}, "twice"), ({"corrected": ("b",)}, "among the tests"),
                            ({"parts": ("first",)}, "need 'all'"), ({"original": np.ones((1, 1, 2))}, "original has shape"),
                            ({"effects": np.ones((1, 1, 1, 1))}, "effects has shape"),
                            ({"settings": (Setting("undo", 1, 1, "hard_debiased"),)}, "settings start from")]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            EffectGrid(**{**good, **change})
    with pytest.raises(ValueError, match="no start"):
        EffectGrid(**good).before("hard_debiased", "a")
