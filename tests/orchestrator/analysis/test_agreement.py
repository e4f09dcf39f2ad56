"""Agreement of predicted with measured influence: closed forms, holes, intervals over units, contrasts, sentences."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from orchestrator.analysis.contrasts import holm
from orchestrator.analysis.units import over_units
from orchestrator.campaigns.leave_one_out import tables
from orchestrator.campaigns.leave_one_out.agreement import POINTS, Comparison, points

MATCHED, CROSS = ("matched", "nll", "nll"), ("cross", "dec", "nll")


def comparison(predicted, actual, unit="0", key=MATCHED, classes=None, ids=None):
    n = len(predicted)
    classes = np.zeros(n, int) if classes is None else classes
    return Comparison(*key, unit, np.asarray(predicted, float), np.asarray(actual, float), np.asarray(classes),
                      np.arange(n) if ids is None else np.asarray(ids))  # fmt: skip


def with_r(r, unit="0", key=MATCHED, classes=None, ids=None):
    """A comparison whose queries have exactly the Pearson correlations r."""
    r = np.asarray(r, float)[:, None]
    a, b = np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])
    return comparison(r * a + np.sqrt(1 - r**2) * b, np.tile(a, (len(r), 1)), unit, key, classes, ids)


def test_every_query_number_matches_scipy():
    rng = np.random.default_rng(0)
    actual = rng.normal(size=(6, 30))
    predicted = np.round(3 * actual + rng.normal(size=actual.shape), 1)  # rounded: ties
    found = points([comparison(predicted, actual, classes=range(6), ids=range(10, 16))])
    assert list(found.columns) == POINTS
    assert list(found["query_id"]) == list(range(10, 16))
    for row, p, a in zip(found.to_dict("records"), predicted, actual, strict=True):
        np.testing.assert_allclose(row["r"], stats.pearsonr(p, a)[0], rtol=1e-12)
        np.testing.assert_allclose(row["rho"], stats.spearmanr(p, a)[0], rtol=1e-12)
        np.testing.assert_allclose(row["slope"], stats.linregress(a, p)[0], rtol=1e-12)
        np.testing.assert_allclose(row["over"], np.sqrt((p**2).mean() / (a**2).mean()), rtol=1e-12)


def test_holes_on_either_side_leave_out_only_their_pairs():
    rng = np.random.default_rng(1)
    predicted, actual = rng.normal(size=(2, 3, 12))
    holed_p, holed_a = predicted.copy(), actual.copy()
    holed_p[0, 3], holed_a[0, [5, 7]], holed_p[1, 2] = np.nan, np.nan, np.inf
    found = points([comparison(holed_p, holed_a)])
    for q, left in enumerate([[3, 5, 7], [2], []]):
        p, a = np.delete(predicted[q], left), np.delete(actual[q], left)
        np.testing.assert_allclose(found["r"][q], stats.pearsonr(p, a)[0], rtol=1e-12)
        np.testing.assert_allclose(found["rho"][q], stats.spearmanr(p, a)[0], rtol=1e-12)
    assert list(found["n_pairs"]) == [9, 11, 12]
    assert tables.agreement_units(found)["n_holes"][0] == 4


def test_scale_and_shift_change_slope_but_not_correlation():
    rng = np.random.default_rng(2)
    predicted, actual = rng.normal(size=(2, 4, 20))
    plain, moved = points([comparison(predicted, actual)]), points([comparison(1e220 * predicted, actual - 3)])
    np.testing.assert_allclose(moved[["r", "rho"]], plain[["r", "rho"]], rtol=1e-9)
    np.testing.assert_allclose(moved["slope"], 1e220 * plain["slope"], rtol=1e-9)
    assert np.isfinite(moved["over"]).all()


def test_queries_without_correlation_are_counted_and_fail_the_threshold():
    line = np.arange(5.0)
    nan = np.full(5, np.nan)
    two = np.array([1, 2, np.nan, np.nan, np.nan])
    flat = np.full(5, 0.1)
    found = points([comparison([line, nan, two, flat, line], [line, line, line, line, 0.3 + 0 * flat])])
    np.testing.assert_array_equal(np.isnan(found["r"]), [False, True, True, True, True])
    np.testing.assert_array_equal(found["diverged"], [False, True, False, False, False])
    (unit,) = tables.agreement_units(found).to_dict("records")
    assert (unit["n_queries"], unit["n_diverged"], unit["n_undefined"], unit["n_holes"]) == (5, 1, 3, 3)
    assert unit["mean_r"] == pytest.approx(1)
    assert unit["share_above"] == pytest.approx(1 / 5)


def test_what_varies_by_rounding_alone_has_no_correlation():
    line = np.arange(6.0)
    nearly_flat = 0.3 + np.array([0, 1, 0, 1, 1, 0]) * np.spacing(0.3)
    found = points([comparison([nearly_flat, line], [line, nearly_flat])])
    assert found["r"].isna().all()
    np.testing.assert_allclose(found["slope"], [0, np.nan])


def test_over_estimation_is_a_ratio_of_sizes_taken_over_all_queries():
    rng = np.random.default_rng(3)
    actual = rng.normal(size=(10, 40))
    factors = np.array([0.1, 0.5, 1, 1, 2, 3, 9, 11, 40, 500])
    signs = rng.choice([-1, 1], size=actual.shape)  # the sign does not matter
    found = points([comparison(factors[:, None] * actual * signs, actual)])
    (row,) = tables.agreement(found).to_dict("records")
    np.testing.assert_allclose(found["over"], factors, rtol=1e-12)
    np.testing.assert_allclose([row["over_median"], row["over_p90"]], np.quantile(factors, [0.5, 0.9]), rtol=1e-12)
    assert row["over_10x"] == pytest.approx(0.3)


def test_class_share_is_the_mean_of_the_classes_not_of_the_queries():
    r = [0.9, 0.9, 0.9, 0.1, 0.9, 0.1]
    found = points([with_r(r, classes=[0, 0, 0, 0, 2, 7])])
    (unit,) = tables.agreement_units(found).to_dict("records")
    assert unit["share_above"] == pytest.approx(4 / 6)
    assert unit["class_share"] == pytest.approx((3 / 4 + 1 + 0) / 3)
    by_class = tables.agreement_classes(found)
    assert list(by_class.columns) == tables.CLASSES
    assert by_class[["class", "share_above", "n_queries"]].values.tolist() == [[0, 0.75, 4], [2, 1, 1], [7, 0, 1]]
    assert tables.agreement_units(found, threshold=0.05)["class_share"][0] == 1


def test_the_table_is_the_t_interval_over_units_whatever_their_sizes():
    rng = np.random.default_rng(4)
    rs = [rng.uniform(0.5, 1, size=n) for n in (5, 50, 8)]
    found = points([with_r(r, str(u), classes=np.arange(len(r)) % 2) for u, r in enumerate(rs)])
    (row,) = tables.agreement(found).to_dict("records")
    means = [r.mean() for r in rs]
    half = stats.t.ppf(0.975, 2) * np.std(means, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose([row["mean_r"], row["ci_low"], row["ci_high"]],
                               [np.mean(means), np.mean(means) - half, np.mean(means) + half], rtol=1e-9)  # fmt: skip
    shares = [np.mean([(r[c::2] >= 0.8).mean() for c in (0, 1)]) for r in rs]
    np.testing.assert_allclose([row["class_share"], row["class_share_sd"]], [np.mean(shares), np.std(shares, ddof=1)])
    assert (row["n_units"], row["n_queries"], row["threshold"]) == (3, 63, 0.8)
    assert list(tables.agreement(found).columns) == tables.AGREEMENT


def test_one_unit_has_no_interval():
    (row,) = tables.agreement(points([with_r([0.5, 0.9])])).to_dict("records")
    assert row["mean_r"] == pytest.approx(0.7)
    low_high = [name for name in row if name.endswith(("_low", "_high", "_sd"))]
    assert len(low_high) == 7
    assert np.isnan([row[name] for name in low_high]).all()


def test_a_unit_without_any_correlation_enters_the_share_but_not_the_mean():
    nothing = comparison(np.full((2, 4), np.nan), np.ones((2, 4)), "1")
    (row,) = tables.agreement(points([with_r([0.9, 0.9]), nothing])).to_dict("records")
    assert row["mean_r"] == pytest.approx(0.9)
    assert np.isnan(row["ci_low"])
    assert row["share_above"] == pytest.approx(0.5)
    assert (row["n_units"], row["n_diverged"]) == (2, 2)


def test_intervals_over_units_cover_the_mean_correlation():
    rng = np.random.default_rng(5)
    values = 0.6 + 0.1 * rng.normal(size=(4000, 6))
    values[::3, 0] = np.nan
    low, high = over_units(values).ci
    assert ((low <= 0.6) & (high >= 0.6)).mean() == pytest.approx(0.95, abs=4 * np.sqrt(0.05 * 0.95 / 4000))
    zero = over_units(values - 0.6).p
    assert (zero < 0.05).mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 4000))


def test_means_over_units_match_scipy_and_say_what_they_lack():
    x = np.array([[0.1, 0.5, 0.4, np.nan], [0.3, 0.3, 0.3, 0.3], [0.7, np.nan, np.nan, np.nan], [np.nan] * 4])
    found = over_units(x)
    expected = stats.ttest_1samp(x[0, :3], 0)
    np.testing.assert_allclose([found.mean[0], found.p[0]], [x[0, :3].mean(), expected.pvalue])
    np.testing.assert_allclose([c[0] for c in found.ci], list(expected.confidence_interval()))
    np.testing.assert_array_equal(found.n, [3, 4, 1, 0])
    assert (found.mean[1], found.se[1], found.p[1]) == (0.3, 0, 2**-3)
    assert np.isnan([c[1] for c in found.ci]).all()
    np.testing.assert_array_equal(np.isnan(found.se), [False, False, True, True])
    assert (found.mean[2], np.isnan(found.mean[3]), np.isnan(found.p[2])) == (0.7, True, True)
    assert over_units(np.zeros(3)).p == 1
    assert np.isnan(over_units(np.zeros((2, 0))).mean).all()


def test_contrasts_cancel_what_a_unit_shares():
    rng = np.random.default_rng(6)
    given = []
    for unit in range(6):
        level = rng.uniform(0.2, 0.6)  # units differ far more than the methods
        noise = 0.01 * rng.normal(size=(2, 12))
        given += [with_r(level + noise[0], str(unit)), with_r(level + 0.05 + noise[1], str(unit), CROSS)]
    frame = tables.agreement_contrasts(points(given), [(CROSS, MATCHED)])
    assert list(frame.columns) == tables.CONTRASTS
    assert list(frame["statistic"]) == list(tables.STATISTICS)
    row = frame.iloc[0]
    units = tables.agreement_units(points(given)).pivot(index="unit", columns="label", values="mean_r")
    expected = stats.ttest_rel(units["cross"], units["matched"])
    np.testing.assert_allclose([row["diff"], row["p"]], [(units["cross"] - units["matched"]).mean(), expected.pvalue])
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], list(expected.confidence_interval()))
    assert row["p"] < 1e-3
    assert (row["n_units"], row["n_queries"]) == (6, 72)


def test_contrasts_of_mean_r_use_the_queries_that_both_have():
    """A method is not better for having no answer where the question is hard."""
    given = []
    for unit in ("0", "1", "2"):
        hard = np.array([0.9, 0.9, 0.1, 0.1])
        given.append(with_r(hard, unit, ids=[0, 1, 2, 3]))
        easy = with_r(hard, unit, CROSS, ids=[0, 1, 2, 3])
        predicted = np.where([[False], [False], [True], [True]], np.nan, easy.predicted)
        order = [3, 1, 0, 2]  # another order of queries, and one that only one side has
        given.append(comparison(np.r_[predicted[order], easy.predicted[:1]],
                                np.r_[easy.actual[order], easy.actual[:1]], unit, CROSS, ids=[3, 1, 0, 2, 9]))  # fmt: skip
    found = points(given)
    averages = tables.agreement(found).set_index("label")["mean_r"]
    assert averages["cross"] - averages["matched"] == pytest.approx(0.4)
    frame = tables.agreement_contrasts(found, [(CROSS, MATCHED)]).set_index("statistic")
    assert frame["diff"]["mean_r"] == pytest.approx(0, abs=1e-12)
    assert frame["n_queries"]["mean_r"] == 6
    assert frame["diff"]["share_above"] == 0
    assert frame["n_queries"]["share_above"] == 12
    back = tables.agreement_contrasts(found, [(MATCHED, CROSS)])
    np.testing.assert_allclose(back["diff"], 0, atol=1e-12)


def test_identical_comparisons_differ_by_exactly_nothing():
    given = [with_r([0.3, 0.9], u, key) for u in "01" for key in (MATCHED, CROSS)]
    frame = tables.agreement_contrasts(points(given), [(CROSS, MATCHED)])
    assert (frame[["diff", "se"]].to_numpy() == 0).all()
    assert frame[["ci_low", "ci_high"]].isna().all(axis=None)
    assert (frame[["p", "p_holm"]].to_numpy() == 1).all()
    assert all(
        "difference 0 [no interval: no spread]" in said for said in tables.agreement_verdicts(frame.to_dict("records"))
    )


def test_holm_goes_over_the_pairs_of_one_statistic():
    rng = np.random.default_rng(7)
    keys = [("m", s, t) for s in ("a", "b") for t in ("x", "y")]
    given = [
        with_r(rng.uniform(0.4, 0.99, 9), str(u), key, classes=np.arange(9) // 3) for u in range(4) for key in keys
    ]
    pairs = [(keys[0], other) for other in keys[1:]]
    frame = tables.agreement_contrasts(points(given), pairs)
    assert len(frame) == 9
    for _, family in frame.groupby("statistic"):
        np.testing.assert_allclose(family["p_holm"], holm(family["p"].to_numpy()))


def test_sentences_say_better_worse_undecided_and_unknown():
    rng = np.random.default_rng(8)
    levels = {MATCHED: 0.5, CROSS: 0.7, ("same", "nll", "nll"): 0.5}
    given = [with_r(level + 0.02 * rng.normal(size=8), str(u), key) for u in range(5) for key, level in levels.items()]
    pairs = [(CROSS, MATCHED), (MATCHED, CROSS), (("same", "nll", "nll"), MATCHED)]
    frame = tables.agreement_contrasts(points(given), pairs)
    rows = frame[frame["statistic"] == "mean_r"].to_dict("records")
    better, worse, same = tables.agreement_verdicts(rows)
    assert better.startswith(
        "By mean r, cross (dec against nll) agrees better with retraining than matched (nll against"
    )
    assert "agrees worse with retraining than cross" in worse
    assert "same (nll against nll) and matched (nll against nll) could not be told apart: difference" in same
    assert f"difference {rows[0]['diff']:.3g} [{rows[0]['ci_low']:.3g}, {rows[0]['ci_high']:.3g}], Holm p " in better
    lonely = tables.agreement_contrasts(points(given[:2]), pairs[:1]).to_dict("records")
    assert all(s.endswith("fewer than two units in common.") for s in tables.agreement_verdicts(lonely))
    assert "share of queries with r at or above 0.8 by class" in tables.agreement_verdicts(lonely)[2]


def test_bad_input_is_refused():
    good = with_r([0.5, 0.6])
    with pytest.raises(ValueError, match="twice in one unit"):
        points([good, good])
    with pytest.raises(ValueError, match="predicted has shape"):
        comparison(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="classes has shape"):
        comparison(np.ones((2, 3)), np.ones((2, 3)), classes=[1])
    with pytest.raises(ValueError, match="a query occurs twice"):
        comparison(np.ones((2, 3)), np.ones((2, 3)), ids=[4, 4])
    with pytest.raises(ValueError, match="no comparison"):
        tables.agreement_contrasts(points([good]), [(CROSS, MATCHED)])


def test_nothing_to_compare_gives_empty_tables_with_their_columns():
    empty = tables.agreement_tables([])
    wanted = {"agreement": tables.AGREEMENT, "agreement_units": tables.UNITS, "agreement_classes": tables.CLASSES,
              "agreement_contrasts": tables.CONTRASTS, "points": POINTS}  # fmt: skip
    assert {name: list(frame.columns) for name, frame in empty.items()} == wanted
    assert all(frame.empty for frame in empty.values())


def test_tables_keep_the_order_given_and_repeat_exactly():
    given = [with_r([0.5, 0.9], u, key) for key in (MATCHED, CROSS) for u in ("b", "a")]
    first, again = (
        tables.agreement_tables(given, [(CROSS, MATCHED)]),
        tables.agreement_tables(given, [(CROSS, MATCHED)]),
    )
    assert list(first["agreement"]["label"]) == ["matched", "cross"]
    assert list(first["agreement_units"]["unit"]) == ["b", "a", "b", "a"]
    for name, frame in first.items():
        pd.testing.assert_frame_equal(frame, again[name])
