"""Recipes beside each other: every arm searched over its grid, one setting chosen on dev, judged on test against the baseline.

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
    """Trains every setting of every arm under every seed, and reports on test what dev chose (see RecipeGridBlock)."""

    def planned(self, scored: Scored) -> RecipeGridPlan:
        """Every setting under every seed; the first seed of all settings first."""
        return recipe_grid_plan(self.settings, self.reference, scored.experiment, scored.numerics)

    def results(self, scored: Scored, plan: RecipeGridPlan, rows: Mapping[str, LedgerRow]) -> Results:
        """Trials, settings, accuracies and, where it was observed, the confound influence difference."""
        return recipe_grid_results(self, scored, plan, rows)

    def checks(
        self, scored: Scored, plan: RecipeGridPlan, rows: Mapping[str, LedgerRow], results: Results
    ) -> Sequence[Check]:
        """Accuracies of the chosen settings against the largest class, and seeds."""
        return recipe_grid_checks(self, scored, results)

    def page(self, finished: FinishedRun) -> CampaignPage:
        """Accuracies, levels of the ablated key, confound influence difference, failed trials and the search."""
        from orchestrator.campaigns.recipe_grid.page import recipe_grid_page  # on demand: it draws with matplotlib

        return recipe_grid_page(self, finished)
