"""Computes the measurement of every query under every retrain from ledger rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from influence.checkpoint import QueryBlock
from orchestrator.experiment.experiment import Experiment
from orchestrator.records import LedgerRow, Work
from tasks.data.edits import Edit


def measured_values(
    experiment: Experiment, works: Sequence[Work], queries: QueryBlock, rows: Mapping[str, LedgerRow]
) -> np.ndarray:
    """Return the measurement of every query under every retrain: float64 [n_works, n_queries], NaN where the outcome is not ok or missing.

    If the measurement reads the label that the reference predicts, `rows` must hold the retrains of `reference_ids`, too.
    """
    values = np.full((len(works), len(queries.ids)), np.nan)
    measured = experiment.task.measured[queries.split]
    order = np.argsort(measured)
    position = order[np.searchsorted(measured, queries.rows, sorter=order)]
    of_work = reference_ids(experiment, works)

    def outputs_of(spec_id: str) -> np.ndarray | None:
        row = rows.get(spec_id)
        return row.outcome.outputs[queries.split][position] if row is not None and row.outcome.status == "ok" else None

    for index, work in enumerate(works):
        outputs, labels = outputs_of(work.spec_id), queries.labels
        if of_work:
            reference = outputs_of(of_work[index])
            labels = None if reference is None else reference.argmax(axis=1)
        if outputs is not None and labels is not None:
            values[index] = experiment.config.measurement.value(outputs, labels)
    return values


def reference_ids(experiment: Experiment, works: Sequence[Work]) -> list[str]:
    """Return the spec id of the reference of every retrain, which has the same seed and removes nothing; [] if the measurement does not need it."""
    if experiment.config.measurement.label != "reference":
        return []
    nothing, found = Edit().identity(), {}
    for work in works:
        training = (work.arm, work.spec.seed)
        if training not in found:
            found[training] = work.spec.sibling(nothing, work.spec.seed).spec_id
    return [found[work.arm, work.spec.seed] for work in works]
