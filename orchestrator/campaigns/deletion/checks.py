"""The checks of a deletion campaign: the common ones, and those of controls, of removals that break the model, and of replaced words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from orchestrator.analysis import model_checks, query_checks
from orchestrator.analysis.checks import Check
from orchestrator.campaigns.checks import Rows, common_checks
from orchestrator.campaigns.deletion.accuracy import accuracy_on_others
from orchestrator.campaigns.deletion.word_edits import SIDES
from orchestrator.campaigns.plan import NOT_ASKED, Plan
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored


def deletion_checks(scored: Scored, plan: Plan, rows: Rows, results: Results) -> list[Check]:
    """Return the common checks, and those for controls that change the measurement and removals that break the model.

    With groups of words there is one more, for examples without a key word.
    """
    split = scored.queries("").split
    drops = dict(_drops(scored, plan, rows))
    return [
        *common_checks(scored, plan, rows, results),
        query_checks.controls_check(results.tables["summary"].to_dict("records"), plan.controls),
        model_checks.broken_models_check(drops, split),
        *([query_checks.key_words_check(shares)] if (shares := _replaced(plan)) else []),
    ]


def _replaced(plan: Plan) -> dict[tuple[str, str, int], float]:
    """Return (method, group of words, k) -> the share of the first k examples in which a word is replaced, mean over queries."""
    found = {}
    for m, g, k in np.ndindex(plan.cell.shape[:3]):
        if plan.groups[g] in SIDES:
            edited = [plan.works[index].edit.n_examples for index in plan.cell[m, g, k, :, 0].tolist()]
            found[plan.methods[m], plan.groups[g], plan.ks[k]] = float(np.mean(edited)) / plan.ks[k]
    return found


def _drops(scored: Scored, plan: Plan, rows: Rows) -> Iterator[tuple[tuple[str, str, int], float]]:
    """Yield (method, group, k) and the mean drop, over (query, repeat), of the accuracy on the measured examples other than the query."""
    others = accuracy_on_others(scored.experiment, plan, scored.queries(""), rows)
    queries = np.arange(len(plan.query_ids))[:, None]
    for m, g, k in np.ndindex(plan.cell.shape[:3]):
        cell = plan.cell[m, g, k]
        drop = np.where(cell != NOT_ASKED, others[plan.reference].T - others[cell, queries], np.nan)
        known = drop[np.isfinite(drop)]
        yield (plan.methods[m], plan.groups[g], plan.ks[k]), float(known.mean()) if len(known) else float("nan")
