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


FEW = 3  # pairs of a group that could not be told apart and are still named one by one


def verdicts(contrasts: Iterable[Mapping[str, Any]], level: float = 0.05) -> list[str]:
    """A sentence for every contrast row, in their order (see `verdict`), and one for all that are undecided in a group, if they are many."""
    rows = list(contrasts)
    undecided = [row for row in rows if row["p_holm"] >= level]
    by_group = {row["group"]: [r for r in undecided if r["group"] == row["group"]] for row in rows}
    many = {group: found for group, found in by_group.items() if len(found) > FEW}
    told = [
        verdict(row, level) for row in rows if row["p_holm"] < level or row["group"] not in many or isnan(row["p_holm"])
    ]
    return told + [_undecided(group, found, sum(r["group"] == group for r in rows)) for group, found in many.items()]


def _undecided(group: str, found: list[Mapping[str, Any]], n_pairs: int) -> str:
    """One sentence for many pairs: how many, and the one that was nearest to a verdict."""
    nearest = min(found, key=lambda row: row["p_holm"])
    what = f"none of the {n_pairs} pairs" if len(found) == n_pairs else f"{len(found)} of the {n_pairs} pairs"
    could = "could" if len(found) == n_pairs else "could not"
    pair = f"{nearest['method']} and {nearest['baseline']}, {_found(nearest)}"
    return f"For {group}, {what} {could} be told apart (contrasts.csv has them all). Nearest to it: {pair}"


def verdict(row: Mapping[str, Any], level: float = 0.05) -> str:
    """What one row of contrasts.csv says: beats, loses to or could not be told apart from, by Holm's p < level.

    Better is lower for proponents, higher for opponents, a smaller absolute change for least.
    Numbers are the row's own to three digits.
    """
    method, baseline, group = row["method"], row["baseline"], row["group"]
    if isnan(row["p_holm"]):
        return f"For {group}, {method} could not be compared with {baseline}: too few complete queries or repeats."
    sign, when_lower, when_higher = SENSE[group]
    found = _found(row)
    if row["p_holm"] >= level:
        return f"For {group}, {method} and {baseline} could not be told apart: {found}"
    outcome = "beats" if row["diff"] * sign > 0 else "loses to"
    return f"For {group}, {method} {outcome} {baseline}: {when_lower if row['diff'] < 0 else when_higher}, {found}"


def _found(row: Mapping[str, Any]) -> str:
    found = f"{number(row['diff'])} {interval(row['ci_low'], row['ci_high'])}"
    return f"difference {found}, Holm p {number(row['p_holm'])}."


def interval(low: float, high: float) -> str:
    """Both ends of an interval, as every sentence shows them, of a mean that has a p."""
    return "[no interval: no spread]" if isnan(low) else f"[{number(low)}, {number(high)}]"


def number(value: float) -> str:
    """A value to three significant digits, as every sentence shows it."""
    return f"{float(value) + 0.0:.3g}"
