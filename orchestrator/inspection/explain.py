"""`refit explain`: a query with its top examples, or a pair with the words that make its score, from what the store holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from influence import ranking
from influence.checkpoint import QueryBlock
from influence.matrix import ScoreMatrix
from influence.scoring import word_contributions
from orchestrator.report.data import QueryPage, ShownExample
from orchestrator.report.examples import query_page, shown_example
from orchestrator.stages.pipeline import Pipeline, Unfinished
from orchestrator.stages.score_shards import GroupScores
from orchestrator.storage.checkpoints import CheckpointError
from tasks.base import Split
from tasks.errors import InputError
from tasks.suggestions import did_you_mean, listed

GROUPS = ("proponents", "opponents")
EXAMPLES_SHOWN = 5
NEAR_SHOWN = 5


@dataclass(frozen=True)
class Explanation:
    """A query with its top examples per method and group; or, if a train example was asked for, that example per method.

    `scored_on`: the scoring group, "" if there is only one. `notes`: what is missing and why, one sentence each.
    """

    query: QueryPage
    pairs: Mapping[str, ShownExample]
    scored_on: str = ""
    notes: Sequence[str] = ()

    def json(self) -> dict[str, Any]:
        """Return the explanation as plain JSON values."""
        query, probability = self.query, self.query.probability
        found: dict[str, Any] = {
            "query": {
                "id": query.shown_id,
                "text": query.text,
                "label": query.label,
                "predicted": query.predicted or None,
                "probability_of_label": None if np.isnan(probability) else probability,
            },
            "notes": list(self.notes),
        }
        if self.scored_on:
            found["scored_on"] = self.scored_on
        if self.pairs:
            return {**found, "pairs": {label: _json(example) for label, example in self.pairs.items()}}
        methods = {
            label: {group: [_json(one) for one in examples] for group, examples in groups.items()}
            for label, groups in query.examples.items()
        }
        return {**found, "methods": methods}


def _json(example: ShownExample) -> dict[str, Any]:
    words = [{"query_word": one, "train_word": other, "contribution": value} for one, other, value in example.words]
    plain = {"id": example.shown_id, "score": example.score, "label": example.label, "text": example.text}
    return {**plain, **({"words": words} if words else {})}


def explain(pipeline: Pipeline, query: str, train: str | None = None, method: str | None = None) -> Explanation:
    """Explain one query of a run, or one pair, with the scores in the store; nothing is trained or scored.

    `query`, `train`: ids as the data gives them. `method`: the label of a method; by default every method with scores, or,
    for a pair, every method that can split its score by words. Raises InputError for an unknown id or label, or a method
    without words; Unfinished while the model or the scores are missing.
    """
    stage, key = _stage(pipeline)
    queries, task = stage.queries, stage.arm.task
    split, labels = task.splits[queries.split], _labels(pipeline, stage, method, for_words=train is not None)
    position = _position(split, queries.ids, query, "--query", "query of this run")
    row = int(queries.rows[position])
    matrices = {label: _matrix(stage, label) for label in labels}
    outputs = _outputs(pipeline, stage, row)
    if train is not None:
        train_split = task.splits["train"]
        train_id = int(
            train_split.ids[_position(train_split, train_split.ids, train, "--train", "id of the train split")]
        )
        pairs, notes = _pairs(stage, matrices, position, train_id)
        return Explanation(query_page(split, row, outputs, {}), pairs, key, notes)
    rows, notes = _removable(pipeline, stage, position)
    examples = {label: _tops(stage, matrix, position, rows) for label, matrix in matrices.items()}
    return Explanation(query_page(split, row, outputs, examples), {}, key, notes)


def _stage(pipeline: Pipeline) -> tuple[GroupScores, str]:
    """Return the first scoring group, and its key if there are several."""
    if not pipeline.campaign.asks_queries:
        campaign = pipeline.experiment.settings.campaign
        raise InputError(pipeline.run_dir.path, f"the campaign {campaign} asks no queries, so none can be explained")
    stages = pipeline.stages
    key, stage = next(iter(stages.items()))
    return stage, key if len(stages) > 1 else ""


def _labels(pipeline: Pipeline, stage: GroupScores, method: str | None, *, for_words: bool) -> list[str]:
    """Return the labels of the methods to show. Raises InputError for one that is unknown, a control, or without words."""
    scored, methods = stage.experiment.scored, pipeline.experiment.methods
    with_words = [label for label, one in scored.items() if one.has_words]
    allowed = listed(with_words if for_words else scored) or "none of this run"
    if method is None:
        if for_words and not with_words:
            raise InputError("--train", "no method of this run splits its scores by words; leave out --train")
        return with_words if for_words else list(scored)
    if method not in methods:
        raise InputError(
            "--method", f"{method!r} is no method of this run; allowed: {allowed}{did_you_mean(method, methods)}"
        )
    if method not in scored:
        raise InputError("--method", f"{method!r} is a control and has no scores; allowed: {allowed}")
    if for_words and method not in with_words:
        raise InputError("--method", f"{method!r} does not split its scores by words; allowed: {allowed}")
    return [method]


def _position(split: Split, ids: np.ndarray, asked: str, where: str, kind: str) -> int:
    """Return the position in `ids` of the id that the data gives as `asked`. Raises InputError that names near ids."""
    shown = [split.shown_id(int(one)) for one in ids]
    if asked in shown:
        return shown.index(asked)
    near = get_close_matches(asked, shown, n=NEAR_SHOWN, cutoff=0.5) or shown[:NEAR_SHOWN]
    raise InputError(where, f"{asked[:80]!r} is no {kind}; near: {', '.join(near)} ({len(shown)} in all)")


def _matrix(stage: GroupScores, label: str) -> ScoreMatrix:
    """Return the scores of one method. Raises Unfinished if a shard is missing."""
    if label in stage.missing():
        raise Unfinished(f"scores of {label} are not complete yet; refit run computes them")
    return stage.matrix(label)


def _outputs(pipeline: Pipeline, stage: GroupScores, row: int) -> np.ndarray | None:
    """Return the outputs of the first scoring model for a query; None if they are no class logits."""
    split = stage.queries.split
    values = pipeline.models.rows[stage.scoring[0].work.spec_id].outcome.outputs.get(split)
    n_classes = len(stage.arm.task.splits[split].classes)
    if values is None or n_classes < 2 or values.ndim != 2 or values.shape[1] != n_classes:
        return None
    return values[int(np.searchsorted(stage.arm.task.measured[split], row))]


def _removable(pipeline: Pipeline, stage: GroupScores, position: int) -> tuple[np.ndarray | slice, list[str]]:
    """Return the train rows that may be removed for the query at `position`, and a note if these are not all rows."""
    queries, one = stage.queries, slice(position, position + 1)
    asked = QueryBlock(queries.split, queries.ids[one], queries.rows[one], queries.labels[one])
    rows = pipeline.campaign.removable(pipeline.experiment, asked)
    if rows is None:
        return slice(None), []
    n_train = len(stage.arm.train.ids)
    return rows[0], [
        f"only the {len(rows[0])} of {n_train} training examples that may be removed for this query are ranked"
    ]


def _tops(
    stage: GroupScores, matrix: ScoreMatrix, position: int, rows: np.ndarray | slice
) -> dict[str, list[ShownExample]]:
    """Return the top proponents and opponents of the query at `position` among these train rows, as they are removed."""
    scores, ids = matrix.scores[position][rows], matrix.train_ids[rows]
    if np.isnan(scores).any():
        return {group: [] for group in GROUPS}
    return {
        group: [
            shown_example(stage.arm.task, stage.queries, position, matrix, int(train_id))
            for train_id in ranking.ranked(scores, ids, group)[:EXAMPLES_SHOWN]  # type: ignore[arg-type]
        ]
        for group in GROUPS
    }


def _pairs(
    stage: GroupScores, matrices: Mapping[str, ScoreMatrix], position: int, train_id: int
) -> tuple[dict[str, ShownExample], list[str]]:
    """Return the train example with its words for each method, and a note if the weights that the words need are gone."""
    task, queries, experiment = stage.arm.task, stage.queries, stage.experiment
    task.prepare()
    pair, notes = (int(queries.ids[position]), train_id), []
    try:
        checkpoints = stage.checkpoints()
    except CheckpointError as error:
        notes.append(
            f"the words are not shown, because the weights of the scoring model are not in the store ({error})"
        )
        checkpoints = []
    found = {}
    for label, matrix in matrices.items():
        method, base_dir = experiment.scored[label], experiment.config.base_dir
        words = word_contributions(task, method, checkpoints, queries, [pair], base_dir)[pair] if checkpoints else ()
        found[label] = shown_example(task, queries, position, matrix, train_id, words)
    return found, notes
