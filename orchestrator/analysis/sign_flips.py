"""What needs no normal distribution, over values that are independent of each other: a sign-flip test and the median."""

from __future__ import annotations

import numpy as np
from scipy.special import bdtr

from orchestrator.analysis.intervals import LEVEL
from orchestrator.analysis.layout import ROUNDING

EXACT = 30  # values other than 0 up to which all 2^n flips are counted; 2^15 sums on each of two sides
DRAWN = 19_999  # flips drawn beyond that, so that p is a multiple of 1 / 20,000
_CHUNK = 1 << 22  # signs drawn at a time


def sign_flip_p(values: np.ndarray) -> float:
    """Two-sided p of the sign-flip test that independent values are symmetric around 0; NaN without a value.

        p = share of the 2^n choices of signs s_i in {-1, 1} with |sum s_i x_i| >= |sum x_i|

    values: float64 [n], NaN is no value. Up to 30 values other than 0 all flips are counted (both halves apart, then
    joined), and the test is exact: under the null P(p <= a) <= a, and p is never below 2^(1 - n). Beyond, with 19,999
    flips drawn under a fixed seed, p = (1 + hits) / 20,000. A zero changes no sum. Sums within rounding of each other
    count as equal. scipy.stats.permutation_test would have to go through all 2^n flips one by one.
    Fisher 1935, The Design of Experiments, section 21; +1: Phipson & Smyth 2010.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan
    moved = np.sort(np.abs(values[values != 0]))[::-1]
    least = abs(float(values.sum())) - len(values) * ROUNDING * float(np.abs(values).sum())
    if least <= 0:
        return 1.0
    return _exact(moved, least) if len(moved) <= EXACT else _drawn(moved, least)


def _exact(moved: np.ndarray, least: float) -> float:
    """Share of all flips whose sum is at least `least` from 0: sums of one half against sorted sums of the other."""
    first, second = _all_sums(moved[::2]), np.sort(_all_sums(moved[1::2]))
    above = len(second) - np.searchsorted(second, least - first, side="left")
    return float(2 * above.sum() / (len(first) * len(second)))  # as many are below -least


def _all_sums(values: np.ndarray) -> np.ndarray:
    """sum s_i x_i for all signs s: float64 [2^n]."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _drawn(moved: np.ndarray, least: float) -> float:
    """The same share among DRAWN random flips and the one that was observed."""
    generator, hits, left = np.random.default_rng(len(moved)), 0, DRAWN
    while left:
        n = min(left, max(1, _CHUNK // len(moved)))
        signs = generator.integers(0, 2, size=(n, len(moved)), dtype=np.int8)
        sums = np.einsum("fi,i->f", signs, 2 * moved) - moved.sum()
        hits, left = hits + int((np.abs(sums) >= least).sum()), left - n
    return (1 + hits) / (1 + DRAWN)


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Median of values [n] and its exact 95% interval from order statistics: (median, low, high); NaN is no value.

    [x_(k), x_(n+1-k)] with the largest k for which 2 P(Bin(n, 1/2) <= k - 1) <= 0.05: it holds the median of whatever
    distribution at least so often. Below six values there is none, and both ends are NaN. Thompson 1936; Scheffe & Tukey 1945.
    scipy.stats.quantile_test gives the same interval in fifty times the time, which tables of every query cannot take.
    """
    values = np.sort(np.asarray(values, np.float64))
    values = values[~np.isnan(values)]
    n = len(values)
    if not n:
        return np.nan, np.nan, np.nan
    k = int((2 * bdtr(np.arange(n), n, 0.5) <= 1 - LEVEL).sum())
    low, high = (float(values[k - 1]), float(values[n - k])) if k else (np.nan, np.nan)
    return float(np.median(values)), low, high
