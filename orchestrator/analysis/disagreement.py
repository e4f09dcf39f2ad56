"""The sentence that a verdict adds if the t test and the sign-flip test of a contrast lead to different conclusions."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, nan
from typing import Any

from orchestrator.analysis.intervals import sign_floor


def disagreement(row: Mapping[str, Any], level: float = 0.05) -> list[str]:
    """Return one sentence if the two tests in a row of contrasts.csv disagree, else none.

    They disagree if the verdict is that the methods differ (p_holm < level) but the sign-flip test does not confirm it (p_flip >=
    level), or if the sign-flip test finds a difference (p_flip < level) but the t test finds none even before Holm's correction
    (p >= level). Rows without `p_flip`, which older versions wrote, give no sentence.
    """
    p, p_holm, p_flip = row.get("p", nan), row["p_holm"], row.get("p_flip", nan)
    if p >= level and p_flip < level:
        return [
            f"The sign-flip test over the queries disagrees: its p is {p_flip:.3g}, that of the t test {p:.3g}. "
            "The sign-flip test speaks of the seeds used, the t test of other seeds as well."
        ]
    if isnan(p_flip) or not p_holm < level or p_flip < level:
        return []
    floor, n = float(sign_floor(row["n_queries"])), f"{row['n_queries']:.0f}"
    if floor >= level:
        return [
            f"The sign-flip test over the queries cannot confirm it: with {n} queries its p is at least {floor:.3g}."
        ]
    return [
        f"The sign-flip test over the queries does not confirm it: its p is {p_flip:.3g}, that of the t test {p:.3g}."
    ]
