"""The accuracy of every retrain on the measured examples other than a query: it shows whether a removal broke the model."""

from __future__ import annotations

import numpy as np

from influence.checkpoint import QueryBlock
from orchestrator.campaigns.checks import Rows, gold_labels, measured_positions
from orchestrator.campaigns.plan import Plan
from orchestrator.experiment.experiment import Experiment


def accuracy_on_others(experiment: Experiment, plan: Plan, queries: QueryBlock, rows: Rows) -> np.ndarray:
    """Return the accuracy of every retrain on the measured examples except the query: float64 [n_works, n_queries].

    With n measured examples, of which the retrain classifies a share a correctly, it is (a n - [query is right]) / (n - 1).
    It is NaN where it is unknown: the retrain is not ok, the task has no classes, or only one example is measured.
    """
    arm = experiment.main
    found = np.full((len(plan.works), len(queries.ids)), np.nan)
    gold, position = gold_labels(arm, queries), measured_positions(arm, queries)
    n = len(arm.task.measured[queries.split])
    for index, work in enumerate(plan.works):
        row = rows.get(work.spec_id)
        accuracy = row.outcome.metrics.get(f"accuracy/{queries.split}") if row is not None else None
        if row is None or accuracy is None or row.outcome.status != "ok" or n < 2:
            continue
        is_right = row.outcome.outputs[queries.split][position].argmax(axis=1) == gold
        found[index] = (accuracy * n - is_right) / (n - 1)
    return found
