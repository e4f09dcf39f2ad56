"""Estimates of curves that need not have the same repeats: each from the repeats it was asked for."""

from __future__ import annotations

import numpy as np

from orchestrator.analysis.cells import Cells
from orchestrator.analysis.intervals import MeanEstimate, estimate


def by_curve(cells: Cells, y: np.ndarray, queries: slice = slice(None)) -> MeanEstimate:
    """`estimate` of every curve over its own complete cells: y [n_methods, n_groups, ..., n_queries, n_repeats].

    `queries`: those that y holds. The counts `n_queries`, `n_repeats` are int arrays like the rest, [n_methods, n_groups, ...].
    """
    return joined_estimate(cells, np.asarray(y, np.float64), cells.asked_repeats, queries)


def joined_estimate(cells: Cells, y: np.ndarray, n_repeats: np.ndarray, queries: slice = slice(None)) -> MeanEstimate:
    """`estimate` of layouts y [*n_repeats.shape, ..., n_queries, n_repeats], each over its first n_repeats: arrays [...]."""
    blank = np.full(y.shape[:-2], np.nan)
    fields = {name: blank.copy() for name in ("mean", "se", "df", "se_fixed", "df_fixed")}
    counts = {name: np.zeros(y.shape[:-2], int) for name in ("n_queries", "n_repeats")}
    for n in np.unique(n_repeats):
        chosen = n_repeats == n
        found = estimate(y[chosen][..., :n], cells.complete[queries, :n], cells.widening(int(n)))
        for name, array in (fields | counts).items():
            array[chosen] = getattr(found, name)
    return MeanEstimate(**fields, **counts)  # type: ignore[arg-type]
