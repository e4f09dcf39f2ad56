"""The outcome of a deletion campaign in a few sentences that can be read without knowing its statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.analysis.verdicts import SENSE, number

Row = Mapping[Any, Any]
NAMED = 3  # methods that a sentence names; more are counted

# group -> what a method selects, what is done to it, the random examples of the blind control, and those of the control by label
_WORDS = {
    "proponents": ("proponents", "removing", "random examples", "random examples of the label that is asked about"),
    "opponents": ("opponents", "removing", "random examples", "random examples of the other labels"),
    "proponent_words": (
        "words in proponents",
        "replacing",
        "random words",
        "random words of examples of the label that is asked about",
    ),
    "opponent_words": (
        "words in opponents",
        "replacing",
        "random words",
        "random words of examples of the other labels",
    ),
    "least": ("least influential examples", "removing", "random examples", ""),
}


def in_short(
    summary: Sequence[Row],
    contrasts: Sequence[Row],
    blind: str | None,
    by_label: str | None,
    measured: str = "the measurement",
    level: float = 0.05,
) -> tuple[str, ...]:
    """Return a few sentences for each group: which methods do more than the control `blind`, and than `by_label`.

    `summary` and `contrasts`: rows of the tables of these names. `blind` removes random examples, `by_label` chooses them
    by their label; `measured` names the measurement. A difference counts if its Holm-corrected p is below `level`.
    Without a control there is nothing to compare with, which the only sentence then says.
    """
    groups = list(dict.fromkeys(row["group"] for row in contrasts if row["group"] in SENSE))
    if not blind:
        missing = "No control is among the methods, so it is unknown whether their removals do more than random ones."
        return (missing,) if groups else ()
    values = {(row["method"], row["group"]): float(row["auc_del"]) for row in summary}
    found = (_Group(group, contrasts, values, measured, level).sentences(blind, by_label) for group in groups)
    return tuple(" ".join(sentences) for sentences in found if sentences)


class _Group:
    """The contrasts of one group; `values` holds AUC-DEL by method and group."""

    def __init__(
        self,
        group: str,
        contrasts: Sequence[Row],
        values: Mapping[tuple[str, str], float],
        measured: str,
        level: float,
    ):
        self.group, self.values, self.measured, self.level = group, values, measured, level
        self.rows = {(row["method"], row["baseline"]): row for row in contrasts if row["group"] == group}
        self.sign = SENSE[group][0]
        self.selected, self.doing, self.random, self.of_label = _WORDS[group]

    def sentences(self, blind: str, by_label: str | None) -> list[str]:
        """Return what holds of the methods against the control `blind`, and of the better ones against `by_label`."""
        judged = [method for method, baseline in self.rows if baseline == blind]
        p_values = [self.rows[method, blind]["p_holm"] for method in judged]
        n = sum(p == p for p in p_values)  # a NaN is no p
        if not n:
            return [f"No method's {self.selected} could be compared with {self.random}."] if judged else []
        better, worse = self._told_apart(judged, blind, 1), self._told_apart(judged, blind, -1)
        opposite = [f"Those of {_joined(worse)} do the opposite."] if worse else []
        if not better:
            than_random = f"do more than {self.random}"
            if self.group == "least":
                than_random = f"change {self.measured} less than {self.random} do"
            return [f"No method's {self.selected} {than_random}, as far as this campaign can tell.", *opposite]
        return [self._beats(better, n, blind), *self._by_label(better, by_label), *opposite]

    def _beats(self, better: Sequence[str], n: int, blind: str) -> str:
        verb, much = ("lowers" if self.sign < 0 else "raises", "more")
        if self.group == "least":
            verb, much = "changes", "less"
        first = self._best_first(better)[:NAMED]
        who = _joined(first) if len(better) <= NAMED else f"{len(better)} of {n} methods"
        who = f"all {n} methods" if len(better) == n > NAMED else who
        best = "" if len(better) <= NAMED else "best: "
        sizes = ", ".join(f"{method} {self._value(method)}" for method in first)
        compared = f"{verb} {self.measured} {much} than {self.doing} {self.random} does"
        return f"{self.doing.capitalize()} the {self.selected} of {who} {compared} ({best}{sizes}; {blind} {self._value(blind)})."

    def _by_label(self, better: Sequence[str], by_label: str | None) -> list[str]:
        """Return what the control by label says of the methods that do more than the blind control."""
        if not by_label or not self.of_label or not all((method, by_label) in self.rows for method in better):
            return []
        beyond, control = self._told_apart(better, by_label, 1), f"{self.of_label} ({by_label} {self._value(by_label)})"
        if len(beyond) == len(better):
            return [f"{'It also does' if len(better) == 1 else 'They also do'} more than {control}."]
        if beyond:
            named = _joined(beyond) if len(beyond) <= NAMED else str(len(beyond))
            return [f"Of these, {named} also {'does' if len(beyond) == 1 else 'do'} more than {control}."]
        does = "It does not do" if len(better) == 1 else "None of them does"
        return [f"{does} more than {control}, so it may be the label alone that was found."]

    def _told_apart(self, methods: Sequence[str], baseline: str, direction: int) -> list[str]:
        """Return the methods that differ from the baseline as the method claims (direction 1), or the other way (-1)."""
        rows = ((method, self.rows[method, baseline]) for method in methods)
        signed = self.sign * direction
        return [method for method, row in rows if row["p_holm"] < self.level and row["diff"] * signed > 0]

    def _best_first(self, methods: Sequence[str]) -> list[str]:
        sizes = {method: self.values[method, self.group] for method in methods}
        if self.group == "least":
            return sorted(methods, key=lambda method: abs(sizes[method]))
        return sorted(methods, key=lambda method: -self.sign * sizes[method])

    def _value(self, method: str) -> str:
        value = self.values[method, self.group]
        return f"{'+' if value > 0 else ''}{number(value)}"


def _joined(methods: Sequence[str]) -> str:
    return methods[0] if len(methods) == 1 else f"{', '.join(methods[:-1])} and {methods[-1]}"
