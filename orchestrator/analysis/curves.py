"""Deletion curves and AUC-DEL with intervals, as rows: dicts in the column order of the result tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchestrator.analysis.accuracy_change import accuracy_columns
from orchestrator.analysis.by_curve import by_curve
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.intervals import MeanEstimate
from orchestrator.analysis.over_queries import joined_levels, query_columns

Row = dict[str, Any]
# group -> predicted sign of the change when it is removed, or when the key words of its examples are replaced
CLAIMED = {"proponents": -1, "opponents": 1, "proponent_words": -1, "opponent_words": 1}


def curve_rows(cells: Cells) -> list[Row]:
    """Return the mean delta and the change of accuracy of every method, group and k over the complete cells, in the order of `cells`."""
    columns = estimate_columns(by_curve(cells, cells.delta), "delta", cells.excluded()[..., None])
    columns |= accuracy_columns(cells)
    return [
        {"method": method, "group": group, "k": k, **row_at(columns, (m, g, i))}
        for m, method in enumerate(cells.methods)
        for g, group in enumerate(cells.groups)
        for i, k in enumerate(cells.ks)
    ]


def query_curve_rows(cells: Cells) -> list[Row]:
    """Return the mean delta and the change of accuracy per query.

    ci_fixed_* is the interval in which only seeds vary, and ci_* the one in which queries vary too (see MeanEstimate). Within one
    query only seeds vary, so the two are equal. `n_excluded` counts the repeats of this query that are left out.
    """
    by_query = []
    for q in range(len(cells.query_ids)):
        one = slice(q, q + 1)
        found = by_curve(cells, cells.delta[..., one, :], one)
        excluded = cells.excluded(one)[..., None]
        columns = estimate_columns(found, "delta", excluded, only_seeds_vary=True)
        by_query.append(columns | accuracy_columns(cells, one, only_seeds_vary=True))
    return [
        {"method": method, "group": group, "query_id": query_id, "k": k, **row_at(by_query[q], (m, g, i))}
        for m, method in enumerate(cells.methods)
        for g, group in enumerate(cells.groups)
        for q, query_id in enumerate(cells.query_ids)
        for i, k in enumerate(cells.ks)
    ]


def summary_rows(cells: Cells) -> list[Row]:
    """Return the AUC-DEL of every method and group: formed per (query, repeat), then averaged like a point of a curve.

    The last columns are those of `over_queries.query_columns`, computed from the AUC-DEL. Among them, `share_moved` is the share of
    queries whose AUC-DEL has the sign that is predicted for the group: negative for proponents, positive for opponents. For the
    group `least` no sign is predicted, so `share_moved` is NaN.
    """
    columns = estimate_columns(by_curve(cells, cells.auc), "auc_del", cells.excluded())
    predicted = np.array([[CLAIMED.get(group, 0) for group in cells.groups]] * len(cells.methods))
    columns |= query_columns(joined_levels(cells, cells.auc, cells.asked_repeats), predicted)
    return [
        {"method": method, "group": group, **row_at(columns, (m, g))}
        for m, method in enumerate(cells.methods)
        for g, group in enumerate(cells.groups)
    ]


def estimate_columns(
    found: MeanEstimate, name: str, n_excluded: np.ndarray, *, only_seeds_vary: bool = False
) -> dict[str, Any]:
    """Return an estimate as the columns `name, se, ci_low, ..., n_excluded`: arrays [...]; the counts are int."""
    se, (low, high) = (found.se_fixed, found.ci_fixed) if only_seeds_vary else (found.se, found.ci)
    low_fixed, high_fixed = found.ci_fixed
    return {
        name: found.mean,
        "se": se,
        "ci_low": low,
        "ci_high": high,
        "se_fixed": found.se_fixed,
        "ci_fixed_low": low_fixed,
        "ci_fixed_high": high_fixed,
        "n_queries": found.n_queries,
        "n_repeats": found.n_repeats,
        "n_excluded": np.broadcast_to(n_excluded, np.shape(found.mean)),
    }


def row_at(columns: Mapping[str, Any], index: tuple[int, ...]) -> Row:
    """Return one row, the columns at `index`; minus zero becomes zero, counts stay integers."""
    return {name: _plain(np.asarray(column)[index]) for name, column in columns.items()}


def _plain(value: Any) -> int | float:
    return int(value) if np.issubdtype(np.asarray(value).dtype, np.integer) else float(value) + 0.0
