"""Means over queries of a diagnostic's table: t intervals, totals, and differences paired by query, against scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from influence.diagnostic import QueryMeans
from orchestrator.analysis.query_means import ALL, contrasts_over_queries, means_over_queries, with_query_means
from orchestrator.analysis.shares import clustered_share

N = 8
RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    [
        {"query_id": query, "kind": kind, "group": "old" if query < 5 else "new", "value": RANDOM.normal() + place}
        for query in range(N)
        for place, kind in enumerate(("low", "high"))
    ]
)
ASKED = QueryMeans("queries", ("kind", "group"), ("value",), totals=("group",), compared="kind")


def of(kind, group=None):
    rows = FRAME.loc[(FRAME["kind"] == kind) & ((FRAME["group"] == group) if group else True)]
    return rows["value"].to_numpy()


def test_a_mean_has_the_t_interval_over_queries():
    found = means_over_queries(FRAME, ASKED).set_index(["kind", "group"])
    assert list(found.index) == [(kind, group) for kind in ("low", "high") for group in (ALL, "old", "new")]
    for (kind, group), row in found.iterrows():
        values = of(kind, None if group == ALL else group)
        low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert row.tolist() == pytest.approx([values.mean(), low, high, len(values)])


def test_rows_of_one_query_count_as_one_query():
    """Doubling the rows of a query changes nothing: the interval is clustered by query, not pooled over rows."""
    twice = pd.concat([FRAME, FRAME.loc[FRAME["query_id"] == 3]])
    pd.testing.assert_frame_equal(means_over_queries(twice, ASKED), means_over_queries(FRAME, ASKED))


def test_queries_without_a_value_are_left_out_and_counted():
    frame = FRAME.assign(
        value=FRAME["value"].where(FRAME["query_id"] != 2).astype(object).where(FRAME["query_id"] != 2, None)
    )
    found = means_over_queries(frame, ASKED)
    assert found.loc[found["group"] == ALL, "n_queries"].tolist() == [N - 1, N - 1]
    nothing = means_over_queries(FRAME.assign(value=None), ASKED)
    assert nothing["value"].isna().all()
    assert nothing["n_queries"].tolist() == [0] * 6


def test_a_share_has_an_interval_for_trials_in_clusters():
    """The mean of equally large shares is the share of all trials, and its interval lies in [0, 1] even at an end."""
    frame = pd.DataFrame({"query_id": range(6), "kind": "low", "value": [1, 0.5, 0.75, 1, 1, 0.25], "k": 4, "yes": 1.0})
    asked = QueryMeans("queries", ("kind",), ("value", "yes"), shares={"value": "k", "yes": ""})
    row = means_over_queries(frame, asked).iloc[0]
    low, high = clustered_share(frame["value"].to_numpy() * 4, np.full(6, 4))
    assert row[["value", "value_ci_low", "value_ci_high"]].tolist() == pytest.approx([0.75, low, high])
    exact = stats.binomtest(6, 6).proportion_ci()
    assert row[["yes", "yes_ci_low", "yes_ci_high"]].tolist() == pytest.approx([1, exact.low, exact.high])


def test_a_column_of_totals_with_one_value_has_no_total():
    found = means_over_queries(FRAME.loc[FRAME["group"] == "old"], ASKED)
    assert found["group"].tolist() == ["old", "old"]


def test_a_value_that_is_called_like_the_total_has_its_own_rows_only():
    frame = FRAME.assign(group=FRAME["group"].replace("old", ALL))
    found = means_over_queries(frame, ASKED)
    assert found["n_queries"].tolist() == [N, 5, 3] * 2
    assert found["value"].tolist() == means_over_queries(FRAME, ASKED)["value"].tolist()


def test_differences_are_paired_by_query():
    found = contrasts_over_queries(FRAME, ASKED).set_index("group")
    for group in ("old", "new"):
        test = stats.ttest_rel(of("low", group), of("high", group))
        low, high = test.confidence_interval(0.95)
        row = found.loc[group]
        assert (row["kind"], row["baseline"]) == ("low", "high")
        assert [row["value_diff"], row["ci_low"], row["ci_high"], row["p"]] == pytest.approx(
            [of("low", group).mean() - of("high", group).mean(), low, high, test.pvalue]
        )


def test_the_table_without_a_name_comes_first():
    computed = {"queries": FRAME, "more": FRAME}
    assert list(with_query_means(computed, {"": ASKED})) == ["", "contrasts", "queries", "more"]
    assert list(with_query_means({"": FRAME, "queries": FRAME}, {})) == ["", "queries"]
    named = with_query_means(computed, {"x": ASKED})
    assert list(named) == ["x", "x_contrasts", "queries", "more"]
    one_kind = FRAME.loc[FRAME["kind"] == "low"]
    assert not len(with_query_means({"queries": one_kind}, {"": ASKED})["contrasts"])
    assert not len(with_query_means({"queries": FRAME.iloc[:0]}, {"": ASKED})[""])
