"""Contrasts between methods: differences of AUC-DEL, formed per (query, repeat) so that the shared reference cancels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from orchestrator.analysis.by_curve import joined_estimate
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.curves import Row, row_at
from orchestrator.analysis.over_queries import joined_levels, query_columns
from orchestrator.analysis.verdicts import SENSE

CONTROL, PAIRS = "control", "pairs"  # the two kinds of family within which p_holm is corrected


def contrast_rows(cells: Cells) -> list[Row]:
    """Return the contrast rows: per group, every method against each control, then all pairs of methods.

    Each row has the mean difference, its 95% interval, p and Holm's p:
    diff = mean over (query, repeat) of AUC(method) - AUC(baseline); in the group `least`, whose claim is that nothing
    changes, of |AUC(method)| - |AUC(baseline)|.
    Interval and p are those for queries of this kind. Two methods are compared on the repeats that both have. Methods with
    identical results have diff exactly 0 and p 1. With fewer than two queries or repeats se, interval and p are NaN.
    Holm's families within a group are all methods against one control (family `control`, one for every control), and all
    pairs of methods (family `pairs`); see `family_holm`. The last columns are `over_queries.query_columns` of the difference;
    their predicted direction is the one in which `method` is better.
    """
    return [row for g, group in enumerate(cells.groups) for row in _group_rows(cells, g, group)]


def compared_pairs(methods: Sequence[str], controls: Sequence[str] = ("random",)) -> list[tuple[str, str]]:
    """Return (method, baseline) pairs in table order: all judged methods against each control, then all pairs of judged methods."""
    judged = [method for method in methods if method not in controls]
    against_control = [(method, control) for control in methods if control in controls for method in judged]
    return against_control + list(combinations(judged, 2))


def holm(p: np.ndarray) -> np.ndarray:
    """Return the step-down adjusted p of one family (Holm 1979): float64 [n]; NaN stays NaN and does not count.

    The i-th smallest of n becomes max over j <= i of min(1, (n - j + 1) p_j). SciPy does not offer this correction.
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]
    adjusted = np.full(p.shape, np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return adjusted


def family_holm(p: np.ndarray, families: Sequence[str], compared: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return Holm's p of every contrast within its family, where each distinct comparison counts once: float64 [n].

    families: the family of each contrast. compared: the numbers of the two compared methods; methods with the same results
    have the same number. Contrasts of one family that compare the same two numbers (in either order) are one test and share
    its Holm p. A contrast between methods with the same results tests nothing: its p (1 or NaN) is kept and does not count.
    """
    p = np.asarray(p, np.float64)
    adjusted = p.copy()
    for family in dict.fromkeys(families):
        tests: dict[tuple[int, int], list[int]] = {}
        for i, (a, b) in enumerate(compared):
            if families[i] == family and a != b:
                tests.setdefault((min(a, b), max(a, b)), []).append(i)
        for same, value in zip(tests.values(), holm(np.array([p[same[0]] for same in tests.values()])), strict=True):
            adjusted[same] = value
    return adjusted


def _group_rows(cells: Cells, g: int, group: str) -> list[Row]:
    methods = list(cells.methods)
    pairs = compared_pairs(methods, cells.controls)
    if not pairs:
        return []
    auc = np.abs(cells.auc[:, g]) if group == "least" else cells.auc[:, g]
    first, second = ([methods.index(pair[side]) for pair in pairs] for side in (0, 1))
    both, diff = np.minimum(cells.asked_repeats[first, g], cells.asked_repeats[second, g]), auc[first] - auc[second]
    found = joined_estimate(cells, diff, both)
    low, high = found.ci
    same = _same_results(cells, auc, cells.asked_repeats[:, g])
    families = [baseline if baseline in cells.controls else PAIRS for _, baseline in pairs]
    compared = [(same[a], same[b]) for a, b in zip(first, second, strict=True)]
    columns = {
        "diff": found.mean,
        "se": found.se,
        "ci_low": low,
        "ci_high": high,
        "p": found.p,
        "p_holm": family_holm(found.p, families, compared),
        "n_queries": found.n_queries,
        "n_repeats": found.n_repeats,
    }
    by_query = query_columns(joined_levels(cells, diff, both), np.array(SENSE[group][0]))
    return [
        {"method": method, "baseline": baseline, "group": group, **row_at(columns, (i,))}
        | {"family": CONTROL if baseline in cells.controls else PAIRS, **row_at(by_query, (i,))}
        for i, (method, baseline) in enumerate(pairs)
    ]


def _same_results(cells: Cells, auc: np.ndarray, n_repeats: np.ndarray) -> list[int]:
    """Return, for every method, the position of the first method with the same results.

    Two methods have the same results if they have the same number of repeats and bit-identical AUC in every complete cell.
    auc: float64 [n_methods, n_queries, n_repeats] of one group.
    """
    used = [auc[m][:, :n][cells.complete[:, :n]] + 0.0 for m, n in enumerate(n_repeats)]
    seen: dict[tuple[int, bytes], int] = {}
    return [
        seen.setdefault((int(n), values.tobytes()), m)
        for m, (n, values) in enumerate(zip(n_repeats, used, strict=True))
    ]
