"""The random subsets of an LDS campaign: drawn once, shared by all queries, methods and repeats, and chosen by no method."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from influence.controls import Control
from influence.matrix import ScoreMatrix
from tasks.seeds import generator


def removed_sets(train_ids: np.ndarray, n_subsets: int, fraction: float, seed: int) -> list[np.ndarray]:
    """Return the TrainIds that each subset leaves out: `n_subsets` arrays of n_train - round(fraction n_train) ids.

    Subset s is drawn without replacement by the generator of (seed, "lds subset", s). It depends neither on the number of subsets, so that
    a campaign can be extended, nor on the order of the rows.
    """
    ids = np.sort(train_ids)
    n_removed = len(ids) - kept_count(len(ids), fraction)
    return [generator(seed, "lds subset", s).permutation(ids)[:n_removed] for s in range(n_subsets)]


def kept_count(n_train: int, fraction: float) -> int:
    """Return the number of examples that a subset keeps: fraction n_train, rounded to the nearest integer."""
    return round(fraction * n_train)


def predicted_sums(scores: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the sum of the scores of the kept examples of every subset: float64 [n_queries, n_subsets].

    scores [n_queries, n_train]; kept bool [n_subsets, n_train]. The sums are formed one by one, because the bits of a matrix product may
    depend on the number of threads. A query whose scores are NaN has NaN.
    """
    scores = np.asarray(scores, np.float64)
    sums = [np.ascontiguousarray(scores[:, of_subset]).sum(axis=1) for of_subset in kept]
    return np.stack(sums, axis=1) if sums else np.zeros((len(scores), 0))


def control_scores(
    control: Control, train_ids: np.ndarray, train_labels: np.ndarray, queries: Mapping[int, int], seed: int
) -> ScoreMatrix:
    """Return the scores of a control, drawn per (seed, query). `queries`: QueryId -> label of the query loss."""
    rows = [control.drawn_scores(train_ids, train_labels, label, seed, query) for query, label in queries.items()]
    return ScoreMatrix(np.array(list(queries), np.int64), train_ids, np.array(rows, np.float32))
