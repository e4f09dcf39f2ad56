"""A page per query: its text, its proponents and opponents by every method, and the words that contribute to a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from influence.scoring import word_contributions
from orchestrator.campaigns.deletion.candidates import Candidates
from orchestrator.campaigns.deletion.orders import ranked
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.records import LedgerRow
from orchestrator.report.data import QueryPage, ShownExample
from orchestrator.report.examples import WordPairs, query_page, shown_example
from orchestrator.storage.checkpoints import CheckpointError

Top = Callable[[str, str, int], list[int]]  # (method label, group, query position) -> TrainIds that are shown
EXAMPLES_SHOWN = 3
QUERIES_SHOWN = 50
GROUPS = ("proponents", "opponents")


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
    return [
        query_page(
            split,
            int(row),
            scoring[position[int(row)]],
            {
                m: {g: _examples(finished, m, q, top(m, g, q), words.get(m, {})) for g in GROUPS}
                for m in experiment.scored
            },
        )
        for q, row in enumerate(queries.rows[:QUERIES_SHOWN])
    ]


def _tops(finished: FinishedRun, candidates: Candidates | None) -> Top:
    rows = candidates.rows(finished.experiment, finished.queries) if candidates else None

    def top(label: str, group: str, query: int) -> list[int]:
        order = ranked(finished.scored, label, query, group, None if rows is None else rows[query])
        return [int(i) for i in order[:EXAMPLES_SHOWN]]

    return top


def _words(finished: FinishedRun, top: Top) -> dict[str, dict[tuple[int, int], WordPairs]]:
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
            for train_id in top(label, group, q)
        ]
        base_dir = experiment.config.base_dir
        found[label] = dict(word_contributions(experiment.task, method, checkpoints, finished.queries, pairs, base_dir))
    return found


def _examples(
    finished: FinishedRun, label: str, query: int, ids: Sequence[int], words: Mapping[tuple[int, int], WordPairs]
) -> list[ShownExample]:
    task, queries, matrix = finished.experiment.task, finished.queries, finished.matrix(label)
    return [
        shown_example(task, queries, query, matrix, train_id, words.get((int(queries.ids[query]), train_id), ()))
        for train_id in ids
    ]
