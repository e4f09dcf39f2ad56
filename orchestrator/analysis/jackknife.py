"""Intervals of a mean over queries whose terms depend on seeds and on subsets, both shared by all queries: a jackknife of crossed factors.

Let L_q be a number per query that is computed from all repeats and all subsets, such as a rank correlation over subsets. Queries, repeats
and subsets are all samples, and all three are crossed. L_q is not a mean over repeats or subsets, so the variance components of
orchestrator.analysis.intervals do not apply directly. They are formed from pseudo-values instead: from the changes of L_q when one repeat,
one block of subsets, or both are left out.
Efron & Stein 1981, "The jackknife estimate of variance"; Owen 2007, "The pigeonhole bootstrap", section 2 (crossed factors).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.intervals import MeanEstimate

BLOCKS = 20  # subsets are left out in at most this many blocks


def blocks_of(n_subsets: int) -> np.ndarray:
    """Return the block of every subset, 0 to min(n_subsets, BLOCKS) - 1, in turn: int64 [n_subsets]."""
    return np.arange(n_subsets) % min(n_subsets, BLOCKS)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """A number per query, with all data and with a repeat, a block of subsets, or both left out.

    values: float64 [..., 1 + n_blocks, 1 + n_repeats, n_queries]. Position 0 of an axis has nothing left out, position i has the i-th
    block or repeat left out. `n_subsets` is the number of subsets.
    """

    values: np.ndarray
    n_subsets: int

    def __sub__(self, other: LeftOut) -> LeftOut:
        """Return the differences, formed per query, repeat and block."""
        return LeftOut(self.values - other.values, self.n_subsets)

    @property
    def levels(self) -> np.ndarray:
        """The number of every query, from all data: [..., n_queries]."""
        return self.values[..., 0, 0, :]

    def of_queries(self, chosen: np.ndarray | slice) -> LeftOut:
        """Return the same for some queries."""
        return LeftOut(self.values[..., chosen], self.n_subsets)

    def estimate(self) -> MeanEstimate:
        """Return the mean over queries with its standard errors, for new seeds and subsets (`crossed_estimate`)."""
        return crossed_estimate(self.values)


def crossed_estimate(values: np.ndarray) -> MeanEstimate:
    """Return the mean over queries of values[..., 0, 0, :] with standard errors: arrays [...].

    values: as in LeftOut, with Q queries, R repeats and G blocks. With the pseudo-values

        a_rq  = (R - 1) (mean_s L_q(-s) - L_q(-r)),   b_gq = (G - 1) (mean_h L_q(-h) - L_q(-g)),
        c_grq = (G - 1) (R - 1) (L_q - L_q(-g) - L_q(-r) + L_q(-g, -r)), centred over g and over r,

    and bars for means over queries, the variances of the mean over queries are

        V_q  = sum_q (L_q - L)^2 / (Q (Q - 1)),              V_r  = sum_r abar_r^2 / (R (R - 1)),
        V_b  = sum_g bbar_g^2 / (G (G - 1)),                 V_rb = sum_gr cbar_gr^2 / (G R (G - 1) (R - 1)),
        V_qb = sum_gq (b_gq - bbar_g)^2 / (Q G (Q - 1) (G - 1)),
        V_s  = max(V_r - V_rb, 0) R / (R - 1),
        se^2 = max(V_q + V_b - V_qb, V_q, V_b) + V_s,        se_fixed^2 = V_b + V_s.

    V_b is the variance that the draw of the subsets causes, and the noise of single retrains too, since each retrain belongs to one subset;
    it has G - 1 degrees of freedom however few seeds there are. V_s is what seeds add beyond the noise of single retrains: what a seed does
    to the numbers of all subsets alike. Its factor allows for a mean over R - 1 seeds being noisier than one over R.
    se: queries, seeds and subsets vary; se_fixed: the queries are fixed. Degrees of freedom as in `intervals.estimate`.
    se is NaN with fewer than two queries, both are NaN with fewer than two repeats or blocks.
    """
    values = np.asarray(values, np.float64)
    levels = values[..., 0, 0, :]
    n_blocks, n_repeats, n_queries = (values.shape[-3] - 1, values.shape[-2] - 1, values.shape[-1])
    blank = np.full(levels.shape[:-1], np.nan)
    mean = _sum(levels) / n_queries if n_queries else blank
    if min(n_blocks, n_repeats) < 2 or not n_queries:
        return MeanEstimate(mean, blank, blank, blank, blank, n_queries, n_repeats)
    of_blocks, of_both, of_seeds = _variances(values, n_blocks, n_repeats)
    fixed = [(of_blocks, n_blocks - 1), (of_seeds, n_repeats - 1)]
    se_fixed, df_fixed = np.sqrt(of_blocks + of_seeds), _degrees(of_blocks + of_seeds, fixed)
    if n_queries < 2:
        return MeanEstimate(mean, blank, blank, se_fixed, df_fixed, n_queries, n_repeats)
    of_queries = _sum((levels - mean[..., None]) ** 2) / (n_queries * (n_queries - 1))
    crossed = np.maximum.reduce([of_queries + of_blocks - of_both, of_queries, of_blocks])
    parts = [(of_queries, n_queries - 1), (of_both, (n_queries - 1) * (n_blocks - 1)), *fixed]
    variance = crossed + of_seeds
    return MeanEstimate(mean, np.sqrt(variance), _degrees(variance, parts), se_fixed, df_fixed, n_queries, n_repeats)


def _variances(values: np.ndarray, n_blocks: int, n_repeats: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return V_b, V_qb and V_s of `crossed_estimate`: arrays [...]."""
    n_queries = values.shape[-1]
    blocks = (n_blocks - 1) * _centred(-values[..., 1:, 0, :], -2)
    seeds = (n_repeats - 1) * _centred(-values[..., 0, 1:, :], -2)
    differ = values[..., :1, :1, :] - values[..., 1:, :1, :] - values[..., :1, 1:, :] + values[..., 1:, 1:, :]
    both = (n_blocks - 1) * (n_repeats - 1) * _centred(_centred(differ, -3), -2)
    by_block, by_seed, by_both = (_sum(part) / n_queries for part in (blocks, seeds, both))
    of_blocks = _sum(by_block**2) / (n_blocks * (n_blocks - 1))
    within = blocks - by_block[..., None]
    of_both = _sum(_flat(within**2)) / (n_queries * n_blocks * (n_blocks - 1) * max(n_queries - 1, 1))
    of_seeds = _sum(by_seed**2) / (n_repeats * (n_repeats - 1))
    of_retrains = _sum(_flat(by_both**2)) / (n_blocks * n_repeats * (n_blocks - 1) * (n_repeats - 1))
    excess = np.maximum(of_seeds - of_retrains, 0.0) * n_repeats / (n_repeats - 1)
    return of_blocks, of_both, excess


def _degrees(variance: np.ndarray, parts: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """Return Satterthwaite's degrees of freedom of a sum of variances, given with their own degrees of freedom f.

    Each variance is multiplied by 1 + 2 / f, as in `intervals.estimate`; at least the smallest f.
    """
    squares = sum((part * (1 + 2 / f)) ** 2 / f for part, f in parts)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = variance**2 / squares
    return np.maximum(found, min(f for _, f in parts))


def _centred(values: np.ndarray, axis: int) -> np.ndarray:
    return values - values.mean(axis=axis, keepdims=True)


def _flat(values: np.ndarray) -> np.ndarray:
    """Join the last two axes."""
    return values.reshape(*values.shape[:-2], -1)


def _sum(values: np.ndarray) -> np.ndarray:
    """Sum over the last axis in a fixed order."""
    return np.ascontiguousarray(values).sum(axis=-1)
