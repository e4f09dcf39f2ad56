"""Makes what report and terminal show of a query and of training examples: texts, labels, scores, and contributions of words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from influence.checkpoint import QueryBlock
from influence.matrix import ScoreMatrix
from orchestrator.report.data import QueryPage, ShownExample
from tasks.base import Split
from tasks.measurements import GoldProbability

WordPairs = Sequence[tuple[int, int, float]]  # token of the query, token of the train example, contribution


def query_page(
    split: Split, row: int, outputs: np.ndarray | None, examples: Mapping[str, Mapping[str, Sequence[ShownExample]]]
) -> QueryPage:
    """Return a query at `row` of its split; `outputs` are the scoring model's class logits for it, None if it gives none."""
    label, predicted, probability = int(split.labels[row]), "", float("nan")
    if outputs is not None:
        predicted = split.classes[int(outputs.argmax())]
        probability = float(GoldProbability().value(outputs[None], np.array([label]))[0])
    query_id = int(split.ids[row])
    return QueryPage(
        query_id, text_of(split, row), label_of(split, row), predicted, probability, examples, split.shown_id(query_id)
    )


def shown_example(
    task: Any, queries: QueryBlock, position: int, matrix: ScoreMatrix, train_id: int, pairs: WordPairs = ()
) -> ShownExample:
    """Return a train example with its score for the query at `position`; `pairs` are the contributions of words to it."""
    train = task.splits["train"]
    [row] = train.rows_of([train_id])
    score = float(matrix.scores[position, np.flatnonzero(matrix.train_ids == train_id)[0]])
    return ShownExample(
        train_id,
        score,
        label_of(train, int(row)),
        text_of(train, int(row)),
        **_marks(task, queries, position, int(row), pairs),
        given_id=train.shown_id(train_id),
    )


def text_of(split: Split, row: int) -> str:
    """Return the text of a row, or its features as text."""
    if split.texts is not None:
        return split.texts[row]
    return "" if split.features is None else np.array2string(split.features[row], precision=3, threshold=20)


def label_of(split: Split, row: int) -> str:
    """Return the class of a row; "" in a split without classes."""
    return split.classes[int(split.labels[row])] if split.classes else ""


def _marks(task: Any, queries: QueryBlock, position: int, row: int, pairs: WordPairs) -> dict[str, Any]:
    """Return the marked spans of both texts, each word with the sum of its contributions, and the list of pairs."""
    if not pairs:
        return {}
    ours: defaultdict[int, float] = defaultdict(float)
    theirs: defaultdict[int, float] = defaultdict(float)
    for query_token, train_token, value in pairs:
        ours[query_token] += value
        theirs[train_token] += value
    ranked = sorted(pairs, key=lambda pair: (-abs(pair[2]), pair[0], pair[1]))
    return {
        "train_spans": _spans(task.token_spans("train", row), theirs),
        "query_spans": _spans(task.token_spans(queries.split, int(queries.rows[position])), ours),
        "words": [(task.token_text(one), task.token_text(other), value) for one, other, value in ranked],
    }


def _spans(spans: Iterable[tuple[int, int, int]], contribution: Mapping[int, float]) -> list[tuple[int, int, float]]:
    return [
        (int(start), int(end), contribution[token])
        for start, end, token in spans
        if end > start and token in contribution
    ]
