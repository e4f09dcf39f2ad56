"""Statistics over queries that assume no normal distribution: a test, a share and a median, of a curve or a difference of curves.

All three are about queries of this kind under the seeds that were used. One seed serves every query, so queries are
independent of each other only conditionally on the seeds; see docs/decisions/0032-rare-effects-and-families.md.
"""

from __future__ import annotations

import numpy as np

from orchestrator.analysis.cells import Cells
from orchestrator.analysis.layout import Layout
from orchestrator.analysis.shares import clopper_pearson
from orchestrator.analysis.sign_flips import median_interval, sign_flip_p

COLUMNS = ("p_flip", "share_moved", "share_moved_ci_low", "share_moved_ci_high", "median", "median_ci_low", "median_ci_high")  # fmt: skip


def query_levels(y: np.ndarray, complete: np.ndarray) -> np.ndarray:
    """Return the level of every query, its mean over repeats: y [..., n_queries, n_repeats] -> float64 [..., n_queries].

    With holes the level of a query is a_q of the additive fit a_q + b_r with sum b_r = 0, so that queries with different
    repeats can be compared. It is NaN for a query without a cell, and for all queries if the cells fall into parts that share
    neither query nor repeat.
    """
    y, layout = np.asarray(y, np.float64), Layout.of(complete)
    levels = np.full(y.shape[:-1], np.nan)
    if layout.n_cells and layout.is_connected:
        levels[..., layout.rows] = layout.query_levels(y[..., layout.rows, :][..., layout.columns])
    return levels


def joined_levels(cells: Cells, y: np.ndarray, n_repeats: np.ndarray) -> np.ndarray:
    """Apply `query_levels` to layouts y [*n_repeats.shape, n_queries, n_repeats], each over its first `n_repeats`: [..., n_queries]."""
    levels = np.full(y.shape[:-1], np.nan)
    for n in np.unique(n_repeats):
        chosen = n_repeats == n
        levels[chosen] = query_levels(y[chosen][..., :n], cells.complete[:, :n])
    return levels


def query_columns(levels: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns COLUMNS of levels [..., n_queries]: arrays [...], NaN where there is no query.

    predicted [...]: -1 or 1, the sign of the levels that the method's claim predicts; 0 means no prediction, and the share is NaN.
    p_flip: `sign_flip_p` of the levels. share_moved: share of queries whose level has the predicted sign, with its
    Clopper-Pearson interval; a level of exactly 0 has not moved. median: of the levels, with its order-statistic interval.
    """
    levels = np.asarray(levels, np.float64)
    predicted = np.broadcast_to(predicted, levels.shape[:-1])
    found = {name: np.full(levels.shape[:-1], np.nan) for name in COLUMNS}
    for index in np.ndindex(levels.shape[:-1]):
        numbers = (
            sign_flip_p(levels[index]),
            *_share(levels[index], int(predicted[index])),
            *median_interval(levels[index]),
        )
        for name, value in zip(COLUMNS, numbers, strict=True):
            found[name][index] = value
    return found


def _share(levels: np.ndarray, predicted: int) -> tuple[float, float, float]:
    known = levels[~np.isnan(levels)]
    if not len(known) or not predicted:
        return np.nan, np.nan, np.nan
    moved = int((np.sign(known) == predicted).sum())
    return moved / len(known), *clopper_pearson(moved, len(known))
