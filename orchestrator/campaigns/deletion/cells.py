"""Computes the changes that a deletion campaign measured from the measurement of every query under every retrain."""

from __future__ import annotations

import numpy as np

from orchestrator.analysis.cells import Cells
from orchestrator.campaigns.plan import NOT_ASKED, Plan


def deletion_cells(plan: Plan, values: np.ndarray, accuracy: np.ndarray | None = None) -> Cells:
    """Return the paired deltas f(query; removal) - f(query; reference of the same repeat).

    `values` float64 [n_works, n_queries]: the measurement of every query under every retrain, NaN where there is none.
    `accuracy`, of the same shape: the accuracy of every retrain on the measured examples other than the query.
    """
    removal, reference = _of_cells(plan, values)
    accurate = (None, None) if accuracy is None else _of_cells(plan, accuracy)
    return Cells(
        methods=plan.methods,
        groups=plan.groups,
        ks=plan.ks,
        query_ids=plan.query_ids,
        repeats=tuple(range(len(plan.seeds))),
        delta=removal - reference,
        values=removal,
        reference=reference,
        accuracy=accurate[0],
        reference_accuracy=accurate[1],
        controls=plan.controls,
        n_asked=plan.n_asked,
        stopping=plan.stopping,
    )


def _of_cells(plan: Plan, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of the removals [n_methods, n_groups, n_ks, n_queries, n_repeats] and of the references [n_queries, n_repeats]."""
    queries = np.arange(len(plan.query_ids))[:, None]
    return np.where(plan.cell != NOT_ASKED, values[plan.cell, queries], np.nan), values[plan.reference].T
