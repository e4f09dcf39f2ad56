"""Computes the tables of a deletion campaign in results/ from ledger rows; the same rows give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from influence.checkpoint import QueryBlock
from influence.controls import Control
from orchestrator.analysis import tables
from orchestrator.analysis.advice import advice
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.in_short import in_short
from orchestrator.analysis.repeats import savings
from orchestrator.analysis.two_controls import two_control_verdicts
from orchestrator.analysis.verdicts import verdicts
from orchestrator.campaigns.deletion.accuracy import accuracy_on_others
from orchestrator.campaigns.deletion.cells import deletion_cells
from orchestrator.campaigns.deletion.correct import are_mistakes, correct_note, correct_table, is_asked
from orchestrator.campaigns.outcomes import measured_values
from orchestrator.campaigns.plan import Plan
from orchestrator.campaigns.results import Results
from orchestrator.experiment.experiment import Experiment
from orchestrator.records import LedgerRow

TABLES = ("curves", "query_curves", "summary", "contrasts", "pairing", "holes")


def deletion_results(experiment: Experiment, plan: Plan, queries: QueryBlock, rows: Mapping[str, LedgerRow]) -> Results:
    """Return all tables and verdicts of a deletion campaign from the ledger rows of its plan."""
    values = measured_values(experiment, plan.works, queries, rows)
    cells = deletion_cells(plan, values, accuracy_on_others(experiment, plan, queries, rows))
    contrasts = tables.contrasts(cells)
    found = {
        "curves": tables.curves(cells),
        "query_curves": tables.query_curves(cells),
        "summary": tables.summary(cells),
        "contrasts": contrasts,
        "pairing": tables.pairing(cells),
        "holes": tables.holes(cells),
    }
    records = contrasts.to_dict("records")
    blind, by_label = _controls(experiment)
    short = in_short(found["summary"].to_dict("records"), records, blind, by_label, experiment.config.measurement.title)
    sentences = verdicts(records)
    if blind and by_label:
        sentences = two_control_verdicts(sentences, records, blind, by_label)
    adaptive, notes = _adaptive(cells, plan)
    if is_asked(experiment):
        found["correct"] = correct_table(cells)
        notes = (*notes, correct_note(found["correct"], mistakes=are_mistakes(experiment)))
    return Results(
        found | adaptive, tuple(sentences), n_excluded=cells.n_excluded, cells=cells, notes=notes, in_short=short
    )


def _controls(experiment: Experiment) -> tuple[str | None, str | None]:
    """Return the first control that removes any examples, and the first that chooses them by their label."""
    controls = {label: method for label, method in experiment.methods.items() if isinstance(method, Control)}
    blind = [label for label, control in controls.items() if not control.by_label]
    by_label = [label for label in controls if label not in blind]
    return next(iter(blind), None), next(iter(by_label), None)


def _adaptive(cells: Cells, plan: Plan) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Return the additional tables of adaptive repeats and a sentence on what they saved; both are empty for a fixed design."""
    if plan.stopping is None:
        return {}, ()
    designs = tables.designs(cells, len(plan.works), plan.n_full_repeat)
    return {"repeats": tables.repeats(cells), "designs": designs}, (savings(cells, designs.to_dict("records")),)


def deletion_advice(
    experiment: Experiment, plan: Plan, queries: QueryBlock, rows: Mapping[str, LedgerRow], *, shares_draws: bool = True
) -> str:
    """Return a sentence if, by the finished rows, more queries would narrow the widest interval more cheaply than more repeats; else "".

    `shares_draws`: several queries share the removal sets of a control.
    """
    cells = deletion_cells(plan, measured_values(experiment, plan.works, queries, rows))
    is_control = [shares_draws and method in plan.controls for method in plan.methods]
    n_shared = 1 + len(np.unique(plan.cell[is_control][..., 0]))
    return advice(cells, n_shared, (plan.n_full_repeat - n_shared) / len(plan.query_ids))
