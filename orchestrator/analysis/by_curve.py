"""Estimates of curves that may have different numbers of repeats: each curve uses its own."""

from __future__ import annotations

import numpy as np

from orchestrator.analysis.cells import Cells
from orchestrator.analysis.intervals import MeanEstimate, estimate


def by_curve(cells: Cells, y: np.ndarray, queries: slice = slice(None)) -> MeanEstimate:
    """Apply `estimate` to every curve, over the complete cells of its own repeats.

    y: float [n_methods, n_groups, ..., n_queries, n_repeats]; `queries`: the slice of the queries that y holds. All fields of the result
    are arrays [n_methods, n_groups, ...], including the counts `n_queries` and `n_repeats` (int).
    """
    return joined_estimate(cells, np.asarray(y, np.float64), cells.asked_repeats, queries)


def joined_estimate(cells: Cells, y: np.ndarray, n_repeats: np.ndarray, queries: slice = slice(None)) -> MeanEstimate:
    """Apply `estimate` to layouts y [*n_repeats.shape, ..., n_queries, n_repeats], each over its first `n_repeats` repeats: arrays [...]."""
    blank = np.full(y.shape[:-2], np.nan)
    fields = {name: blank.copy() for name in ("mean", "se", "df", "se_fixed", "df_fixed")}
    counts = {name: np.zeros(y.shape[:-2], int) for name in ("n_queries", "n_repeats")}
    for n in np.unique(n_repeats):
        chosen = n_repeats == n
        found = estimate(y[chosen][..., :n], cells.complete[queries, :n], cells.widening(int(n)))
        for name, array in (fields | counts).items():
            array[chosen] = getattr(found, name)
    return MeanEstimate(**fields, **counts)  # type: ignore[arg-type]
