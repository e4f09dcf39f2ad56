"""Computes the measurement of every query under every retrain from ledger rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from influence.checkpoint import QueryBlock
from orchestrator.experiment.experiment import Experiment
from orchestrator.records import LedgerRow, Work


def measured_values(
    experiment: Experiment, works: Sequence[Work], queries: QueryBlock, rows: Mapping[str, LedgerRow]
) -> np.ndarray:
    """Return the measurement of every query under every retrain: float64 [n_works, n_queries], NaN where the outcome is not ok or missing."""
    values = np.full((len(works), len(queries.ids)), np.nan)
    measured = experiment.task.measured[queries.split]
    order = np.argsort(measured)
    position = order[np.searchsorted(measured, queries.rows, sorter=order)]
    for index, work in enumerate(works):
        row = rows.get(work.spec_id)
        if row is not None and row.outcome.status == "ok":
            values[index] = experiment.config.measurement.value(
                row.outcome.outputs[queries.split][position], queries.labels
            )
    return values
