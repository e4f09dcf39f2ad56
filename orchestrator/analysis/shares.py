"""Confidence intervals of a share: exact for independent trials, and one for trials in clusters."""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv, stdtrit

from orchestrator.analysis.intervals import LEVEL


def clopper_pearson(count: float, n: float) -> tuple[float, float]:
    """Return the exact 95% interval of a share from `count` of `n` independent trials: (low, high), NaN without trials.

    low = Beta(count, n - count + 1) at 2.5%, 0 if count is 0; high = Beta(count + 1, n - count) at 97.5%, 1 if count
    is n (Clopper & Pearson 1934). Both arguments may be fractions, such as an effective number of trials, which
    scipy.stats.binomtest does not accept.
    """
    if not n > 0:
        return np.nan, np.nan
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(count, n - count + 1, tail)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return low, high


def clustered_share(counts: np.ndarray, trials: np.ndarray) -> tuple[float, float]:
    """Return the 95% interval of the share sum(counts) / sum(trials) if trials of one unit are dependent: (low, high).

    counts, trials: [n_units]; units are independent, and units without a trial do not count.
        V  = m / (m - 1) sum (count_u - p trials_u)^2 / n^2            for m units, n trials, share p
        n* = min(n, p (1 - p) / V) (t(n - 1) / t(m - 1))^2
    The interval is that of Clopper and Pearson for p n* of n* trials (Korn & Graubard 1998, section 2.1). If the rarer outcome
    is concentrated in fewer than half of the units, that is (sum y_u)^2 / sum y_u^2 < m / 2 for its counts y_u, V depends on
    few units; then n* is limited to m, so that a unit counts as one trial. Without this limit the interval would cover far too
    seldom for a rare outcome in few units (simulated in tests/orchestrator/analysis/test_directions.py).
    NaN with fewer than two units. A t interval of the units' shares would shrink to a point if all shares are 0 or all are 1,
    which is common with few units.
    """
    counts, trials = (np.asarray(a, np.float64)[np.asarray(trials) > 0] for a in (counts, trials))
    m, n, x = len(trials), float(trials.sum()), float(counts.sum())
    if m < 2:
        return np.nan, np.nan
    if x in (0.0, n):
        return clopper_pearson(m * x / n, m)
    p = x / n
    variance = m / (m - 1) * float(((counts - p * trials) ** 2).sum()) / n**2
    effective = n if variance * n <= p * (1 - p) else p * (1 - p) / variance
    upper = (1 + LEVEL) / 2
    effective *= float(stdtrit(n - 1, upper) / stdtrit(m - 1, upper)) ** 2
    rare = trials - counts if p > 0.5 else counts
    if rare.sum() ** 2 < m / 2 * (rare**2).sum():
        effective = min(effective, m)
    return clopper_pearson(p * effective, effective)
