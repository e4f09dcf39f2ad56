"""What makes the scores of a method useless for some queries, in words for the terminal and the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from influence.matrix import ScoreMatrix
from tasks.base import Split

N_SHOWN = 5


def score_warnings(
    matrices: Mapping[tuple[str, str], ScoreMatrix], order: Sequence[str], split: Split | None = None
) -> list[str]:
    """One sentence a method and scoring group that has queries without scores, or with equal scores throughout.

    `matrices`: (scoring group, method label) -> scores; `order`: the labels in the order of the config's `methods`;
    `split`: that of the queries, whose ids are shown as the data gives them.
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
                f"({_listed(equal, names)}): their order is that of the ids, and says nothing of influence"
            )
    return found


def _without_order(matrix: ScoreMatrix) -> np.ndarray:
    """Queries whose scores are all equal: bool [n_queries]; none where there is one training example."""
    if matrix.scores.shape[1] < 2:
        return np.zeros(len(matrix.query_ids), bool)
    return (matrix.scores == matrix.scores[:, :1]).all(axis=1)  # NaN equals nothing


def _listed(ids: Iterable[int], names: Mapping[int, str]) -> str:
    shown = [names.get(int(one), str(int(one))) for one in ids]
    return ", ".join(shown[:N_SHOWN]) + (f" and {len(shown) - N_SHOWN} more" if len(shown) > N_SHOWN else "")
