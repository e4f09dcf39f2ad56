"""Confidence intervals of a mean over queries x repeats. The two factors are crossed, since one seed serves every query.

Model: y_qr = mu + a_q + b_r + e_qr, with a_q ~ (0, s_q^2) for queries, b_r ~ (0, s_r^2) for repeats, e_qr ~ (0, s_e^2).
Searle, Casella & McCulloch, Variance Components (1992): chapter 4 (balanced), 5 (with holes, Henderson's method 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

from orchestrator.analysis.layout import Layout, MeanSquares, mean_squares

LEVEL = 0.95


@dataclass(frozen=True)
class MeanEstimate:
    """Mean, standard errors and degrees of freedom: arrays [...], NaN where the layout does not determine them.

    `se`: for queries of this kind (queries and seeds vary); `se_fixed`: for these queries (only seeds vary).
    `n_queries`, `n_repeats`: numbers of those with at least one cell; arrays if layouts with different repeats are joined.

    A layout without any spread (se 0: all cells are equal) does not show how much queries or seeds differ. It has no
    interval `ci`, and its p is that of a sign test; docs/decisions/0032-rare-effects-and-families.md.
    """

    mean: np.ndarray
    se: np.ndarray
    df: np.ndarray
    se_fixed: np.ndarray
    df_fixed: np.ndarray
    n_queries: int | np.ndarray
    n_repeats: int | np.ndarray

    @property
    def ci(self) -> tuple[np.ndarray, np.ndarray]:
        """95% interval for queries of this kind: (low, high); both NaN if there is no spread."""
        return bounds(self.mean, self.se, self.df)

    @property
    def ci_fixed(self) -> tuple[np.ndarray, np.ndarray]:
        """95% interval for these queries: (low, high); both equal the mean if the seed changes nothing."""
        low, high = bounds(self.mean, self.se_fixed, self.df_fixed)
        is_point = self.se_fixed == 0
        return np.where(is_point, self.mean, low), np.where(is_point, self.mean, high)

    @property
    def p(self) -> np.ndarray:
        """Two-sided p of mean = 0 for queries of this kind, by the t test; without spread it is `sign_floor(n)`.

        Here n is the smaller of `n_queries` and `n_repeats`, since equal signs in all cells may come from the effects of the
        queries or from those of the seeds.
        """
        return t_test_p(self.mean, self.se, self.df, np.minimum(self.n_queries, self.n_repeats))


def t_test_p(mean: np.ndarray, se: np.ndarray, df: np.ndarray, n_units: np.ndarray | int) -> np.ndarray:
    """Return the two-sided p of mean = 0, elementwise: 2 P(t(df) <= -|mean / se|); NaN where se is NaN.

    Without spread (se 0) the t test would give p = 0 for any number of units and any mean. There p is the smallest p that a
    test of the signs of the units can give, `sign_floor(n_units)`, and 1 if the mean is exactly 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stdtr(df, -np.abs(mean / se))
    p = np.where(se == 0, np.where(mean == 0, 1.0, sign_floor(n_units)), p)
    return np.where(np.isnan(se), np.nan, p)


def sign_floor(n_units: np.ndarray | int) -> np.ndarray:
    """Return the smallest two-sided p of a sign test of n units, 2^(1 - n), which it gives if all signs are equal."""
    return 2.0 ** (1.0 - np.asarray(n_units, np.float64))


def bounds(mean: np.ndarray, se: np.ndarray, df: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return mean -/+ t(df) se, elementwise: (low, high); both NaN where se is NaN or 0, since a t interval needs a spread."""
    half = stdtrit(np.where(se > 0, df, np.nan), (1 + level) / 2) * se
    return mean - half, mean + half


def estimate(y: np.ndarray, complete: np.ndarray | None = None, widening: float = 1.0) -> MeanEstimate:
    """Estimate the mean of a two-way layout with both standard errors, for any number of layouts that share their holes.

    y: float64 [..., n_queries, n_repeats]; complete: bool [n_queries, n_repeats], cells outside it are not read.
    mean = average of the additive least-squares fit: the plain mean without holes; with holes every query and every
    repeat still has equal weight. Without holes
        se^2 = max(MS_q + MS_r - MS_e, MS_q, MS_r, MS_e) / (n_queries n_repeats), Satterthwaite degrees of freedom;
        se_fixed^2 = MS_r / (n_queries n_repeats), n_repeats - 1 degrees of freedom.
    The latter gives the exact t interval of the means of the repeats. It is not bounded below by MS_e: with the larger degrees
    of freedom of MS_e the interval would cover too seldom when MS_r is small by chance.
    se is NaN with fewer than two queries or two repeats or without residual degrees of freedom, se_fixed with fewer than two
    repeats. Both are NaN if the cells fall into parts that share neither query nor repeat (the mean is then the plain mean);
    everything is NaN without cells. A layout without any spread has se 0 and no interval for queries of this kind.
    `widening`: factor of the standard error over repeats (MS_r is multiplied by its square), for designs in which the results
    decide the number of repeats (Stopping.widening).
    Crossed effects of items and seeds: Owen 2007, "The pigeonhole bootstrap", section 2.
    """
    y = np.asarray(y, np.float64)
    layout = Layout.of(np.ones(y.shape[-2:], bool) if complete is None else complete)
    y = y[..., layout.rows, :][..., layout.columns]
    blank = np.full(y.shape[:-2], np.nan)
    if not layout.n_cells:
        return MeanEstimate(blank, blank, blank, blank, blank, 0, 0)
    mean = layout.mean(y)
    if not layout.is_connected:
        return MeanEstimate(mean, blank, blank, blank, blank, layout.n_queries, layout.n_repeats)
    ms = mean_squares(layout, y)
    ms = replace(ms, repeats=ms.repeats * widening**2)
    variance, df = _variance(layout, ms)
    variance_fixed = max(layout.c_residual, layout.c_repeats) * ms.repeats
    df_fixed = np.full(y.shape[:-2], layout.n_repeats - 1.0)
    se, se_fixed = np.sqrt(variance), np.sqrt(variance_fixed)
    return MeanEstimate(mean, se, df, se_fixed, df_fixed, layout.n_queries, layout.n_repeats)


def _variance(layout: Layout, ms: MeanSquares) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of the mean for queries of this kind, and its degrees of freedom (Satterthwaite 1946).

    A sum of mean squares V = sum c_i MS_i has df = V^2 / sum((c_i MS_i)^2 / f_i). This formula treats each MS_i as exact.
    If an MS_r on 2 degrees of freedom is small by chance, V is too small and df too large at the same time (92.6% coverage
    with 20 queries x 3 repeats). Therefore each MS_i is multiplied by 1 + 2 / f_i, where 2 / f_i is its relative variance,
    in df only (then at least 93.7%; docs/results/interval_coverage.md).
    """
    f_queries, f_repeats, f_residual = layout.degrees_of_freedom
    if min(f_queries, f_repeats, f_residual) < 1:
        blank = np.full(ms.repeats.shape, np.nan)
        return blank, blank
    queries, repeats = layout.c_queries * ms.queries, layout.c_repeats * ms.repeats
    residual = layout.c_residual * ms.residual
    excess = (layout.c_queries + layout.c_repeats - layout.c_residual) * ms.residual
    variance = np.maximum.reduce([queries + repeats - excess, queries, repeats, residual])
    a, b, c = queries * (1 + 2 / f_queries), repeats * (1 + 2 / f_repeats), excess * (1 + 2 / f_residual)
    with np.errstate(divide="ignore", invalid="ignore"):  # all zero: no spread, se 0, df NaN
        total = np.maximum.reduce([a + b - c, a, b, np.abs(c)])
        df = total**2 / (a**2 / f_queries + b**2 / f_repeats + c**2 / f_residual)
    return variance, np.maximum(df, min(f_queries, f_repeats))
