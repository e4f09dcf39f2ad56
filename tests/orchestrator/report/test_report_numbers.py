import numpy as np
import pandas as pd
import pytest

from orchestrator.report.numbers import count, interval, number, p_value, plain, signed, significant


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (-0.05, "−0.0500"),
        (1.23456, "1.2346"),
        (0.00002, "2.0e−05"),
        (-np.inf, "−∞"),
        (None, "—"),
        (np.nan, "—"),
        (pd.NA, "—"),
        ("", "—"),
        (np.float32(0.5), "0.5000"),
    ],
)
def test_numbers_have_a_real_minus_and_a_dash_when_missing(value, text):
    assert number(value) == text


def test_signs_and_intervals():
    assert [signed(v) for v in (0.1, -0.1, 0.0, None)] == ["+0.1000", "−0.1000", "0.0000", "—"]
    assert interval(-0.1, 0.2) == "[−0.1000, +0.2000]"
    assert interval(-0.1, np.nan) == "—"


def test_scores_keep_their_significant_digits_whatever_the_scale():
    assert [significant(v) for v in (0.000123456, -123.456, 0.0, np.nan)] == ["+0.000123", "−123", "0", "—"]


def test_counts_and_p_values():
    assert (count(1234567), count(np.nan)) == ("1\u2009234\u2009567", "—")
    assert [p_value(v) for v in (0.0001, 0.032, 1.0, None)] == ["< 0.001", "0.032", "1.000", "—"]
    assert [plain(v) for v in (3, "a", None, 0.25, [1, 2])] == ["3", "a", "—", "0.2500", "[1, 2]"]
