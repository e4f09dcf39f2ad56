"""The score matrix, and the one place where axes and sign of foreign scores (not computed by Refit) are converted.

Uses numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Axes = Literal["query_train", "train_query"]
Orientation = Literal["helpful_positive", "harmful_positive"]


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Influence of every training example on every query; positive = the example helps the query.

    query_ids int64 [n_queries], train_ids int64 [n_train], scores float32 [n_queries, n_train]; the arrays are
    read-only. A row may be NaN throughout, which means that the method has no scores for this query. Raises ValueError
    on a wrong shape, on repeated ids, and on other scores that are not finite.
    """

    query_ids: np.ndarray
    train_ids: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in (("query_ids", np.int64), ("train_ids", np.int64), ("scores", np.float32)):
            with np.errstate(over="ignore"):  # a value too large for float32 becomes infinite and is refused below
                array = np.array(getattr(self, name), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        expected = (_n_unique(self.query_ids, "query"), _n_unique(self.train_ids, "train"))
        if self.scores.shape != expected:
            raise ValueError(
                f"scores have shape {self.scores.shape}; the ids give {expected} (queries, train examples)"
            )
        wrong = ~np.isfinite(self.scores)
        wrong[self.diverged] = False
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"score of query {self.query_ids[row]}, train {self.train_ids[column]} is {self.scores[row, column]}"
            )

    @property
    def diverged(self) -> np.ndarray:
        """The queries without scores, whose row is NaN throughout: bool [n_queries]."""
        return np.isnan(self.scores).all(1) & (self.scores.shape[1] > 0)

    def row(self, query_id: int) -> np.ndarray:
        """Return the scores of one query, in the order of `train_ids`: float32 [n_train]. Raises KeyError."""
        return self.scores[positions_of([query_id], self.query_ids, "query")[0]]

    def reordered(self, query_ids: np.ndarray, train_ids: np.ndarray) -> ScoreMatrix:
        """Return the same scores for these ids in this order; ids may be left out.

        Raises KeyError naming an id without scores.
        """
        rows = positions_of(query_ids, self.query_ids, "query")
        columns = positions_of(train_ids, self.train_ids, "train")
        return ScoreMatrix(np.asarray(query_ids), np.asarray(train_ids), self.scores[np.ix_(rows, columns)])


def assemble(
    query_ids: np.ndarray, train_ids: np.ndarray, blocks: Iterable[tuple[int, int, np.ndarray]]
) -> ScoreMatrix:
    """Join score blocks (start, stop, scores [n_queries, stop - start]) given in any order.

    `start` and `stop` are positions in `train_ids`. Raises ValueError naming the range if blocks leave a gap, overlap,
    reach outside, or have the wrong shape.
    """
    scores = np.empty((len(query_ids), len(train_ids)), np.float32)
    ranges = []
    for start, stop, block in blocks:
        if not 0 <= start <= stop <= len(train_ids):
            raise ValueError(f"score block [{start}, {stop}) is outside [0, {len(train_ids)})")
        if np.shape(block) != (len(query_ids), stop - start):
            expected = (len(query_ids), stop - start)
            raise ValueError(f"score block [{start}, {stop}) has shape {np.shape(block)}, not {expected}")
        scores[:, start:stop] = block
        ranges.append((start, stop))
    _check_cover([r for r in ranges if r[0] < r[1]], len(train_ids))
    return ScoreMatrix(query_ids, train_ids, scores)


def from_foreign(array: np.ndarray, axes: Axes, orientation: Orientation) -> np.ndarray:
    """Convert foreign scores to [n_queries, n_train], positive = the example helps the query.

    axes: `query_train` = one row per query, `train_query` = one row per training example. orientation:
    `helpful_positive` is Refit's own, `harmful_positive` the opposite. Raises ValueError.
    """
    scores = np.asarray(array)
    if scores.ndim != 2:
        raise ValueError(f"scores have {scores.ndim} axes; two are needed")
    if axes not in ("query_train", "train_query"):
        raise ValueError(f"axes {axes!r} is not query_train or train_query")
    if orientation not in ("helpful_positive", "harmful_positive"):
        raise ValueError(f"orientation {orientation!r} is not helpful_positive or harmful_positive")
    ours = scores.T if axes == "train_query" else scores
    empty = (ours != ours).all(1) & (ours.shape[1] > 0)  # NaN differs from itself
    if empty.any():
        raise ValueError(f"all scores of query number {int(np.argmax(empty)) + 1} are NaN")
    return -ours if orientation == "harmful_positive" else ours


def positions_of(wanted: np.ndarray | list[int], ids: np.ndarray, kind: str) -> np.ndarray:
    """Return the position of each wanted id in `ids`: int64 [len(wanted)]. Raises KeyError naming the first missing one."""
    wanted = np.asarray(wanted, np.int64)
    order = np.argsort(ids, kind="stable")
    slots = np.searchsorted(ids, wanted, sorter=order)
    found = order[slots.clip(max=len(ids) - 1)] if len(ids) else np.zeros(len(wanted), np.int64)
    missing = ids[found] != wanted if len(ids) else np.ones(len(wanted), bool)
    if missing.any():
        raise KeyError(f"{kind} id {int(wanted[missing][0])} has no scores")
    return found


def _n_unique(ids: np.ndarray, kind: str) -> int:
    if ids.ndim != 1:
        raise ValueError(f"{kind} ids have {ids.ndim} axes; one is needed")
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{kind} id {values[counts > 1][0]} appears {counts[counts > 1][0]} times")
    return len(ids)


def _check_cover(ranges: list[tuple[int, int]], n: int) -> None:
    done = 0
    for start, stop in sorted(ranges):
        if start > done:
            raise ValueError(f"no score block covers train positions [{done}, {start})")
        if start < done:
            raise ValueError(f"two score blocks cover train positions [{start}, {min(done, stop)})")
        done = stop
    if done < n:
        raise ValueError(f"no score block covers train positions [{done}, {n})")
