"""Confound influence difference (CID): per probe with Welch's test, and its mean over seeds with an interval.

Han and Tsvetkov 2021, section 6.1, figures 1 and 3. `moments` is float [n_probes, 6], as the observer
confound_influence_difference records it at one step: n_same, mean_same, sd_same (ddof 1), n_other, mean_other, sd_other
of the influences on a probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.units import UnitMean, over_units


@dataclass(frozen=True)
class Welch:
    """Welch's test of mean_same = mean_other: t and two-sided p, each [n_probes]."""

    t: np.ndarray
    p: np.ndarray


def cid(moments: np.ndarray) -> np.ndarray:
    """Return the CID of each probe, mean_same - mean_other: float64 [n_probes] in [-2, 2]; NaN where a group is empty.

    It is positive if examples with the probe's confound help it more than other examples with its label.
    """
    columns = _columns(moments)
    return columns[1] - columns[4]


def welch(moments: np.ndarray) -> Welch:
    """Return Welch's t test per probe, which does not assume equal variances (scipy.stats.ttest_ind_from_stats).

    NaN where a group has fewer than two examples or neither group has a spread. Influences of one model on one probe are
    not independent, so p describes these two distributions (figure 1) and does not generalise to other trainings.
    """
    from scipy.stats import ttest_ind_from_stats  # on demand: it takes a second to import

    n_same, same, sd_same, n_other, other, sd_other = _columns(moments)
    known = (n_same > 1) & (n_other > 1) & (sd_same + sd_other > 0)
    groups = [np.where(known, column, np.nan) for column in (same, sd_same, n_same, other, sd_other, n_other)]
    found = ttest_ind_from_stats(*groups, equal_var=False)
    return Welch(found.statistic, found.pvalue)


def cid_over_seeds(moments: Sequence[np.ndarray]) -> UnitMean:
    """Return the mean over seeds of the mean CID over probes, from one `moments` per seed: scalars mean, se, n; `ci` is the t interval.

    Probes without a CID are left out, and so are seeds without any CID. The units are the seeds, since all probes of a training
    share its seed.
    """
    return over_units(np.array([mean_cid(one) for one in moments], np.float64))


def mean_cid(moments: np.ndarray) -> float:
    """Return the mean CID over the probes that have one; NaN if none has."""
    values = cid(moments)
    there = np.isfinite(values)
    return float(values[there].mean()) if there.any() else float("nan")


def _columns(moments: np.ndarray) -> np.ndarray:
    moments = np.asarray(moments, np.float64)
    if moments.ndim != 2 or moments.shape[1] != 6:
        raise ValueError(f"moments have shape {list(moments.shape)}, not [n_probes, 6]")
    return moments.T
