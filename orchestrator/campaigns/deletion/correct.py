"""The share of correct answers under every curve and without any removal, for the measurement `correct`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from orchestrator.analysis.by_curve import by_curve, joined_estimate
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.checks import percent
from orchestrator.analysis.curves import Row, estimate_columns, row_at
from orchestrator.experiment.experiment import Experiment
from tasks.measurements import Correct

REFERENCE = "reference"  # in the column `method`: the retrains without any removal
_ENDS = ("ci_low", "ci_high", "ci_fixed_low", "ci_fixed_high")


def is_asked(experiment: Experiment) -> bool:
    """Return whether the campaign measures if answers are correct."""
    return isinstance(experiment.config.measurement, Correct)


def are_mistakes(experiment: Experiment) -> bool:
    """Return whether the queries were chosen because the scoring model answers them wrongly."""
    where = experiment.main.asked.where
    return where is not None and where.correct is False


def correct_table(cells: Cells) -> pd.DataFrame:
    """Return the share of correct answers with its intervals: k = 0, the references, and then every method, group and k.

    It is the mean of the measurement itself over the complete cells, where `curves` has its change. Intervals are those of `curves`, cut at
    0 and 1. If the queries were chosen because one model was wrong about them, some are answered correctly by a retrain without any
    removal (regression to the mean); the row k = 0 shows how many.
    """
    assert cells.values is not None
    assert cells.reference is not None
    columns = estimate_columns(by_curve(cells, cells.values), "correct", cells.excluded()[..., None])
    rows: list[Row] = [
        {"method": REFERENCE, "group": "none", "k": 0, **_reference(cells)},
        *(
            {"method": method, "group": group, "k": k, **row_at(columns, (m, g, i))}
            for m, method in enumerate(cells.methods)
            for g, group in enumerate(cells.groups)
            for i, k in enumerate(cells.ks)
        ),
    ]
    table = pd.DataFrame(rows)
    table[list(_ENDS)] = table[list(_ENDS)].clip(0, 1)
    return table


def _reference(cells: Cells) -> Row:
    assert cells.reference is not None
    found = joined_estimate(cells, cells.reference[None], np.array([len(cells.repeats)]))
    return row_at(estimate_columns(found, "correct", np.array([cells.n_excluded])), (0,))


def correct_note(table: pd.DataFrame, *, mistakes: bool) -> str:
    """Return a sentence on the references. `mistakes`: the queries were chosen because the scoring model answers them wrongly."""
    row = table.iloc[0]
    if np.isnan(row["correct"]):
        return "No query has a complete repeat, so the share of correct answers is not known."
    found = f"Without any removal (k = 0) {percent(row['correct'])} of the answers are correct"
    if not np.isnan(row["ci_low"]):
        found += f" (95% interval for queries of this kind {percent(row['ci_low'])} to {percent(row['ci_high'])})"
    if not mistakes:
        return f"{found}."
    return (
        f"{found}: the queries were chosen because the scoring model is wrong about them, and other models are wrong about fewer of them "
        "(regression to the mean). Only the difference from k = 0 is an effect of removals."
    )
