"""Means over independent units (data seeds, repeats) with t intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.intervals import bounds, t_test_p
from orchestrator.analysis.layout import ROUNDING


@dataclass(frozen=True)
class UnitMean:
    """Mean, standard error and number of units: arrays [...]; the mean is NaN without a unit, se with fewer than two."""

    mean: np.ndarray
    se: np.ndarray
    n: np.ndarray

    @property
    def ci(self) -> tuple[np.ndarray, np.ndarray]:
        """95% t interval, mean -/+ t(n - 1) se: (low, high); both NaN if all units are equal."""
        return bounds(self.mean, self.se, np.maximum(self.n - 1.0, 1.0))

    @property
    def p(self) -> np.ndarray:
        """Two-sided p of mean = 0 by the t test, or 2^(1 - n) if all units are equal (`t_test_p`).

        Units can be equal by chance, for example shares of few queries.
        """
        return t_test_p(self.mean, self.se, np.maximum(self.n - 1.0, 1.0), self.n)


def over_units(values: np.ndarray) -> UnitMean:
    """Return the mean over the last axis of values [..., n_units]; the units must be independent, and NaN marks a missing unit.

    se = sqrt(sum (x - mean)^2 / (n - 1) / n); a spread below the rounding error of the values gives 0.
    """
    values = np.asarray(values, np.float64)
    there = np.isfinite(values)
    n = there.sum(axis=-1)
    if not values.shape[-1]:
        blank = np.full(n.shape, np.nan)
        return UnitMean(blank, blank, n)
    first = np.take_along_axis(values, there.argmax(axis=-1)[..., None], axis=-1)
    first = np.where(np.isfinite(first), first, 0.0)
    shifted = np.where(there, values - first, 0.0)  # so that constant values have a spread of exactly 0
    centre = shifted.sum(axis=-1, keepdims=True) / np.maximum(n, 1)[..., None]
    squares = (np.where(there, shifted - centre, 0.0) ** 2).sum(axis=-1)
    variance = squares / np.maximum(n - 1, 1)
    noise = ROUNDING * np.where(there, np.abs(values), 0.0).max(axis=-1)
    se = np.where(variance <= noise**2, 0.0, np.sqrt(variance / np.maximum(n, 1)))
    return UnitMean(np.where(n > 0, (first + centre)[..., 0], np.nan), np.where(n > 1, se, np.nan), n)
