import numpy as np
import pandas as pd
import pytest

from orchestrator.report.columns import columns

FRAME = pd.DataFrame(
    {
        "share": [0.5, 0.25],
        "label": ["cross", "matched"],
        "ci_low": [0.25, np.nan],
        "ci_high": [0.75, np.nan],
        "share_ci_low": [-0.5, 0.125],
        "share_ci_high": [0.5, 0.375],
        "ci_seed_low": [0.1, 0.2],
        "ci_seed_high": [0.2, 0.3],
        "n_queries": [1500.0, np.nan],
        "p_holm": [0.0001, 0.25],
        "query_id": [12345, 7],
        "is_mean": [True, False],
        "nothing": [np.nan, None],
    }
)


def cells(frame, title, labels=()):
    return next(list(column.cells) for column in columns(frame, labels) if column.title == title)


def test_labels_come_first_and_both_ends_of_an_interval_are_one_column():
    titles = [column.title for column in columns(FRAME, ("label", "absent"))]
    assert titles == [
        *["label", "share", "95% CI", "share 95% CI", "95% CI (seed)"],
        *["queries", "p holm", "query id", "is mean"],
    ]
    assert cells(FRAME, "95% CI") == ["[0.250, 0.750]", "—"]
    assert cells(FRAME, "share 95% CI") == ["[−0.500, +0.500]", "[+0.125, +0.375]"]


def test_every_kind_of_number_is_written_as_its_kind():
    assert cells(FRAME, "queries") == ["1\u2009500", "—"]
    assert cells(FRAME, "p holm") == ["< 0.001", "0.250"]
    assert cells(FRAME, "query id") == ["12345", "7"]
    assert cells(FRAME, "is mean") == ["yes", "no"]
    assert [column.is_number for column in columns(FRAME, ("label",))] == [False, *[True] * 7, False]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.5, 0.25), ["0.500", "0.250"]),
        ((0.0123, 0.5), ["0.012", "0.500"]),
        ((0.0123, 0.004), ["0.0123", "0.0040"]),
        ((-12.345, 3), ["−12.35", "+3.00"]),
        ((48213.7, 12.0), ["48214", "12"]),
        ((3e-9, 0.0), ["3.0e−09", "0.000000"]),
        ((np.inf, 1.0), ["∞", "1.000"]),
        ((0.0, 0.0), ["0.000", "0.000"]),
    ],
)
def test_decimals_suit_the_largest_number_of_a_column(values, expected):
    assert cells(pd.DataFrame({"x": values}), "x") == expected


def test_a_low_without_a_high_stays_a_number():
    assert cells(pd.DataFrame({"ci_low": [0.5]}), "ci low") == ["0.500"]


def test_an_empty_table_keeps_its_columns():
    empty = FRAME.head(0)
    assert [column.title for column in columns(empty, ("label",))][:2] == ["label", "share"]
    assert columns(pd.DataFrame()) == []
