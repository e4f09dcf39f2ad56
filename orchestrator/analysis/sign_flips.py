"""Statistics of independent values that assume no normal distribution: a sign-flip test and the median."""

from __future__ import annotations

import numpy as np
from scipy.special import bdtr

from orchestrator.analysis.intervals import LEVEL
from orchestrator.analysis.layout import ROUNDING

EXACT = 30  # largest number of nonzero values for which all 2^n flips are counted, from 2^15 sums of each half
DRAWN = 19_999  # flips drawn for more values, so that p is a multiple of 1 / 20,000
_CHUNK = 1 << 22  # signs drawn at a time


def sign_flip_p(values: np.ndarray) -> float:
    """Return the two-sided p of the sign-flip test that independent values are symmetric around 0; NaN without a value.

        p = share of the 2^n choices of signs s_i in {-1, 1} with |sum s_i x_i| >= |sum x_i|

    values: float64 [n]; NaN is no value. With at most 30 nonzero values all flips are counted (by combining the sums of two
    halves), and the test is exact: under the null hypothesis P(p <= a) <= a, and p is never below 2^(1 - n). With more values,
    19,999 flips are drawn with a fixed seed, and p = (1 + hits) / 20,000. Zeros change no sum. Sums that agree up to
    rounding count as equal. scipy.stats.permutation_test would have to go through all 2^n flips one by one.
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
    """Return the share of all flips whose |sum| is at least `least`: each sum of one half is searched in the sorted sums of the other."""
    first, second = _all_sums(moved[::2]), np.sort(_all_sums(moved[1::2]))
    above = len(second) - np.searchsorted(second, least - first, side="left")
    return float(
        2 * above.sum() / (len(first) * len(second))
    )  # twice, since by symmetry the same number is below -least


def _all_sums(values: np.ndarray) -> np.ndarray:
    """Return sum s_i x_i for all choices of signs s: float64 [2^n]."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _drawn(moved: np.ndarray, least: float) -> float:
    """Return the same share among DRAWN random flips and the observed signs."""
    generator, hits, left = np.random.default_rng(len(moved)), 0, DRAWN
    while left:
        n = min(left, max(1, _CHUNK // len(moved)))
        signs = generator.integers(0, 2, size=(n, len(moved)), dtype=np.int8)
        sums = np.einsum("fi,i->f", signs, 2 * moved) - moved.sum()
        hits, left = hits + int((np.abs(sums) >= least).sum()), left - n
    return (1 + hits) / (1 + DRAWN)


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the median of values [n] and its exact 95% interval from order statistics: (median, low, high); NaN is no value.

    The interval is [x_(k), x_(n+1-k)] with the largest k for which 2 P(Bin(n, 1/2) <= k - 1) <= 0.05; for any distribution it
    covers the median with at least 95% probability. With fewer than six values there is none, and both ends are NaN. Thompson
    1936; Scheffe & Tukey 1945. scipy.stats.quantile_test gives the same interval but takes fifty times as long, too long for
    tables with a row per query.
    """
    values = np.sort(np.asarray(values, np.float64))
    values = values[~np.isnan(values)]
    n = len(values)
    if not n:
        return np.nan, np.nan, np.nan
    k = int((2 * bdtr(np.arange(n), n, 0.5) <= 1 - LEVEL).sum())
    low, high = (float(values[k - 1]), float(values[n - k])) if k else (np.nan, np.nan)
    return float(np.median(values)), low, high
