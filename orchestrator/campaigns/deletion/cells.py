"""Computes the changes that a deletion campaign measured from the measurement of every query under every retrain."""

from __future__ import annotations

import numpy as np

from orchestrator.analysis.cells import Cells
from orchestrator.campaigns.plan import NOT_ASKED, Plan


def deletion_cells(plan: Plan, values: np.ndarray) -> Cells:
    """Return the paired deltas f(query; removal) - f(query; reference of the same repeat).

    `values` float64 [n_works, n_queries]: the measurement of every query under every retrain, NaN where there is none.
    """
    queries = np.arange(len(plan.query_ids))[:, None]
    removal = np.where(plan.cell != NOT_ASKED, values[plan.cell, queries], np.nan)
    reference = values[plan.reference].T
    return Cells(
        methods=plan.methods,
        groups=plan.groups,
        ks=plan.ks,
        query_ids=plan.query_ids,
        repeats=tuple(range(len(plan.seeds))),
        delta=removal - reference,
        values=removal,
        reference=reference,
        controls=plan.controls,
        n_asked=plan.n_asked,
        stopping=plan.stopping,
    )
