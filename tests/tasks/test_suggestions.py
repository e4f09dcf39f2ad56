"""Suggestions for names that do not exist."""

from __future__ import annotations

import pytest

from tasks.suggestions import did_you_mean


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("filtres", "filters"),
        ("Tracin-Last", "tracin_last"),
        (" filters", "filters"),
        ("FILTERS", "filters"),
        ("tracin_lats", "tracin_last"),
    ],
)
def test_a_slip_of_the_pen_is_recognised(value, meant):
    assert did_you_mean(value, ["tracin_last", "filters", "random"]) == f"; did you mean {meant!r}?"


@pytest.mark.parametrize("value", ["zzz", "", 3, None, ["filters"], "f" * 10**6])
def test_what_is_near_nothing_has_no_suggestion(value):
    assert did_you_mean(value, ["tracin_last", "filters", 7, None]) == ""


def test_no_options():
    assert did_you_mean("x", []) == ""
