"""What to say where the t test and the sign-flip test of a contrast lead to different conclusions."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, nan
from typing import Any

from orchestrator.analysis.intervals import sign_floor


def disagreement(row: Mapping[str, Any], level: float = 0.05) -> list[str]:
    """One sentence where the two tests of a row of contrasts.csv disagree, else none.

    They disagree where a verdict is drawn (p_holm < level) that the sign-flip test does not share (p_flip >= level), or where the
    sign-flip test finds a difference (p_flip < level) and the t test none even before Holm's correction (p >= level).
    Rows without `p_flip`, as older versions wrote them, say nothing.
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
