"""The verdict in words, made from contrast rows and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan
from typing import Any

# group -> (sign of diff that is better for the method, what its removals do when diff < 0, when diff > 0)
SENSE = {
    "proponents": (-1, "its removals leave the measurement lower", "its removals leave the measurement higher"),
    "opponents": (1, "its removals leave the measurement lower", "its removals leave the measurement higher"),
    "least": (-1, "its removals move the measurement less", "its removals move the measurement more"),
}


def verdicts(contrasts: Iterable[Mapping[str, Any]], level: float = 0.05) -> list[str]:
    """One sentence for every contrast row, in their order; see `verdict`."""
    return [verdict(row, level) for row in contrasts]


def verdict(row: Mapping[str, Any], level: float = 0.05) -> str:
    """What one row of contrasts.csv says: beats, loses to or could not be told apart from, by Holm's p < level.

    Better is lower for proponents, higher for opponents, a smaller absolute change for least.
    Numbers are the row's own to three digits.
    """
    method, baseline, group = row["method"], row["baseline"], row["group"]
    if isnan(row["p_holm"]):
        return f"For {group}, {method} could not be compared with {baseline}: too few complete queries or repeats."
    sign, when_lower, when_higher = SENSE[group]
    interval = f"[{number(row['ci_low'])}, {number(row['ci_high'])}]"
    found = f"difference {number(row['diff'])} {interval}, Holm p {number(row['p_holm'])}."
    if row["p_holm"] >= level:
        return f"For {group}, {method} and {baseline} could not be told apart: {found}"
    outcome = "beats" if row["diff"] * sign > 0 else "loses to"
    return f"For {group}, {method} {outcome} {baseline}: {when_lower if row['diff'] < 0 else when_higher}, {found}"


def number(value: float) -> str:
    """A value to three significant digits, as every sentence shows it."""
    return f"{float(value) + 0.0:.3g}"
