"""How often fine-tunes move an effect as predicted, and the intervals of shares behind it."""

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis.shares import clopper_pearson, clustered_share
from orchestrator.campaigns.debias.directions import DIRECTIONS, direction_verdicts, directions
from orchestrator.campaigns.debias.effects import EffectGrid, Setting


def signs_grid(moves, settings=None):
    """A grid from an original of 1 whose corrected tests move by moves [n_tests, n_settings, n_seeds]."""
    n_tests, n_settings, n_seeds = np.shape(moves)
    effects = np.ones((n_tests, n_settings, n_tests, 1, n_seeds))
    for c in range(n_tests):
        effects[c, :, c, 0] += moves[c]
    tests = tuple(f"t{c}" for c in range(n_tests))
    settings = settings or [Setting("undo", 10 * (i + 1), 5) for i in range(n_settings)]
    return EffectGrid(tests, tests, ("all",), settings, range(n_seeds), np.ones((n_tests, 1, n_seeds)), effects)


def test_directions_count_what_moved_as_predicted():
    moves = np.array([[[-1, -1, 1, 0], [-1, np.nan, -1, -1]], [[1, 1, 1, -1], [-2, -2, -2, -2]]], float)
    settings = [Setting("undo", 5, 1), Setting("amplify", 5, 1)]
    predicted = np.array([-1.0, 1.0])[:, None] * np.ones((1, 4))
    frame = directions(signs_grid(moves, settings), predicted)
    assert list(frame.columns) == DIRECTIONS
    keyed = frame.set_index(["test", "action", "size"])
    wanted = {("t0", "undo", 5): (2, 4), ("t0", "amplify", 5): (0, 3), ("t1", "undo", 5): (1, 4),
              ("t1", "amplify", 5): (0, 4), ("all", "undo", "all"): (3, 8), ("all", "all", "all"): (3, 15)}  # fmt: skip
    assert {key: (keyed.loc[key, "count"], keyed.loc[key, "n"]) for key in wanted} == wanted
    single = keyed.loc[("t0", "undo", 5)]
    np.testing.assert_allclose([single["ci_low"], single["ci_high"]],
                               list(stats.binomtest(2, 4).proportion_ci(method="exact")))  # fmt: skip
    nothing = directions(signs_grid(moves, settings), np.zeros(()))
    assert (nothing["n"] == 0).all()
    assert nothing["share"].isna().all()
    assert all("give no interval" in said for said in direction_verdicts(nothing.to_dict("records")))
    with pytest.raises(ValueError, match="signs"):
        directions(signs_grid(moves, settings), np.full((), 0.5))


def test_clopper_pearson_is_scipys():
    for count, n in [(0, 5), (5, 5), (1, 5), (17, 40)]:
        expected = stats.binomtest(count, n).proportion_ci(method="exact")
        np.testing.assert_allclose(clopper_pearson(count, n), list(expected))
    assert np.isnan(clopper_pearson(0, 0)).all()


@pytest.mark.parametrize(
    ("p", "correlation", "n_units"),
    [(0.5, 0.0, 10), (0.8, 0.3, 10), (0.9, 0.6, 16), (0.97, 0.3, 8), (0.7, 0.9, 5), (0.97, 0.6, 32)],
)
def test_the_interval_of_a_clustered_share_covers_and_the_naive_one_does_not(p, correlation, n_units):
    rng = np.random.default_rng(int(100 * p) + n_units)
    trials, replicates = 12, 2000
    if correlation:
        spread = (1 - correlation) / correlation
        rate = rng.beta(p * spread, (1 - p) * spread, size=(replicates, n_units))
    else:
        rate = np.full((replicates, n_units), p)
    counts = rng.binomial(trials, rate)

    def coverage(interval):
        return np.mean([low <= p <= high for low, high in map(interval, counts)])

    clustered = coverage(lambda c: clustered_share(c, np.full(n_units, trials)))
    assert clustered > 0.95 - 4 * np.sqrt(0.05 * 0.95 / replicates)
    if correlation >= 0.3:
        assert coverage(lambda c: clopper_pearson(c.sum(), trials * n_units)) < clustered - 0.05


def test_clustered_shares_at_their_ends():
    assert clustered_share(np.array([6, 6, 6]), np.array([6, 6, 6])) == clopper_pearson(3, 3)
    assert clustered_share(np.array([0, 0, 0]), np.array([6, 6, 0])) == clopper_pearson(0, 2)  # an empty unit is none
    assert np.isnan(clustered_share(np.array([3]), np.array([6]))).all()
    wide, narrow = clustered_share(np.array([0, 6, 0, 6]), np.full(4, 6)), clustered_share(np.full(4, 3), np.full(4, 6))
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]


def test_evenly_spread_exceptions_do_not_widen_a_clustered_share_but_gathered_ones_do():
    even, gathered = (
        clustered_share(np.array(c), np.full(5, 48)) for c in ([46, 47, 46, 47, 46], [48, 48, 48, 48, 40])
    )
    assert even[1] - even[0] < 0.11
    assert gathered[1] - gathered[0] > 0.5


def test_pooled_intervals_take_seeds_whose_tests_move_together_as_one():
    """Four tests that copy each other are no more evidence than one: the seed's interval does not shrink."""
    rng = np.random.default_rng(6)
    one = np.where(rng.random((1, 5, 8)) < np.array([0.9, 0.3, 1.0, 0.2, 0.9, 1.0, 0.6, 0.1]), -1.0, 1.0)
    rows = [directions(signs_grid(np.repeat(one, n, axis=0)), np.full((), -1.0)).iloc[-1] for n in (1, 4)]
    assert rows[1]["ci_high"] - rows[1]["ci_low"] < rows[0]["ci_high"] - rows[0]["ci_low"]
    assert rows[1]["ci_seed_high"] - rows[1]["ci_seed_low"] > 0.95 * (rows[0]["ci_seed_high"] - rows[0]["ci_seed_low"])
    assert [row["n_units"] for row in rows] == [8, 32]
    assert [row["n_seeds"] for row in rows] == [8, 8]


def test_direction_sentences_follow_the_interval_over_seeds():
    for moves, wanted in [(-np.ones((2, 3, 8)), "more often than not"), (np.ones((2, 3, 8)), "less often than not"),
                          (np.tile([1.0, -1.0], (2, 3, 4)), "which does not tell from one half")]:  # fmt: skip
        said = direction_verdicts(directions(signs_grid(moves), np.full((), -1.0)).to_dict("records"))
        assert len(said) == 2
        assert all(wanted in s for s in said)
        assert "of 48 fine-tunes moved the effect the predicted way" in said[0]
