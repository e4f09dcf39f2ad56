"""Verdicts as sentences, made from contrast rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan
from typing import Any

from orchestrator.analysis.disagreement import disagreement

# group -> (sign of diff that is better for the method, clause for diff < 0, clause for diff > 0)
SENSE = {
    "proponents": (-1, "its removals leave the measurement lower", "its removals leave the measurement higher"),
    "opponents": (1, "its removals leave the measurement lower", "its removals leave the measurement higher"),
    "proponent_words": (
        -1,
        "its replaced words leave the measurement lower",
        "its replaced words leave the measurement higher",
    ),
    "opponent_words": (
        1,
        "its replaced words leave the measurement lower",
        "its replaced words leave the measurement higher",
    ),
    "least": (-1, "its removals move the measurement less", "its removals move the measurement more"),
}


FEW = 3  # a family with at most this many undecided comparisons (see `verdicts`) gets a sentence for each of them


def verdicts(contrasts: Iterable[Mapping[str, Any]], level: float = 0.05) -> list[str]:
    """Return a sentence for every contrast row, in their order (see `verdict`).

    A comparison is undecided if its Holm-corrected p is not below `level`. If a family has more than FEW undecided rows, they share
    a single sentence at the end. Families are those of Holm's correction: all methods against one control, and all pairs of methods, each
    within a group.
    """
    rows = list(contrasts)
    families: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        families.setdefault(_family(row), []).append(row)
    undecided = {name: [r for r in family if r["p_holm"] >= level] for name, family in families.items()}
    many = {name: found for name, found in undecided.items() if len(found) > FEW}
    single = [verdict(row, level) for row in rows if not row["p_holm"] >= level or _family(row) not in many]
    return single + [_undecided(found, len(families[name]), level) for name, found in many.items()]


def _family(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return group, family and control of a row; in tables of older versions, which have no column `family`, a group is one family."""
    family = row.get("family", "")
    return row["group"], family, row["baseline"] if family == "control" else ""


def _undecided(found: list[Mapping[str, Any]], n: int, level: float) -> str:
    """Return one sentence for many undecided rows of a family of n: their number, and the row with the smallest p.

    The smallest p is chosen before Holm's correction. The corrected p values are often all 1, so that they would not determine a row.
    """
    group, family, control = _family(found[0])
    what = "methods" if family == "control" else "pairs of methods"
    from_what = f" from {control}" if family == "control" else ""
    counted = f"none of the {n} {what} could" if len(found) == n else f"{len(found)} of the {n} {what} could not"
    first = min(found, key=lambda row: row.get("p", row["p_holm"]))
    named = first["method"] if family == "control" else f"{first['method']} against {first['baseline']}"
    smallest = f"The smallest p {'is' if len(found) == n else 'among them is'} that of {named}: {_found(first, level)}"
    return f"For {group}, {counted} be told apart{from_what} (contrasts.csv has every comparison). {smallest}"


def verdict(row: Mapping[str, Any], level: float = 0.05) -> str:
    """Return the verdict of one row of contrasts.csv: the method beats the baseline, loses to it, or could not be told apart from it.

    They could not be told apart if Holm's p is not below `level`. The better method is the one whose removals leave the measurement
    lower (proponents), leave it higher (opponents), or change it less in absolute value (least). Numbers are shown to three
    digits. If the sign-flip test leads to another conclusion than the t test, the verdict mentions it.
    """
    method, baseline, group = row["method"], row["baseline"], row["group"]
    if isnan(row["p_holm"]):
        why = "because too few queries or repeats have a number for every method and every k"
        return f"For {group}, {method} could not be compared with {baseline}, {why}."
    sign, when_lower, when_higher = SENSE[group]
    found = _found(row, level)
    if row["p_holm"] >= level:
        return f"For {group}, {method} and {baseline} could not be told apart: {found}"
    outcome = "beats" if row["diff"] * sign > 0 else "loses to"
    return f"For {group}, {method} {outcome} {baseline}: {when_lower if row['diff'] < 0 else when_higher}, {found}"


def _found(row: Mapping[str, Any], level: float) -> str:
    if row["diff"] == 0 and row.get("se") == 0:
        return "they gave the same result for every query and repeat."
    found = f"{number(row['diff'])} {interval(row['ci_low'], row['ci_high'])}"
    return " ".join([f"difference {found}, Holm p {number(row['p_holm'])}.", *disagreement(row, level)])


def interval(low: float, high: float) -> str:
    """Format a confidence interval as it is shown in all verdicts. Both ends are NaN if the values have no spread."""
    return "[no interval: no spread]" if isnan(low) else f"[{number(low)}, {number(high)}]"


def number(value: float) -> str:
    """Format a value to three significant digits, as in all verdicts."""
    return f"{float(value) + 0.0:.3g}"
