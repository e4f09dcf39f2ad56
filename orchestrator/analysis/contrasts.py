"""Which method was better: differences of AUC-DEL, formed per (query, repeat) so that the shared reference cancels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from orchestrator.analysis.by_curve import joined_estimate
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.curves import Row, row_at


def contrast_rows(cells: Cells) -> list[Row]:
    """Every method against the control, then every two methods, per group: mean difference, 95% interval, p and Holm's p.

    diff = mean over (query, repeat) of AUC(method) - AUC(baseline); in the group `least`, where the claim is that
    nothing moves, of |AUC(method)| - |AUC(baseline)|.
    Interval and p are those of queries of this kind; Holm's family is all contrasts of one group. Two methods are compared
    on the repeats that both have. Identical methods have diff exactly 0 and p 1. With fewer than two queries or repeats se,
    interval and p are NaN.
    """
    return [row for g, group in enumerate(cells.groups) for row in _group_rows(cells, g, group)]


def compared_pairs(methods: Sequence[str], controls: Sequence[str] = ("random",)) -> list[tuple[str, str]]:
    """(method, baseline) pairs in table order: all against each control that is there, then all others two by two."""
    judged = [method for method in methods if method not in controls]
    against_control = [(method, control) for control in methods if control in controls for method in judged]
    return against_control + list(combinations(judged, 2))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p of one family: float64 [n]; NaN stays NaN and does not count (Holm 1979).

    The i-th smallest of n becomes max over j <= i of min(1, (n - j + 1) p_j).
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]
    adjusted = np.full(p.shape, np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return adjusted


def _group_rows(cells: Cells, g: int, group: str) -> list[Row]:
    methods = list(cells.methods)
    pairs = compared_pairs(methods, cells.controls)
    if not pairs:
        return []
    auc = np.abs(cells.auc[:, g]) if group == "least" else cells.auc[:, g]
    first, second = ([methods.index(pair[side]) for pair in pairs] for side in (0, 1))
    both = np.minimum(cells.asked_repeats[first, g], cells.asked_repeats[second, g])
    found = joined_estimate(cells, auc[first] - auc[second], both)
    low, high = found.ci
    numbers = {
        "diff": found.mean,
        "se": found.se,
        "ci_low": low,
        "ci_high": high,
        "p": found.p,
        "p_holm": holm(found.p),
    }
    columns = {**numbers, "n_queries": found.n_queries, "n_repeats": found.n_repeats}
    return [
        {"method": method, "baseline": baseline, "group": group, **row_at(columns, (i,))}
        for i, (method, baseline) in enumerate(pairs)
    ]
