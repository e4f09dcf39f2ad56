"""The tables of the diagnostic `token_masking`: rankings of train examples before and after a token of the query is masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from influence.base import Method
from influence.checkpoint import QueryBlock
from influence.diagnostic import ScoredModels, Table, columns_of
from influence.diagnostics.query_tokens import QueryToken, Rank, chosen_tokens, tokens_of
from influence.diagnostics.rankings import n_of, z_scored
from influence.ranking import proponents
from influence.saliency import class_probabilities, normalised, token_saliency
from tasks.seeds import generator
from tasks.task import MASKED, Task

LEAST_AT_ONCE = 16  # masked queries that are scored together even if the campaign has fewer queries


@dataclass(frozen=True)
class MaskingRequest:
    """What is asked: the options of TokenMasking, and label -> the method that scores the changed queries."""

    methods: Mapping[str, Method]
    ranks: Sequence[Rank]
    overlap_shares: Sequence[float]
    holding_shares: Sequence[float]
    is_repredicted: bool
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Masked:
    """One masking: the position of the query among the queries, the rank of the saliency, the token and its saliency."""

    query: int
    rank: Rank
    token: QueryToken
    saliency: float

    @property
    def place(self) -> tuple[int, int]:
        """The query and the position of the token."""
        return self.query, self.token.position


@dataclass(frozen=True, eq=False)
class ChangedQueries:
    """The masked queries, each once: `task` has them in the split MASKED; `at` maps (query, position of the token) to its row there.

    labels int64 [n], the labels that they explain; is_other bool [n], whether the prediction has changed.
    """

    task: Task
    at: Mapping[tuple[int, int], int]
    labels: np.ndarray
    is_other: np.ndarray


def tables(models: ScoredModels, asked: MaskingRequest) -> dict[str, Table]:
    """Return the tables `queries` and `holding_queries`; queries without a token that can be masked have no rows."""
    queries, train = models.queries, models.task.splits["train"]
    masked = chosen(models, asked)
    if not masked:
        return {"queries": {}, "holding_queries": {}}
    changed = changed_queries(models, masked, is_repredicted=asked.is_repredicted)
    holders = _Holders(models.task)
    overlaps, holding = [], []
    for label, method in asked.methods.items():
        before, after = models.scores[label].scores, scores_after(models, changed, method)
        for one in masked:
            row, ours = changed.at[one.place], before[one.query]
            named = {"method": label, "query_id": int(queries.ids[one.query]), "saliency_rank": one.rank}
            about = {**named, "position": one.token.position, "token": one.token.text, "saliency": one.saliency}
            found = overlap(ours, after[row], train.ids, asked.overlap_shares)
            overlaps += [{**about, **values, "changed": float(changed.is_other[row])} for values in found]
            is_meant = holders.rows(one.token.token_id) & (train.labels == queries.labels[one.query])
            held = influence_of(ours, train.ids, is_meant, asked.holding_shares)
            holding += [{**about, **values} for values in held]
    return {"queries": columns_of(overlaps), "holding_queries": columns_of(holding)}


def scores_after(models: ScoredModels, changed: ChangedQueries, method: Method) -> np.ndarray:
    """Return the scores of the changed queries, float32 [n, n_train].

    They are computed for as many at a time as the campaign has queries, so that the solutions of a curvature method need
    no more memory than in the score stage.
    """
    assert models.score_queries is not None
    size = max(len(models.queries.ids), LEAST_AT_ONCE)
    parts = [np.zeros((0, len(models.task.splits["train"])), np.float32)]
    for start in range(0, len(changed.labels), size):
        rows = np.arange(start, min(start + size, len(changed.labels)))
        block = QueryBlock(MASKED, rows, rows, changed.labels[rows])
        parts.append(models.score_queries(changed.task, method, models.checkpoints, block, models.device))
    return np.concatenate(parts)


def chosen(models: ScoredModels, asked: MaskingRequest) -> list[Masked]:
    """Return what is masked: for every query the tokens of the asked ranks, by the saliency for the label of the query."""
    task, queries = models.task, models.queries
    rows, labels = queries.rows, queries.labels
    saliency = token_saliency(task, models.last, queries.split, rows, labels, asked.batch_size, models.device)
    found = []
    for query, (query_id, row) in enumerate(zip(queries.ids.tolist(), rows, strict=True)):
        tokens = tokens_of(task, queries.split, int(row))
        values = normalised(saliency[query][: len(tokens)])
        random = generator(asked.seed, "masked token", query_id)
        for rank, token in chosen_tokens(tokens, values, asked.ranks, random).items():
            found.append(Masked(query, rank, token, float(values[token.position])))
    return found


def changed_queries(models: ScoredModels, masked: Sequence[Masked], *, is_repredicted: bool) -> ChangedQueries:
    """Return the masked queries. A prediction is the class with the highest probability, mean over the scoring models."""
    queries, places = models.queries, list(dict.fromkeys(one.place for one in masked))
    at, positions = np.array(places, np.int64).reshape(-1, 2).T
    task = models.task.with_masked(queries.split, np.asarray(queries.rows, np.int64)[at], positions)
    before = class_probabilities(models.task, models.last, queries.split, queries.rows, models.device).argmax(axis=1)
    after = class_probabilities(task, models.last, MASKED, np.arange(len(at)), models.device).argmax(axis=1)
    is_other, labels = after != before[at], np.asarray(queries.labels, np.int64)[at]
    labels = np.where(is_other & is_repredicted, after, labels)
    return ChangedQueries(task, {place: row for row, place in enumerate(places)}, labels, is_other)


def overlap(
    before: np.ndarray, after: np.ndarray, train_ids: np.ndarray, shares: Sequence[float]
) -> list[dict[str, Any]]:
    """Return, for each share, the part of the top floor(share n) examples before that is in the top after.

    before, after [n_train]; None where one of them has no scores. `expected` is the overlap of two random sets.
    """
    is_missing = bool(np.isnan(before).any() or np.isnan(after).any())
    most, rows = n_of(max(shares), len(train_ids)), []
    ours, theirs = (scores[:0] if is_missing else proponents(scores, train_ids, most) for scores in (before, after))
    for share in shares:
        k = n_of(share, len(train_ids))
        common = None if is_missing else len(np.intersect1d(ours[:k], theirs[:k])) / k
        rows.append({"top_share": share, "k": k, "overlap": common, "expected": k / len(train_ids)})
    return rows


def influence_of(
    scores: np.ndarray, train_ids: np.ndarray, is_meant: np.ndarray, shares: Sequence[float]
) -> list[dict[str, Any]]:
    """Return, for each share, the mean z-scored influence of the examples in `is_meant` among the top floor(share n), and their number.

    scores [n_train]; is_meant bool [n_train]. The mean is None if there is no such example, or no z-scores.
    """
    z = z_scored(scores)
    order = np.lexsort((train_ids, -scores))
    rows = []
    for share in shares:
        top = order[: n_of(share, len(train_ids))]
        values = np.zeros(0) if z is None else z[top[is_meant[top]]]
        mean = float(values.mean()) if len(values) else None
        rows.append({"top_share": share, "influence": mean, "n_examples": None if z is None else len(values)})
    return rows


class _Holders:
    """Which train examples hold a token."""

    def __init__(self, task: Task):
        self._counts = task.token_counts("train").tocsc()

    def rows(self, token_id: int) -> np.ndarray:
        """Return which train rows hold the token: bool [n_train]."""
        return self._counts[:, [token_id]].toarray()[:, 0] > 0
