"""Curves, AUC-DEL, pairing and the exact text of the tables, from the cells of a campaign."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.analysis import tables
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.intervals import estimate

METHODS, GROUPS, KS, QUERIES, REPEATS = (
    ("tracin_we", "tfidf", "random"),
    ("proponents", "opponents"),
    (10, 20, 50),
    (7, 3, 11, 40),
    (0, 1, 2, 3, 4),
)


@pytest.fixture
def cells():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, 2, 3, 4, 5))
    reference = rng.normal(size=(4, 5))
    return Cells(METHODS, GROUPS, KS, QUERIES, REPEATS, values - reference, values, reference)


def with_hole(cells, index):
    delta = cells.delta.copy()
    delta[index] = np.nan
    return replace(cells, delta=delta)


def test_columns_and_row_order_are_the_published_ones(cells):
    intervals = ["se", "ci_low", "ci_high", "se_fixed", "ci_fixed_low", "ci_fixed_high"]
    estimated = [*intervals, "n_queries", "n_repeats", "n_excluded"]
    ends = [f"accuracy_{ci}_{end}" for ci in ("ci", "ci_fixed") for end in ("low", "high")]
    of_curves = ["delta", *estimated, "accuracy", "accuracy_delta", *ends]
    assert list(tables.curves(cells).columns) == ["method", "group", "k", *of_curves]
    assert list(tables.query_curves(cells).columns) == ["method", "group", "query_id", "k", *of_curves]
    shares, medians = ([name, f"{name}_ci_low", f"{name}_ci_high"] for name in ("share_moved", "median"))
    by_query = ["p_flip", *shares, *medians]
    assert list(tables.summary(cells).columns) == ["method", "group", "auc_del", *estimated, *by_query]
    compared = [
        "method",
        "baseline",
        "group",
        "diff",
        "se",
        "ci_low",
        "ci_high",
        "p",
        "p_holm",
        "n_queries",
        "n_repeats",
        "family",
        *by_query,
    ]
    assert list(tables.contrasts(cells).columns) == compared
    variances = ["variance_paired", "variance_unpaired", "ratio"]
    assert list(tables.pairing(cells).columns) == ["method", "group", *variances]
    curves, by_query = tables.curves(cells), tables.query_curves(cells)
    assert list(zip(curves.method, curves.group, curves.k, strict=True)) == [
        (m, g, k) for m in METHODS for g in GROUPS for k in KS
    ]
    assert list(by_query.query_id[:12]) == [7] * 3 + [3] * 3 + [11] * 3 + [40] * 3


def test_curves_are_means_over_queries_and_repeats(cells):
    np.testing.assert_allclose(tables.curves(cells).delta, cells.delta.mean(axis=(-2, -1)).ravel(), rtol=1e-12)
    np.testing.assert_allclose(
        tables.query_curves(cells).delta, cells.delta.mean(axis=-1).transpose(0, 1, 3, 2).ravel(), rtol=1e-11
    )


def test_auc_is_formed_per_query_and_repeat_before_any_interval(cells):
    summary = tables.summary(cells)
    expected = estimate(cells.delta.mean(axis=2))
    np.testing.assert_allclose(summary.auc_del, cells.delta.mean(axis=(2, 3, 4)).ravel(), rtol=1e-12)
    np.testing.assert_array_equal(summary.se, expected.se.ravel())
    np.testing.assert_array_equal(summary.ci_low, expected.ci[0].ravel())
    assert len(summary) == 3 * 2


def test_with_one_query_only_seeds_vary(cells):
    table = tables.query_curves(cells)
    np.testing.assert_array_equal(
        table[["se", "ci_low", "ci_high"]], table[["se_fixed", "ci_fixed_low", "ci_fixed_high"]]
    )
    first = cells.delta[0, 0, 0, 0]
    np.testing.assert_allclose(table.se[0], first.std(ddof=1) / np.sqrt(5), rtol=1e-12)
    assert set(table.n_queries) == {1}
    assert set(table.n_repeats) == {5}


def test_a_hole_of_one_method_leaves_its_cell_out_for_all(cells):
    rng = np.random.default_rng(9)
    accurate = replace(cells, accuracy=rng.random(cells.delta.shape), reference_accuracy=rng.random((4, 5)))
    holed = with_hole(accurate, (1, 0, 2, 3, 4))
    assert holed.n_excluded == 1
    for frame in (tables.curves(holed), tables.summary(holed)):
        assert set(frame.n_excluded) == {1}
        assert (frame.n_queries == 4).all()
        from_six_queries = ["median_ci_low", "median_ci_high"]
        assert not frame.drop(columns=from_six_queries, errors="ignore").isna().any().any()
    everywhere = replace(accurate, delta=np.where(np.arange(20).reshape(4, 5) == 19, np.nan, cells.delta))
    assert tables.format_csv(tables.curves(holed)) == tables.format_csv(tables.curves(everywhere))
    per_query = tables.query_curves(holed)
    assert set(per_query[per_query.query_id == 40].n_excluded) == {1}
    assert set(per_query[per_query.query_id == 40].n_repeats) == {4}
    assert set(per_query[per_query.query_id == 7].n_excluded) == {0}


def test_holes_are_listed_by_who_misses_them(cells):
    listed = tables.holes(with_hole(cells, (1, 0, slice(1, 3), 3, 4)))
    assert listed.to_dict("records") == [{"method": "tfidf", "group": "proponents", "query_id": 40, "repeat": 4}]
    assert list(tables.holes(cells).columns) == ["method", "group", "query_id", "repeat"]
    assert len(tables.holes(cells)) == 0


def test_infinite_changes_are_holes_too(cells):
    delta = cells.delta.copy()
    delta[0, 0, 0, 0, 0] = np.inf
    assert replace(cells, delta=delta).n_excluded == 1


def test_without_a_complete_cell_every_number_is_empty(cells):
    empty = replace(cells, delta=np.full_like(cells.delta, np.nan))
    text = tables.format_csv(tables.curves(empty)).splitlines()
    assert text[1] == "tracin_we,proponents,10,,,,,,,,0,0,20,,,,,,"
    assert (
        tables.format_csv(tables.contrasts(empty)).splitlines()[1]
        == "tracin_we,random,proponents,,,,,,,0,0,control,,,,,,,"
    )
    assert len(tables.query_curves(empty)) == 3 * 2 * 4 * 3
    assert tables.pairing(empty).ratio.isna().all()


def test_an_edit_without_effect_is_exactly_zero(cells):
    nothing = replace(cells, delta=-np.zeros_like(cells.delta))
    assert (
        tables.format_csv(tables.curves(nothing)).splitlines()[1]
        == "tracin_we,proponents,10,0.0,0.0,,,0.0,0.0,0.0,4,5,0,,,,,,"
    )


def test_csv_reads_back_to_the_same_bits_and_is_the_same_each_time(cells):
    frame = tables.summary(cells)
    frame.loc[0, "se"] = 0.1 + 0.2
    frame.loc[1, "se"] = 5e-324
    frame.loc[2, "se"] = 1.2345678901234567e17
    text = tables.format_csv(frame)
    for read, row in zip(csv.DictReader(io.StringIO(text)), frame.to_dict("records"), strict=True):
        there = [name for name in frame.columns[2:] if not name.startswith("median_ci")]  # empty below six queries
        assert {name: float(read[name]) for name in there} == {name: row[name] for name in there}
    assert ",0.30000000000000004," in text
    assert "\r" not in text
    assert tables.format_csv(tables.curves(cells)) == tables.format_csv(
        tables.curves(replace(cells, delta=cells.delta.copy()))
    )


def test_numbers_of_a_method_do_not_depend_on_the_methods_beside_it(cells):
    alone = replace(cells, methods=METHODS[:1], delta=cells.delta[:1], values=None)
    all_of_them = tables.format_csv(tables.curves(cells)).splitlines()
    assert tables.format_csv(tables.curves(alone)).splitlines() == all_of_them[:7]


def with_accuracy(cells):
    """Accuracies of the retrains: 0.9 without an edit, minus 0.01 per query and 0.02 per repeat, minus k / 100 for removals."""
    reference = 0.9 - 0.01 * np.arange(4)[:, None] - 0.02 * np.arange(5)
    removal = np.broadcast_to(reference - np.array(KS)[:, None, None] / 100, cells.delta.shape)
    return replace(cells, accuracy=removal, reference_accuracy=reference)


def test_the_accuracy_stands_beside_every_curve_and_changes_no_other_column(cells):
    curves, by_query = tables.curves(with_accuracy(cells)), tables.query_curves(with_accuracy(cells))
    np.testing.assert_allclose(curves.accuracy_delta, -curves.k / 100, rtol=1e-12)
    np.testing.assert_allclose(curves.accuracy, 0.9 - 0.015 - 0.04 - curves.k / 100, rtol=1e-12)
    np.testing.assert_allclose(by_query.accuracy_delta, -by_query.k / 100, rtol=1e-12)
    at = [QUERIES.index(query) for query in by_query.query_id]
    np.testing.assert_allclose(by_query.accuracy, 0.9 - 0.01 * np.array(at) - 0.04 - by_query.k / 100, rtol=1e-12)
    for frame, plain in ((curves, tables.curves(cells)), (by_query, tables.query_curves(cells))):
        before = [name for name in frame.columns if not name.startswith("accuracy")]
        assert list(frame.columns[: len(before)]) == before
        assert tables.format_csv(frame[before]) == tables.format_csv(plain[before])
        assert plain.filter(like="accuracy").isna().all().all(), "an unknown accuracy is an empty cell"


def test_intervals_of_the_accuracy_are_those_of_its_paired_change_on_the_complete_cells(cells):
    rng = np.random.default_rng(6)
    removal, reference = rng.random(cells.delta.shape), rng.random((4, 5))
    holed = with_hole(replace(cells, accuracy=removal, reference_accuracy=reference), (1, 0, 2, 3, 4))
    curves = tables.curves(holed)
    found = estimate(removal - reference, holed.complete)
    wanted = {"accuracy_ci_low": found.ci[0], "accuracy_ci_high": found.ci[1]}
    wanted |= {"accuracy_ci_fixed_low": found.ci_fixed[0], "accuracy_ci_fixed_high": found.ci_fixed[1]}
    for name, values in (wanted | {"accuracy_delta": found.mean}).items():
        np.testing.assert_array_equal(curves[name], values.ravel(), err_msg=name)
    with pytest.raises(ValueError, match="accuracy has shape"):
        replace(cells, accuracy=removal[0])


def test_labels_must_fit_the_numbers(cells):
    with pytest.raises(ValueError, match="delta has shape"):
        replace(cells, ks=(10, 20))
    with pytest.raises(ValueError, match="reference has shape"):
        replace(cells, reference=np.zeros((4, 4)))
    with pytest.raises(ValueError, match="methods contains a label twice"):
        replace(cells, methods=("random", "tfidf", "random"))


def paired_cells(n_repeats, shared, n_queries=6, seed=8):
    """Removal = level + shared seed noise + own noise: paired variance 2 own^2, unpaired 2 (shared^2 + own^2)."""
    rng = np.random.default_rng(seed)
    level, own = rng.normal(size=(n_queries, 1)), 0.5
    seeds = shared * rng.normal(size=(n_queries, n_repeats))
    reference = level + seeds + own * rng.normal(size=(n_queries, n_repeats))
    values = (level + seeds - 1 + own * rng.normal(size=(1, 1, 2, n_queries, n_repeats))).astype(float)
    return Cells(
        ["m"], ["proponents"], [1, 2], range(n_queries), range(n_repeats), values - reference, values, reference
    )


def test_pairing_measures_how_much_variance_the_shared_seed_saves():
    (row,) = tables.pairing(paired_cells(4000, shared=1.5)).to_dict("records")
    np.testing.assert_allclose([row["variance_paired"], row["variance_unpaired"]], [0.5, 5.0], rtol=0.05)
    np.testing.assert_allclose(row["ratio"], row["variance_unpaired"] / row["variance_paired"])


def test_unpaired_variance_is_that_of_all_pairs_of_unlike_repeats():
    cells = paired_cells(300, shared=1.0, n_queries=1)
    assert cells.values is not None
    assert cells.reference is not None
    unlike = ~np.eye(300, dtype=bool)
    brute = np.mean([np.subtract.outer(cells.values[0, 0, k, 0], cells.reference[0])[unlike].var() for k in range(2)])
    np.testing.assert_allclose(tables.pairing(cells).variance_unpaired[0], brute, rtol=0.01)


def test_unpaired_variance_is_unbiased_with_three_repeats():
    (row,) = tables.pairing(paired_cells(3, shared=1.5, n_queries=20000)).to_dict("records")
    np.testing.assert_allclose([row["variance_paired"], row["variance_unpaired"]], [0.5, 5.0], rtol=0.03)


def test_pairing_uses_complete_cells_of_queries_with_two_of_them():
    cells = paired_cells(4, shared=1.0, n_queries=3)
    holed = cells.delta.copy()
    holed[..., 0, 1:], holed[..., 2, 0] = np.nan, np.nan
    (row,) = tables.pairing(replace(cells, delta=holed)).to_dict("records")
    variances = [cells.delta[0, 0, :, 1].var(axis=-1, ddof=1), cells.delta[0, 0, :, 2, 1:].var(axis=-1, ddof=1)]
    np.testing.assert_allclose(row["variance_paired"], np.mean(variances), rtol=1e-12)


def test_pairing_without_any_spread_has_no_ratio():
    constant = paired_cells(3, shared=0.0)
    still = replace(constant, delta=np.full_like(constant.delta, 0.1), values=None)
    with pytest.raises(ValueError, match="needs `values` and `reference`"):
        tables.pairing(still)
    (row,) = tables.pairing(replace(still, values=constant.values)).to_dict("records")
    assert row["variance_paired"] == 0
    assert np.isnan(row["ratio"])
