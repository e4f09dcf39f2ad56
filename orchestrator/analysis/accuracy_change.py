"""How a removal changes the accuracy on the measured examples other than the query, beside its change of the query."""

from __future__ import annotations

import numpy as np

from orchestrator.analysis.by_curve import by_curve
from orchestrator.analysis.cells import Cells

COLUMNS = ("accuracy", "accuracy_delta", "accuracy_ci_low", "accuracy_ci_high", "accuracy_ci_fixed_low", "accuracy_ci_fixed_high")  # fmt: skip


def accuracy_columns(
    cells: Cells, queries: slice = slice(None), *, only_seeds_vary: bool = False
) -> dict[str, np.ndarray]:
    """Return the columns COLUMNS over the complete cells of `queries`: arrays [n_methods, n_groups, n_ks].

    accuracy: mean accuracy of the retrains without the removed examples. accuracy_delta: mean of accuracy(removal) -
    accuracy(reference of the same repeat), both as shares of the measured examples other than the query. accuracy_ci_*: its interval for
    queries of this kind; accuracy_ci_fixed_*: for these queries (orchestrator.analysis.intervals.MeanEstimate). With `only_seeds_vary`
    the two are equal. All are NaN if an accuracy is unknown.
    """
    if cells.accuracy is None or cells.reference_accuracy is None:
        return {name: np.full(cells.delta.shape[:3], np.nan) for name in COLUMNS}
    accuracy = cells.accuracy[..., queries, :]
    level = by_curve(cells, accuracy, queries).mean
    change = by_curve(cells, accuracy - cells.reference_accuracy[queries], queries)
    wide = change.ci_fixed if only_seeds_vary else change.ci
    return dict(zip(COLUMNS, (level, change.mean, *wide, *change.ci_fixed), strict=True))
