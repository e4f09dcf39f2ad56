"""The sign-flip test against brute force and closed forms, and the median's interval against scipy."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis import sign_flips
from orchestrator.analysis.sign_flips import DRAWN, median_interval, sign_flip_p


def brute_force(values):
    sums = np.array([np.dot(signs, values) for signs in product((-1, 1), repeat=len(values))])
    return (np.abs(sums) >= abs(np.sum(values)) - 1e-12).mean()


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9, 12])
def test_all_flips_are_counted(n):
    rng = np.random.default_rng(n)
    for values in (rng.normal(size=n), rng.normal(0.7, 1, size=n), rng.integers(-2, 3, size=n), rng.random(n) < 0.4):
        values = values.astype(float)
        assert sign_flip_p(values) == pytest.approx(brute_force(values), abs=1e-15)


@pytest.mark.parametrize("n", [1, 5, 20, 30])
@pytest.mark.parametrize("size", [1e-300, 1e-6, 1.0, 1e12])
def test_equal_values_give_the_smallest_p_there_is_and_never_less(n, size):
    assert sign_flip_p(np.full(n, -size)) == 2.0 ** (1 - n)
    assert sign_flip_p(size * np.arange(1, n + 1)) == 2.0 ** (1 - n)


def test_sums_that_differ_by_rounding_only_are_equal():
    assert sign_flip_p(np.array([0.1, 0.2, -0.3])) == 1
    # of the 8 flips of three equal values and their like, those with a sum of 0.1 or more are all
    assert sign_flip_p(np.array([0.1, 0.1, -0.1])) == 1
    assert sign_flip_p(np.array([0.3, -0.1, -0.1])) == brute_force(np.array([3.0, -1.0, -1.0]))


def test_zeros_and_missing_values_change_nothing():
    x = np.array([0.5, -0.1, 0.4, 0.3])
    assert sign_flip_p(np.concatenate([x, np.zeros(40), [np.nan]])) == sign_flip_p(x) == brute_force(x)
    assert sign_flip_p(np.zeros(4)) == 1
    assert np.isnan(sign_flip_p(np.array([np.nan])))
    assert np.isnan(sign_flip_p(np.zeros(0)))


def test_many_values_are_tested_by_drawn_flips_that_are_the_same_each_time():
    x = np.random.default_rng(3).normal(0.25, 1, size=80)
    p = sign_flip_p(x)
    assert p == sign_flip_p(x[::-1]) == sign_flip_p(-x)
    # for so many values the flips' sum is normal with variance sum x^2
    expected = 2 * stats.norm.sf(abs(x.sum()) / np.sqrt((x**2).sum()))
    assert p == pytest.approx(expected, abs=4 * np.sqrt(expected / DRAWN) + 0.003)
    assert sign_flip_p(np.ones(2000)) == 1 / (1 + DRAWN)


def test_drawn_flips_estimate_the_exact_p(monkeypatch):
    x = np.random.default_rng(4).normal(0.4, 1, size=20)
    exact = sign_flip_p(x)
    monkeypatch.setattr(sign_flips, "EXACT", 0)
    assert sign_flip_p(x) == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / DRAWN))
    assert sign_flip_p(x) != exact


@pytest.mark.parametrize("n", [4, 5, 6, 8, 12])
def test_under_symmetry_p_is_at_most_a_as_often_as_a_says(n):
    rng = np.random.default_rng(n)
    p = np.array([sign_flip_p(x) for x in rng.standard_t(2, size=(3000, n))])
    for level in (0.02, 0.05, 0.2):
        reachable = np.floor(level * 2 ** (n - 1) + 1e-9) / 2 ** (n - 1)  # p is a multiple of 2^(1 - n)
        assert (p <= level).mean() == pytest.approx(reachable, abs=4 * np.sqrt(level / 3000) + 1e-9)


@pytest.mark.parametrize("n", [6, 7, 15, 40])
def test_the_median_has_the_interval_of_a_sign_test(n):
    x = np.random.default_rng(n).normal(size=n)
    expected = stats.quantile_test(x, q=0.0, p=0.5).confidence_interval(0.95)
    median, low, high = median_interval(x[::-1])
    assert (median, low, high) == (np.median(x), expected.low, expected.high)


def test_below_six_values_no_interval_of_the_median_is_sure_enough():
    for n in range(1, 6):
        median, *ends = median_interval(np.arange(n) + 1.0)
        assert median == (n + 1) / 2
        assert np.isnan(ends).all()
    assert median_interval(np.array([np.nan, *range(6)])) == (2.5, 0, 5)
    assert np.isnan(median_interval(np.zeros(0))).all()


def test_the_interval_of_the_median_covers_it_at_least_as_often_as_it_says():
    rng = np.random.default_rng(1)
    for n in (6, 9, 20):
        found = np.array([median_interval(x) for x in rng.standard_cauchy(size=(2000, n))])
        assert ((found[:, 1] <= 0) & (found[:, 2] >= 0)).mean() > 0.95 - 4 * np.sqrt(0.05 * 0.95 / 2000)
