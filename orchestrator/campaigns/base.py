"""What a campaign is: a config block that says which retrains answer its question, and what is made of their outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

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
    """A campaign's config block with its hooks, in the order in which a run calls them.

    `check`, `bounds`, `scoring_groups`, `planned`, `results`, `checks`, `page` and `tracking`; `advice` and `asked` are asked for
    beside them. A campaign of one's own must give `bounds`, `planned` and `results`; the other hooks have defaults.

    `plans_by_scores`: the plan depends on scores, as it does where methods choose what is removed. Without, `planned` is called
    before any score is there, and `refit plan` counts exactly.
    """

    plans_by_scores: ClassVar[bool] = True

    def scoring_groups(self, experiment: Experiment, numerics: Numerics) -> list[ScoringGroup]:
        """The models whose scores are asked for: by default `scores.models` references, under seeds apart from every repeat's.

        A campaign that asks no queries has none.
        """
        if not self.asks_queries:
            return []
        return [ScoringGroup("", experiment.main.label, tuple(experiment.scoring_works(numerics)))]

    def bounds(self, experiment: Experiment, n_queries: int) -> tuple[int, int]:
        """(cells, largest number of distinct retrains) while the plan is not known."""
        raise NotImplementedError

    def planned(self, scored: Scored) -> CampaignPlan:
        """The plan, exact."""
        raise NotImplementedError

    def results(self, scored: Scored, plan: Any, rows: Mapping[str, LedgerRow]) -> Results:
        """The tables, from the ledger rows of the plan and of the scoring models by spec id."""
        raise NotImplementedError

    def checks(self, scored: Scored, plan: Any, rows: Mapping[str, LedgerRow], results: Results) -> Sequence[Check]:
        """What would make a careful reader doubt the verdicts of `results`; every verdict is shown with them."""
        return common_checks(scored, plan, rows, results)

    def checked_results(self, scored: Scored, plan: Any, rows: Mapping[str, LedgerRow]) -> Results:
        """The results with their checks, and the verdicts in the words that the checks allow."""
        results = self.results(scored, plan, rows)
        checks = tuple(self.checks(scored, plan, rows, results))
        return replace(results, verdicts=worded(results.verdicts, checks), checks=checks)

    def page(self, finished: FinishedRun) -> CampaignPage:
        """What the campaign adds to the report: by default the figure of the headline table, and every table."""
        from orchestrator.report.ready_made import tables_page  # on demand: it draws, and takes matplotlib along

        results, name = finished.results, finished.experiment.settings.campaign
        asked = self.asked(finished.experiment, finished.plan) or list(self.model_dump(mode="json").items())
        return tables_page([("Campaign", name), *asked], results.tables, results.labels, results.headline)

    def tracking(self, finished: FinishedRun) -> CampaignRecord:
        """What the campaign adds to the tracking store: by default its block as parameters, and a child per headline row."""
        results, name = finished.results, finished.experiment.settings.campaign
        params = {f"{name}.{key}": value for key, value in self.model_dump(mode="json").items()}
        last = max(finished.committed_ms.values())
        return CampaignRecord(params, headline_children(results.tables[results.headline], results.labels, last))

    def advice(self, scored: Scored, plan: Any, rows: Mapping[str, LedgerRow]) -> str:
        """What would narrow the intervals most cheaply, from the ledger rows there are; "" if there is nothing to say."""
        return ""

    def asked(self, experiment: Experiment, plan: Any) -> list[tuple[str, str]]:
        """What was asked, for the report: (label, value)."""
        return []
