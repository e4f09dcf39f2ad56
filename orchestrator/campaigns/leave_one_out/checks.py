"""The checks of a leave-one-out campaign."""

from __future__ import annotations

from typing import Any

from orchestrator.analysis import model_checks
from orchestrator.analysis.checks import Check
from orchestrator.campaigns.checks import Rows, checks_of_queries, checks_of_scores, reference_accuracy, references
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored


def leave_one_out_checks(scored: Scored, plan: Any, rows: Rows, results: Results) -> list[Check]:
    """Return the common checks; units take the place of repeats, and every reference answers queries with the labels it decides itself."""
    units = results.tables["agreement"]["n_units"].tolist()
    judged = [(arm, arm.queries(outcome.outputs), outcome) for arm, outcome in references(scored, plan, rows)]
    found = [
        reference_accuracy(scored, plan, rows),
        model_checks.repeats_check(min(units, default=0), "units"),
    ]
    if judged:
        found += checks_of_queries(scored, judged[0][1], judged, len(judged[0][1].ids))
    return [*found, *checks_of_scores(scored)]
