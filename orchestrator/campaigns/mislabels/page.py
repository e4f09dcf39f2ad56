"""The report sections of a mislabels campaign: retrieval, clusters with their words and examples, distances, and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from influence.base import Method
from influence.diagnostics.mislabel_clusters import common_words
from influence.scoring import word_contributions
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.mislabels.block import MislabelsBlock
from orchestrator.campaigns.mislabels.figures import distances_svg
from orchestrator.campaigns.mislabels.suspects import Suspects
from orchestrator.report.data import CampaignPage, Section
from orchestrator.report.ready_made import interval_section, table_sections
from orchestrator.storage.checkpoints import CheckpointError
from tasks.hooks import overrides

CLUSTERS_SHOWN = 20
EXAMPLES_SHOWN = 5
PAIRED = 10  # members of a cluster whose pairs give its common words
WORDS_SHOWN = 8
TEMPLATE = Path(__file__).parent / "templates" / "clusters.html.jinja"
EXPLAINED = (
    "Models are trained repeatedly with different seeds. Training examples that many of them still classify wrongly at the end are difficult: "
    "their given label may be wrong. The influence distance of two of them is 1 minus their influence on each other, divided by the root of "
    "their influences on themselves: 0 if both gradients have the same direction, 1 if they have nothing in common, 2 if they are opposed. "
    "Examples in one cluster may be mislabeled for the same reason."
)


def mislabels_page(block: MislabelsBlock, finished: FinishedRun) -> CampaignPage:
    """Return the campaign's part of the report."""
    results, experiment, found = finished.results, finished.experiment, finished.results.view
    (label,) = experiment.scored
    asked = [
        ("Campaign", "mislabels"),
        ("Repeated trainings", str(len(experiment.seeds))),
        ("Difficult", f"misclassified by a share of at least {block.difficult:g} of them"),
        ("Influence", f"{label}, {len(finished.scored.groups)} scoring model(s)"),
        ("Clustering", f"agglomerative, {block.linkage} linkage, threshold {block.threshold:g}"),
        ("True labels", f"column {block.truth.column}" if block.truth else "not given"),
    ]
    retrieval = results.tables.get("retrieval")
    figure = [] if retrieval is None else interval_section(retrieval, ["ranking"])
    by_table = table_sections(
        results.tables, [*results.labels, "baseline", "cluster", "train_id", "linkage"], results.headline
    )
    sections = [*figure, by_table[0], _clusters(block, finished, found), *by_table[1:]]
    return CampaignPage(asked, EXPLAINED, sections)


def _clusters(block: MislabelsBlock, finished: FinishedRun, found: Suspects) -> Section:
    """Return the section of the clusters, the largest first."""
    table = finished.results.tables["clusters"]
    shown = table.head(CLUSTERS_SHOWN).to_dict("records")
    members = [np.flatnonzero(found.clusters.labels == row["cluster"]) for row in shown]
    words = _words(finished, found, members)
    cards = [
        {**row, "words": words[i], "examples": _examples(finished, found, members[i])} for i, row in enumerate(shown)
    ]
    data = {
        "clusters": cards,
        "n_clusters": len(table),
        "smallest": block.smallest,
        "has_truth": found.true is not None,
        "words": any(words),
    }
    inside = np.flatnonzero(found.clusters.sizes >= block.smallest)
    drawn = {"distances": distances_svg(found.clusters.distance, found.clusters.labels, inside)} if len(inside) else {}
    return Section("clusters", "Clusters of difficult examples", TEMPLATE, data, drawn, nav="Clusters, one by one")


def _examples(finished: FinishedRun, found: Suspects, members: np.ndarray) -> list[dict[str, Any]]:
    """Return the members of a cluster with the largest mean losses."""
    train, repeated = finished.experiment.train, found.repeated
    loss = repeated.losses.mean(axis=0)
    rows = sorted(found.rows[members], key=lambda row: (-loss[row], int(train.ids[row])))[:EXAMPLES_SHOWN]
    return [
        {
            "id": train.shown_id(int(train.ids[row])),
            "text": train.texts[row] if train.texts is not None else str(train.features[row]),  # pyright: ignore[reportOptionalSubscript]
            "label": train.classes[int(train.labels[row])],
            "predicted": train.classes[int(repeated.predicted[row])],
            "wrong_frac": float(repeated.wrong_frac[row]),
            "loss": float(loss[row]),
            "true": None if found.true is None else train.classes[int(found.true[row])],
        }
        for row in rows
    ]


def _words(finished: FinishedRun, found: Suspects, clusters: Sequence[np.ndarray]) -> list[list[tuple[str, float]]]:
    """Return the common words of every cluster, from the pairs of its first PAIRED members under all scoring models.

    They are empty if the method has no word decomposition, or if the weights of the scoring models are gone.
    """
    none: list[list[tuple[str, float]]] = [[] for _ in clusters]
    experiment = finished.experiment
    (method,) = experiment.scored.values()
    if not clusters or not overrides(method, Method.words):
        return none
    task: Any = experiment.task
    task.prepare()
    ids = experiment.train.ids[found.rows]
    pairs = [[(int(ids[i]), int(ids[j])) for i, j in combinations(members[:PAIRED], 2)] for members in clusters]
    together = [pair for some in pairs for pair in some]
    try:
        by_model = [
            word_contributions(task, method, finished.checkpoints(group.key), finished.queries, together)
            for group in finished.scored.groups
        ]
    except CheckpointError:  # the clusters are shown without words
        return none
    no_words = frozenset(task.special_ids) | frozenset(task.tokeniser.replacements.values())  # the unknown word, too
    means = [
        # an inner product over words pairs every word with itself, so the first token of a part is its word
        common_words(
            ([(part[0], part[-1]) for part in of_model[pair]] for of_model in by_model for pair in some), no_words
        )
        for some in pairs
    ]
    return [_readable(task, found)[:WORDS_SHOWN] for found in means]


def _readable(task: Any, words: Sequence[tuple[int, float]]) -> list[tuple[str, float]]:
    """Return the words as text, without those that have no letter and no digit, such as commas."""
    found = [(task.token_text(token), value) for token, value in words]
    return [(word, value) for word, value in found if any(char.isalnum() for char in word)]
