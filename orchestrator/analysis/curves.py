"""Deletion curves and AUC-DEL with intervals, as rows: dicts in the column order of the result tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchestrator.analysis.cells import Cells
from orchestrator.analysis.intervals import Estimate, estimate

Row = dict[str, Any]


def curve_rows(cells: Cells) -> list[Row]:
    """Mean delta of every method, group and k over the complete cells, in the order of `cells`."""
    columns = estimate_columns(estimate(cells.delta, cells.complete), "delta", cells.n_excluded)
    return [
        {"method": method, "group": group, "k": k, **row_at(columns, (m, g, i))}
        for m, method in enumerate(cells.methods)
        for g, group in enumerate(cells.groups)
        for i, k in enumerate(cells.ks)
    ]


def query_curve_rows(cells: Cells) -> list[Row]:
    """Mean delta per query; with one query only seeds vary, so ci_* equals ci_fixed_*.

    `n_excluded` counts the query's own repeats that are left out.
    """
    by_query = []
    for q in range(len(cells.query_ids)):
        found = estimate(cells.delta[..., q : q + 1, :], cells.complete[q : q + 1])
        by_query.append(estimate_columns(found, "delta", int((~cells.complete[q]).sum()), only_seeds_vary=True))
    return [
        {"method": method, "group": group, "query_id": query_id, "k": k, **row_at(by_query[q], (m, g, i))}
        for m, method in enumerate(cells.methods)
        for g, group in enumerate(cells.groups)
        for q, query_id in enumerate(cells.query_ids)
        for i, k in enumerate(cells.ks)
    ]


def summary_rows(cells: Cells) -> list[Row]:
    """AUC-DEL of every method and group: formed per (query, repeat) first, then averaged like a curve's point."""
    columns = estimate_columns(estimate(cells.auc, cells.complete), "auc_del", cells.n_excluded)
    return [
        {"method": method, "group": group, **row_at(columns, (m, g))}
        for m, method in enumerate(cells.methods)
        for g, group in enumerate(cells.groups)
    ]


def estimate_columns(found: Estimate, name: str, n_excluded: int, *, only_seeds_vary: bool = False) -> dict[str, Any]:
    """An estimate as the columns `name, se, ci_low, ..., n_excluded`: arrays [...] and the three counts."""
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
        "n_excluded": n_excluded,
    }


def row_at(columns: Mapping[str, Any], index: tuple[int, ...]) -> Row:
    """One row of columns: arrays are read at `index`, counts are the same in every row; a minus zero becomes zero."""
    return {
        name: column if isinstance(column, int) else float(np.asarray(column)[index]) + 0.0
        for name, column in columns.items()
    }
