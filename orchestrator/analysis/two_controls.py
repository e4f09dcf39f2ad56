"""The verdict on a method that is compared with two controls: one removes random examples, the other selects them by label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.analysis.verdicts import SENSE, verdict

# group -> the examples that the control by label removes; the group `least` makes no claim about labels
DRAWN = {
    "proponents": "random examples of the label that is asked about",
    "opponents": "random examples of the other labels",
    "proponent_words": "random words of random examples of the label that is asked about",
    "opponent_words": "random words of random examples of the other labels",
}


def two_control_verdicts(
    verdicts: Sequence[str], contrasts: Iterable[Mapping[str, Any]], blind: str, by_label: str, level: float = 0.05
) -> list[str]:
    """Return `verdicts`, where one sentence replaces two for every method and group that beats the control `blind`.

    The sentence states whether the method also beats `by_label`, the control that removes examples by their label. If it does not,
    removing examples of that label explains the effect, and the sentence states that the method found the label, not the examples.
    """
    rows = {(row["method"], row["baseline"], row["group"]): row for row in contrasts}
    instead: dict[str, str] = {}
    for (method, baseline, group), row in rows.items():
        other = rows.get((method, by_label, group))
        if baseline != blind or other is None or group not in DRAWN or not _beats(row, level):
            continue
        if other["p_holm"] == other["p_holm"]:  # not NaN: the two could be compared
            instead[verdict(row, level)] = _both(row, other, level)
            instead[verdict(other, level)] = ""
    return [sentence for sentence in (instead.get(one, one) for one in verdicts) if sentence]


def _beats(row: Mapping[str, Any], level: float) -> bool:
    return row["p_holm"] < level and row["diff"] * SENSE[row["group"]][0] > 0


def _both(row: Mapping[str, Any], other: Mapping[str, Any], level: float) -> str:
    method, group, blind, by_label = row["method"], row["group"], row["baseline"], other["baseline"]
    start, drawn = f"For {group}, {method} beats", DRAWN[group]
    how, what = ("replacing", "words") if group.endswith("_words") else ("removing", "examples")
    numbers = f"Against {blind}: {_numbers(row, level)} Against {by_label}: {_numbers(other, level)}"
    if _beats(other, level):
        beyond = "their label" if what == "examples" else "the label of their examples"
        return f"{start} both controls, so it found {what} that matter beyond {beyond}. {numbers}"
    why = f"its effect could not be told apart from that of {how} {drawn}"
    if other["p_holm"] < level:
        why = f"{how} {drawn} has a larger effect"
    found = f"so it found the label, not the {what}, as far as this campaign can tell"
    return f"{start} {blind} but not {by_label}, {found}: {why}. {numbers}"


def _numbers(row: Mapping[str, Any], level: float) -> str:
    """Return the part of a verdict from the difference on: the difference with its interval and p, and any further sentences."""
    sentence = verdict(row, level)
    return sentence[max(sentence.find("difference "), 0) :]
