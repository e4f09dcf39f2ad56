"""The base class of campaigns: a config block that plans the retrains which answer its question, and analyses their outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from influence.checkpoint import QueryBlock
from orchestrator.analysis.checks import Check, worded
from orchestrator.campaigns.checks import common_checks
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.plan import CampaignPlan
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.config.schema import CampaignBlock
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.scoring_work import ScoringGroup
from orchestrator.records import LedgerRow
from orchestrator.report.data import CampaignPage
from orchestrator.tracking.children import headline_children
from orchestrator.tracking.record import CampaignRecord
from tasks.base import Numerics


class Campaign(CampaignBlock):
    """A campaign's config block with its hooks.

    A run calls the hooks `check`, `bounds`, `scoring_groups`, `planned`, `results`, `checks`, `page` and `tracking` in this order;
    `refit plan` also calls `advice`, the report calls `asked`, and `refit explain` calls `removable`. A user-defined campaign must
    implement `bounds`, `planned` and `results`; the other hooks have defaults.

    `plans_by_scores`: the plan depends on scores, as it does if methods choose the removed examples. If it is False, `planned` is
    called before any score exists, and `refit plan` shows exact counts.
    """

    plans_by_scores: ClassVar[bool] = True

    def scoring_groups(self, experiment: Experiment, numerics: Numerics) -> list[ScoringGroup]:
        """Return the models whose scores the campaign needs, in groups.

        By default this is one group of `scores.models` reference models, with seeds different from those of all repeats. A campaign
        without queries has none.
        """
        if not self.asks_queries:
            return []
        return [ScoringGroup("", experiment.main.label, tuple(experiment.scoring_works(numerics)))]

    def removable(self, experiment: Experiment, queries: QueryBlock) -> np.ndarray | None:
        """Return the rows of the train split that may be removed for each of `queries`: int64 [n_queries, n]; None for all rows."""
        return None

    def bounds(self, experiment: Experiment, n_queries: int) -> tuple[int, int]:
        """Return (number of cells, largest possible number of distinct retrains), for the time before the plan is known."""
        raise NotImplementedError

    def planned(self, scored: Scored) -> CampaignPlan:
        """Return the plan: the distinct retrains and the cells that need them."""
        raise NotImplementedError

    def results(self, scored: Scored, plan: Any, rows: Mapping[str, LedgerRow]) -> Results:
        """Return the tables and verdicts. `rows`: spec id -> ledger row, of the plan and of the scoring models."""
        raise NotImplementedError

    def checks(self, scored: Scored, plan: Any, rows: Mapping[str, LedgerRow], results: Results) -> Sequence[Check]:
        """Return the checks of `results`: reasons for a careful reader to doubt its verdicts, which are shown with every verdict."""
        return common_checks(scored, plan, rows, results)

    def checked_results(self, scored: Scored, plan: Any, rows: Mapping[str, LedgerRow]) -> Results:
        """Return the results with their checks, and with their sentences in the wording that the checks allow."""
        results = self.results(scored, plan, rows)
        checks = tuple(self.checks(scored, plan, rows, results))
        in_short, verdicts = (worded(sentences, checks) for sentences in (results.in_short, results.verdicts))
        return replace(results, in_short=in_short, verdicts=verdicts, checks=checks)

    def page(self, finished: FinishedRun) -> CampaignPage:
        """Return the campaign's part of the report: by default a figure of the headline table, and all tables."""
        from orchestrator.report.ready_made import tables_page  # on demand, since it imports matplotlib

        results, name = finished.results, finished.experiment.settings.campaign
        asked = self.asked(finished.experiment, finished.plan) or list(self.model_dump(mode="json").items())
        return tables_page([("Campaign", name), *asked], results.tables, results.labels, results.headline)

    def tracking(self, finished: FinishedRun) -> CampaignRecord:
        """Return the campaign's part of the tracking record: by default its block as parameters, and a child run per headline row."""
        results, name = finished.results, finished.experiment.settings.campaign
        params = {f"{name}.{key}": value for key, value in self.model_dump(mode="json").items()}
        last = max(finished.committed_ms.values())
        return CampaignRecord(params, headline_children(results.tables[results.headline], results.labels, last))

    def advice(self, scored: Scored, plan: Any, rows: Mapping[str, LedgerRow]) -> str:
        """Return a sentence on what would narrow the intervals most cheaply, from the finished `rows`; "" if there is no advice."""
        return ""

    def asked(self, experiment: Experiment, plan: Any) -> list[tuple[str, str]]:
        """Return the campaign's question and design for the report: (label, value) pairs."""
        return []
