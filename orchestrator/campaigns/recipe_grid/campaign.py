"""Comparison of recipes: every arm is searched over its grid, one setting is chosen on dev and compared on test with the baseline.

Han & Tsvetkov 2021, sections 6.2 and 6.3, tables 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.analysis.checks import Check
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.recipe_grid.block import RecipeGridBlock
from orchestrator.campaigns.recipe_grid.checks import recipe_grid_checks
from orchestrator.campaigns.recipe_grid.plan import RecipeGridPlan, recipe_grid_plan
from orchestrator.campaigns.recipe_grid.results import recipe_grid_results
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.records import LedgerRow
from orchestrator.report.data import CampaignPage


class RecipeGrid(RecipeGridBlock):
    """The recipe grid campaign: its config block (see RecipeGridBlock) with plan, results, checks and page."""

    def planned(self, scored: Scored) -> RecipeGridPlan:
        """Plan every setting with every seed; the first seed of all settings comes first."""
        return recipe_grid_plan(self.settings, self.reference, scored.experiment, scored.numerics)

    def results(self, scored: Scored, plan: RecipeGridPlan, rows: Mapping[str, LedgerRow]) -> Results:
        """Return the tables of trials, settings, accuracies and, if it was observed, the confound influence difference."""
        return recipe_grid_results(self, scored, plan, rows)

    def checks(
        self, scored: Scored, plan: RecipeGridPlan, rows: Mapping[str, LedgerRow], results: Results
    ) -> Sequence[Check]:
        """Return the checks of the chosen settings' accuracy, compared with the largest class, and of the number of seeds."""
        return recipe_grid_checks(self, scored, results)

    def page(self, finished: FinishedRun) -> CampaignPage:
        """Return the report sections: accuracies, levels of the ablated key, confound influence difference, failed trials, search."""
        from orchestrator.campaigns.recipe_grid.page import recipe_grid_page  # on demand, since it imports matplotlib

        return recipe_grid_page(self, finished)
