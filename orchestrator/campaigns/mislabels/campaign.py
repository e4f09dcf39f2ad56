"""Mislabel patterns: train repeatedly, and cluster the examples that stay misclassified by their influence on each other.

Yeh et al. 2022, appendix A. The rankings of suspects are judged where true labels are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.analysis import model_checks, query_checks
from orchestrator.analysis.checks import Check
from orchestrator.campaigns.checks import reference_accuracy
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.mislabels.block import MislabelsBlock
from orchestrator.campaigns.mislabels.difficult import RepeatedOutputs
from orchestrator.campaigns.mislabels.results import mislabel_results
from orchestrator.campaigns.plan import CellTable
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.records import LedgerRow
from orchestrator.report.data import CampaignPage


class Mislabels(MislabelsBlock):
    """The mislabels campaign: its config block (see MislabelsBlock) with results, checks and page."""

    def results(self, scored: Scored, plan: CellTable, rows: Mapping[str, LedgerRow]) -> Results:
        """Return the tables of suspects and clusters, and with true labels those of retrieval."""
        outcomes = [rows[work.spec_id].outcome for work in plan.works]
        return mislabel_results(self, scored, RepeatedOutputs.of(outcomes, scored.experiment.train.labels))

    def checks(
        self, scored: Scored, plan: CellTable, rows: Mapping[str, LedgerRow], results: Results
    ) -> Sequence[Check]:
        """Return the checks of the models and the scores; the queries are wrong on purpose."""
        experiment = scored.experiment
        ok = sum(rows[work.spec_id].outcome.status == "ok" for work in plan.works)
        matrices = ((label, scored.matrix(g.key, label).scores) for g in scored.groups for label in experiment.scored)
        return [
            reference_accuracy(scored, plan, rows),
            model_checks.repeats_check(ok, n_asked=len(plan.works)),
            model_checks.scoring_models_check(len(scored.groups), judges_own_model=False),
            query_checks.scores_check(matrices),
        ]

    def page(self, finished: FinishedRun) -> CampaignPage:
        """Return the report sections: retrieval, clusters with their words and examples, distances, suspects."""
        from orchestrator.campaigns.mislabels.page import mislabels_page  # on demand: imports matplotlib

        return mislabels_page(self, finished)
