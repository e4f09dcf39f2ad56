"""The checks of a debias campaign; word vectors have no accuracy to check."""

from __future__ import annotations

from orchestrator.analysis import model_checks, query_checks
from orchestrator.analysis.checks import Check
from orchestrator.analysis.rests_on import fewest_seeds_of_debias
from orchestrator.campaigns.checks import checks_of_scores
from orchestrator.campaigns.debias.block import DebiasBlock
from orchestrator.campaigns.debias.results import has_verdict
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored


def debias_checks(campaign: DebiasBlock, scored: Scored, results: Results) -> list[Check]:
    """Check the number of seeds, whether fine-tuning on random sentences changes the effect too, and whether methods rank sentences."""
    experiment = scored.experiment
    controls = [label for label, is_control in experiment.controls.items() if is_control]
    n_asked, contrasts = len(experiment.seeds), results.tables["effect_contrasts"]
    judged = contrasts.loc[has_verdict(contrasts, campaign)]
    n_seeds = fewest_seeds_of_debias(judged, results.tables["directions"], n_asked)
    return [
        model_checks.repeats_check(n_seeds, n_asked=n_asked),
        query_checks.random_sets_check(results.tables["directions"].to_dict("records"), controls),
        *checks_of_scores(scored),
    ]
