"""A page per query: its text, its proponents and opponents by every method, and the words that contribute to a score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from influence.base import Method
from influence.scoring import word_contributions
from orchestrator.campaigns.deletion.candidates import Candidates
from orchestrator.campaigns.deletion.orders import ranked
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.records import LedgerRow
from orchestrator.report.data import QueryPage, ShownExample
from orchestrator.storage.checkpoints import CheckpointError
from tasks.hooks import overrides
from tasks.measurements import GoldProbability

Top = Callable[[str, str, int], list[int]]  # (method label, group, query position) -> TrainIds that are shown
EXAMPLE_GROUPS = ("proponents", "opponents")
EXAMPLES_SHOWN = 3
QUERIES_SHOWN = 50


def query_pages(
    finished: FinishedRun, rows: Mapping[str, LedgerRow], candidates: Candidates | None = None
) -> list[QueryPage]:
    """Return a page for each of the first QUERIES_SHOWN queries; `rows` are ledger rows, including that of the first scoring model.

    With `candidates`, only examples are shown that may be removed for the query.
    """
    experiment, queries = finished.experiment, finished.queries
    split = experiment.task.splits[queries.split]
    scoring = rows[finished.scoring[0].work.spec_id].outcome.outputs[queries.split]
    position = {int(row): i for i, row in enumerate(experiment.task.measured[queries.split])}
    top = _tops(finished, candidates)
    words = _words(finished, top)
    pages = []
    for q, (query_id, row) in enumerate(zip(queries.ids[:QUERIES_SHOWN], queries.rows, strict=False)):
        logits = scoring[position[int(row)]]
        label = int(split.labels[row])
        pages.append(
            QueryPage(
                query_id=int(query_id),
                text=_text(split, row),
                label=split.classes[label],
                predicted=split.classes[int(logits.argmax())],
                probability=float(GoldProbability().value(logits[None], np.array([label]))[0]),
                examples={
                    m: {g: _examples(finished, m, q, top(m, g, q), words.get(m, {})) for g in EXAMPLE_GROUPS}
                    for m in experiment.scored
                },
                given_id=split.shown_id(query_id),
            )
        )
    return pages


def _text(split: Any, row: int) -> str:
    return (
        split.texts[row] if split.texts is not None else np.array2string(split.features[row], precision=3, threshold=20)
    )


def _tops(finished: FinishedRun, candidates: Candidates | None) -> Top:
    rows = candidates.rows(finished.experiment, finished.queries) if candidates else None

    def top(label: str, group: str, query: int) -> list[int]:
        order = ranked(finished.scored, label, query, group, None if rows is None else rows[query])
        return [int(i) for i in order[:EXAMPLES_SHOWN]]

    return top


def _words(finished: FinishedRun, top: Top) -> dict[str, dict[tuple[int, int], list[tuple[int, float]]]]:
    decomposing = {label: m for label, m in finished.experiment.scored.items() if overrides(m, Method.words)}
    if not decomposing:
        return {}
    finished.experiment.task.prepare()
    try:
        checkpoints, shown = finished.checkpoints(finished.first_group), finished.queries.ids[:QUERIES_SHOWN]
    except CheckpointError:  # the weights are gone; only the words need them, so the report is written without words
        return {}
    found = {}
    for label, method in decomposing.items():
        pairs = [
            (int(query_id), train_id)
            for q, query_id in enumerate(shown)
            for group in EXAMPLE_GROUPS
            for train_id in top(label, group, q)
        ]
        found[label] = word_contributions(finished.experiment.task, method, checkpoints, finished.queries, pairs)
    return found


def _examples(finished: FinishedRun, label: str, query: int, ids: Sequence[int], words: Mapping) -> list[ShownExample]:
    train, matrix = finished.experiment.train, finished.matrix(label)
    found = []
    for train_id, row in zip(ids, train.rows_of(ids), strict=True):
        score = float(matrix.scores[query, np.flatnonzero(matrix.train_ids == train_id)[0]])
        parts = words.get((int(finished.queries.ids[query]), train_id), ())
        found.append(
            ShownExample(
                train_id,
                score,
                train.classes[int(train.labels[row])],
                _text(train, row),
                **_highlights(finished, query, int(row), parts),
                given_id=train.shown_id(train_id),
            )
        )
    return found


def _highlights(finished: FinishedRun, query: int, row: int, parts: Sequence[tuple[int, float]]) -> dict[str, Any]:
    if not parts:
        return {}
    task: Any = finished.experiment.task
    contribution = dict(parts)
    ranked = sorted(parts, key=lambda part: (-abs(part[1]), part[0]))
    return {
        "train_spans": _spans(task.token_spans("train", row), contribution),
        "query_spans": _spans(
            task.token_spans(finished.queries.split, int(finished.queries.rows[query])), contribution
        ),
        "words": [(task.token_text(token), value) for token, value in ranked],
    }


def _spans(spans: Iterable[tuple[int, int, int]], contribution: Mapping[int, float]) -> list[tuple[int, int, float]]:
    return [
        (int(start), int(end), contribution[token])
        for start, end, token in spans
        if end > start and token in contribution
    ]
