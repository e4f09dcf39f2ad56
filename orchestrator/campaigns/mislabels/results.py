"""The results of a mislabels campaign: suspects, clusters, and how well rankings of suspects retrieve the mislabeled examples."""

from __future__ import annotations

import numpy as np
import pandas as pd

from orchestrator.analysis.retrieval import Ranking, retrievals
from orchestrator.campaigns.mislabels import tables
from orchestrator.campaigns.mislabels.block import SELF, MislabelsBlock
from orchestrator.campaigns.mislabels.clusters import InfluenceClusters
from orchestrator.campaigns.mislabels.difficult import RepeatedOutputs
from orchestrator.campaigns.mislabels.suspects import Suspects
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.config.yaml_files import ConfigError
from orchestrator.experiment.experiment import Experiment
from tasks.seeds import generator

COVERS = (
    "The intervals ci_low to ci_high cover that other examples and other models would have been drawn; ci_fixed_low to ci_fixed_high cover "
    "other examples only. Models are the {repeats} repeated trainings for loss, the {models} scoring models for self_influence and "
    "clusters, and {repeats} orders for random. {one}The intervals of the ranking clusters take as given which examples are difficult."
)
ONE = "With one scoring model, the intervals of self_influence and clusters cover examples only. "


def mislabel_results(block: MislabelsBlock, scored: Scored, repeated: RepeatedOutputs) -> Results:
    """Return the tables, and with true labels the verdicts on the rankings."""
    experiment = scored.experiment
    found = suspects(block, scored, repeated)
    made = {
        "mislabels": tables.suspects_table(found, experiment.train),
        "clusters": tables.clusters_table(found, experiment.train.classes, block.smallest),
        "linkages": tables.linkages_table(found, block.smallest),
    }
    notes = _failed(repeated, len(experiment.seeds))
    if found.mislabeled is None:
        return Results(made, (), headline="linkages", labels=("linkage",), notes=notes, view=found)
    retrieved, contrasts = _judged(block, experiment, found)
    covers = COVERS.format(
        repeats=repeated.n_models, models=len(scored.groups), one=ONE if len(scored.groups) == 1 else ""
    )
    return Results(
        {**made, **retrieved, "contrasts": contrasts},
        tuple(tables.verdicts(contrasts)),
        headline="retrieval",
        labels=("ranking",),
        notes=(*notes, covers),
        view=found,
    )


def suspects(block: MislabelsBlock, scored: Scored, repeated: RepeatedOutputs) -> Suspects:
    """Collect outputs, scores and true labels. Raises InputError if the scores are no inner products."""
    experiment = scored.experiment
    (label,) = experiment.scored
    queries, train_ids = scored.queries(scored.groups[0].key), experiment.train.ids
    matrices = [scored.matrix(group.key, label).reordered(queries.ids, queries.ids) for group in scored.groups]
    itself = [scored.matrix(group.key, SELF).reordered(queries.ids[:1], train_ids) for group in scored.groups]
    clusters = InfluenceClusters(
        np.stack([matrix.scores for matrix in matrices]).astype(np.float64), block.linkage, block.threshold
    )
    try:
        _ = clusters.distance
    except ValueError as error:
        raise ConfigError(f"{experiment.config.where}: methods[0]", f"{label}: {error}") from error
    self_influence = np.stack([matrix.scores[0] for matrix in itself]).astype(np.float64)
    return Suspects(repeated, queries.rows, clusters, self_influence, block.true_labels(experiment))


def rankings(found: Suspects, seeds: tuple[int, ...]) -> list[Ranking]:
    """Return the rankings of all training examples by suspicion: self_influence, clusters, loss and random.

    clusters: the size of an example's cluster, 0 for an example that is not difficult. random: one order per seed.
    """
    n = len(found.repeated.labels)

    def spread_out(sizes: np.ndarray) -> np.ndarray:
        suspicion = np.zeros(n)
        suspicion[found.rows] = sizes
        return suspicion

    clusters = found.clusters
    orders = np.array([generator(seed, "random suspects").permutation(n) for seed in seeds], np.float64)
    return [
        Ranking.by_mean("self_influence", "scoring models", found.self_influence),
        Ranking(
            "clusters",
            "scoring models",
            [spread_out(clusters.sizes)],
            [[spread_out(sizes)] for sizes in clusters.sizes_without()],
        ),
        Ranking.by_mean("loss", "repeats", found.repeated.losses),
        Ranking.by_each("random", "orders", orders),
    ]


def _judged(
    block: MislabelsBlock, experiment: Experiment, found: Suspects
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return the tables of retrieval, and the contrasts between rankings."""
    truth = found.mislabeled
    assert truth is not None
    ks = sorted({*block.k, int(truth.sum())})
    rng = generator(experiment.seeds[0], "bootstrap of examples")
    judged = retrievals(rankings(found, experiment.seeds), truth, ks, block.draws, rng)
    made = {"retrieval": tables.retrieval_table(judged, truth), "retrieval_at_k": tables.at_k_table(judged, ks)}
    return made, tables.contrasts_table(judged, len(truth))


def _failed(repeated: RepeatedOutputs, n_asked: int) -> tuple[str, ...]:
    n_failed = n_asked - repeated.n_models
    return (f"{n_failed} of {n_asked} repeated trainings diverged or failed and are left out.",) if n_failed else ()
