"""A page per query: its text, its proponents and opponents by every method, and the words that contribute to a score."""

from __future__ import annotations

from collections.abc import Mapping

from influence import ranking
from influence.scoring import word_contributions
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.records import LedgerRow
from orchestrator.report.data import QueryPage, ShownExample
from orchestrator.report.examples import WordPairs, query_page, shown_example
from orchestrator.storage.checkpoints import CheckpointError

EXAMPLES_SHOWN = 3
QUERIES_SHOWN = 50
GROUPS = ("proponents", "opponents")


def query_pages(finished: FinishedRun, rows: Mapping[str, LedgerRow]) -> list[QueryPage]:
    """Return a page for each of the first QUERIES_SHOWN queries; `rows` are ledger rows, including that of the first scoring model."""
    experiment, queries = finished.experiment, finished.queries
    split = experiment.task.splits[queries.split]
    scoring = rows[finished.scoring[0].work.spec_id].outcome.outputs[queries.split]
    position = {int(row): i for i, row in enumerate(experiment.task.measured[queries.split])}
    words = _words(finished)
    return [
        query_page(
            split,
            int(row),
            scoring[position[int(row)]],
            {m: {g: _examples(finished, m, g, q, words.get(m, {})) for g in GROUPS} for m in experiment.scored},
        )
        for q, row in enumerate(queries.rows[:QUERIES_SHOWN])
    ]


def _top(finished: FinishedRun, label: str, group: str, query: int) -> list[int]:
    matrix = finished.matrix(label)
    order = ranking.ranked(matrix.scores[query], matrix.train_ids, group)  # type: ignore[arg-type]
    return [int(i) for i in order[:EXAMPLES_SHOWN]]


def _words(finished: FinishedRun) -> dict[str, dict[tuple[int, int], WordPairs]]:
    decomposing = {label: m for label, m in finished.experiment.scored.items() if m.has_words}
    if not decomposing:
        return {}
    experiment = finished.experiment
    experiment.task.prepare()
    try:
        checkpoints, shown = finished.checkpoints(finished.first_group), finished.queries.ids[:QUERIES_SHOWN]
    except CheckpointError:  # the weights are gone; only the words need them, so the report is written without words
        return {}
    found: dict[str, dict[tuple[int, int], WordPairs]] = {}
    for label, method in decomposing.items():
        pairs = [
            (int(query_id), train_id)
            for q, query_id in enumerate(shown)
            for group in GROUPS
            for train_id in _top(finished, label, group, q)
        ]
        base_dir = experiment.config.base_dir
        found[label] = dict(word_contributions(experiment.task, method, checkpoints, finished.queries, pairs, base_dir))
    return found


def _examples(
    finished: FinishedRun, label: str, group: str, query: int, words: Mapping[tuple[int, int], WordPairs]
) -> list[ShownExample]:
    task, queries, matrix = finished.experiment.task, finished.queries, finished.matrix(label)
    return [
        shown_example(task, queries, query, matrix, train_id, words.get((int(queries.ids[query]), train_id), ()))
        for train_id in _top(finished, label, group, query)
    ]
