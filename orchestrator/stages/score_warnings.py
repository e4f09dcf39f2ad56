"""Warnings about methods whose scores rank nothing for some queries, as sentences for the terminal and the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from influence.matrix import ScoreMatrix
from tasks.base import Split

N_SHOWN = 5


def score_warnings(
    matrices: Mapping[tuple[str, str], ScoreMatrix], order: Sequence[str], split: Split | None = None
) -> list[str]:
    """Return a sentence for every matrix that has queries without scores, and one for every matrix that has queries with all scores equal.

    `matrices`: (scoring group, method label) -> scores; `order`: the labels in the order of the config's `methods`;
    `split`: the split of the queries, used to show their ids as the data gives them.
    """
    found, names = [], {} if split is None else split.shown_ids()
    for (group, label), matrix in matrices.items():
        key = f"methods[{order.index(label)}] ({label}{f' on {group}' if group else ''})"
        n_queries = len(matrix.query_ids)
        if (diverged := matrix.query_ids[matrix.diverged]).size:
            found.append(
                f"{key} diverged for {len(diverged)} of {n_queries} queries and ranks nothing for them "
                f"({_listed(diverged, names)}): raise its damping or scale, or choose another method"
            )
        if (equal := matrix.query_ids[_without_order(matrix)]).size:
            found.append(
                f"{key} gives every training example the same score for {len(equal)} of {n_queries} queries "
                f"({_listed(equal, names)}): the examples are ordered by their ids, which says nothing about influence"
            )
    return found


def _without_order(matrix: ScoreMatrix) -> np.ndarray:
    """Return whether all scores of a query are equal: bool [n_queries]; False throughout if there is only one training example."""
    if matrix.scores.shape[1] < 2:
        return np.zeros(len(matrix.query_ids), bool)
    return (matrix.scores == matrix.scores[:, :1]).all(axis=1)  # False for rows of NaN


def _listed(ids: Iterable[int], names: Mapping[int, str]) -> str:
    shown = [names.get(int(one), str(int(one))) for one in ids]
    return ", ".join(shown[:N_SHOWN]) + (f" and {len(shown) - N_SHOWN} more" if len(shown) > N_SHOWN else "")
