"""The checks of a recipe grid."""

from __future__ import annotations

import numpy as np

from orchestrator.analysis import model_checks
from orchestrator.analysis.checks import Check
from orchestrator.analysis.model_checks import Accuracy
from orchestrator.analysis.rests_on import fewest_seeds_of_grid
from orchestrator.campaigns.recipe_grid.block import RecipeGridBlock
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored


def recipe_grid_checks(campaign: RecipeGridBlock, scored: Scored, results: Results) -> list[Check]:
    """Check whether the chosen settings are more accurate on test than the largest class, and whether there are enough seeds."""
    experiment, table, split = scored.experiment, results.tables["accuracy"], campaign.splits.test
    found = []
    for row in table.to_dict("records"):
        if np.isfinite(row["test"]):
            task = experiment.arms[row["setting"]].task
            labels = task.splits[split].labels[task.measured[split]]
            found.append(Accuracy.of(f"models of {row['setting']}", split, [row["test"]], labels))
    n_asked = len(experiment.seeds)
    n_seeds = fewest_seeds_of_grid(table, results.tables["trials"], campaign.reference, n_asked)
    return [
        model_checks.accuracy_check(found, "No chosen setting has an accuracy.", any_will_do=True),
        model_checks.repeats_check(n_seeds, n_asked=n_asked),
    ]
