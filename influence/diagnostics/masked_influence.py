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


def tables(models: ScoredModels, asked: MaskingRequest) -> dict[str, Table]:
    """Return the tables `queries` and `holding_queries`; queries without a token that can be masked have no rows."""
    queries, train = models.queries, models.task.splits["train"]
    masked = chosen(models, asked)
    changed, labels, is_other = changed_queries(models, masked, is_repredicted=asked.is_repredicted)
    overlaps, holding = [], []
    holds = _Holders(models.task)
    for label, method in asked.methods.items():
        before, after = models.scores[label].scores, np.zeros((0, len(train)), np.float32)
        if masked:
            assert models.score_queries is not None
            block = QueryBlock(MASKED, np.arange(len(masked)), np.arange(len(masked)), labels)
            after = models.score_queries(changed, method, models.checkpoints, block, models.device)
        for number, one in enumerate(masked):
            named = {"method": label, "query_id": int(queries.ids[one.query]), "saliency_rank": one.rank}
            about = {**named, "position": one.token.position, "token": one.token.text, "saliency": one.saliency}
            found = overlap(before[one.query], after[number], train.ids, asked.overlap_shares)
            overlaps += [{**about, **row, "changed": float(is_other[number])} for row in found]
            rows = (holds.rows(one.token.token_id), train.labels == queries.labels[one.query])
            holding += [
                {**about, **row}
                for row in influence_of(before[one.query], train.ids, np.logical_and(*rows), asked.holding_shares)
            ]
    return {"queries": columns_of(overlaps), "holding_queries": columns_of(holding)}


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


def changed_queries(
    models: ScoredModels, masked: Sequence[Masked], *, is_repredicted: bool
) -> tuple[Task, np.ndarray, np.ndarray]:
    """Return a task with the split MASKED, the labels that the changed queries explain, and which predictions have changed.

    labels int64 and is_other bool [n_masked]. A prediction is the class with the highest probability, mean over models.
    """
    queries, at = models.queries, np.array([one.query for one in masked], np.int64)
    positions = np.array([one.token.position for one in masked], np.int64)
    rows = np.asarray(queries.rows, np.int64)[at]
    changed = models.task.with_masked(queries.split, rows, positions)
    labels = np.asarray(queries.labels, np.int64)[at]
    if not len(at):
        return changed, labels, np.zeros(0, bool)
    before = class_probabilities(models.task, models.last, queries.split, queries.rows, models.device).argmax(axis=1)
    after = class_probabilities(changed, models.last, MASKED, np.arange(len(at)), models.device).argmax(axis=1)
    is_other = after != before[at]
    return changed, np.where(is_other & is_repredicted, after, labels), is_other


def overlap(
    before: np.ndarray, after: np.ndarray, train_ids: np.ndarray, shares: Sequence[float]
) -> list[dict[str, Any]]:
    """Return, for each share, the part of the top floor(share n) examples before that is in the top after.

    before, after [n_train]; None where one of them has no scores. `expected` is the overlap of two random sets.
    """
    is_missing = bool(np.isnan(before).any() or np.isnan(after).any())
    rows = []
    for share in shares:
        k = n_of(share, len(train_ids))
        common = None
        if not is_missing:
            common = len(np.intersect1d(proponents(before, train_ids, k), proponents(after, train_ids, k))) / k
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
