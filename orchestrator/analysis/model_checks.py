"""Checks of the retrained models: their accuracy, their number, and whether removals break them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.checks import Check, counted, percent
from orchestrator.analysis.shares import clopper_pearson

FEW = 5  # repeats or queries below which a verdict asks for caution
TOO_FEW_EXAMPLES = 30  # with fewer measured examples no accuracy shows that models are at chance
FEW_EXAMPLES = 100  # from here on the interval of an accuracy reaches at most 10 percentage points to either side
BROKEN = 0.05  # mean drop of accuracy above which removals break the model
SHOWN = 3  # curves that a sentence names


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of the models of one kind on one split.

    `models`: name of the kind, such as "reference models"; `n`: number of measured examples of `split`; `right`: number of correct
    answers among them, mean over the `n_models` models; `largest`: share of the largest class among these examples.
    """

    models: str
    split: str
    n: int
    right: float
    n_models: int
    largest: float

    @staticmethod
    def of(models: str, split: str, accuracies: Sequence[float], labels: np.ndarray) -> Accuracy:
        """Return the Accuracy from the accuracy of every model, and the `labels` int [n] of the examples."""
        n = len(labels)
        largest = float(np.bincount(labels).max() / n)
        return Accuracy(models, split, n, float(np.mean(accuracies)) * n, len(accuracies), largest)

    @property
    def share(self) -> float:
        """The mean accuracy."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95% Clopper-Pearson interval of the mean accuracy, over examples."""
        return clopper_pearson(self.right, self.n)

    @property
    def status(self) -> str:
        """passed if the interval lies above the share of the largest class; else caution if there are too few examples, else failed.

        There are too few below TOO_FEW_EXAMPLES, or below FEW_EXAMPLES if the accuracy itself is above that share.
        """
        if self.interval[0] > self.largest:
            return "passed"
        return "caution" if self.n < (FEW_EXAMPLES if self.share > self.largest else TOO_FEW_EXAMPLES) else "failed"

    @property
    def found(self) -> str:
        """The accuracy as a sentence without a full stop."""
        low, high = self.interval
        return (
            f"The {self.models} are right on {percent(self.share)} of the {self.n} measured examples of split {self.split} "
            f"(95% interval {percent(low)} to {percent(high)})"
        )

    def numbers(self) -> dict[str, float | int | str]:
        """Return the numbers from which the sentence is made."""
        low, high = self.interval
        return {
            "models": self.models,
            "split": self.split,
            "accuracy": self.share,
            "ci_low": low,
            "ci_high": high,
            "largest_class": self.largest,
            "n_examples": self.n,
            "n_models": self.n_models,
        }


def accuracy_check(found: Sequence[Accuracy], why_not: str = "", *, any_will_do: bool = False) -> Check:
    """Check whether models are more accurate than always answering the largest class.

    The check fails if the interval of the worst of `found` does not lie above the share of the largest class. With `any_will_do` it
    fails only if this holds for all of them, and asks for caution if it holds for some. If there are too few examples to decide
    (see Accuracy.status), it asks for caution. `why_not`: the sentence to show if `found` is empty.
    """
    if not found:
        return Check("accuracy", "not_checked", why_not)
    order = {"failed": 0, "caution": 1, "passed": 2}
    worst = min(found, key=lambda one: (order[one.status], one.interval[0] - one.largest))
    statuses = [one.status for one in found]
    status = worst.status
    if any_will_do and status == "failed" and any(one != "failed" for one in statuses):
        status = "caution"
    among = f" {statuses.count(worst.status)} of {len(found)} kinds of model are like this." if len(found) > 1 else ""
    numbers = worst.numbers()
    if status == "passed":
        sentence = f"{worst.found}; always answering the largest class would be right on {percent(worst.largest)}."
        return Check("accuracy", "passed", sentence, numbers)
    compared = _no_better(worst)
    if worst.status == "caution":
        return Check(
            "accuracy", "caution", f"{worst.found}. They are too few examples to tell {compared}.{among}", numbers
        )
    sentence = f"{worst.found}. This is {compared}.{among}"
    if status == "caution":
        return Check("accuracy", "caution", sentence, numbers)
    reason = f"accuracy {percent(worst.share)}, {_compared(worst)} the largest class at {percent(worst.largest)}"
    return Check("accuracy", "failed", sentence, numbers, reason)


def _no_better(one: Accuracy) -> str:
    largest = f"always answering the largest class ({percent(one.largest)})"
    if one.status == "caution":
        return f"this from {largest}"
    return f"{_compared(one)} {largest}"


def _compared(one: Accuracy) -> str:
    return "no better than" if one.share <= one.largest else "not clearly better than"


def repeats_check(n_repeats: int, what: str = "repeats", n_asked: int | None = None) -> Check:
    """Check whether there are at least FEW repeats (or other units over which intervals are formed, named by `what`).

    `n_repeats`: the smallest number that a verdict rests on; `n_asked`: the number in the design, by default the same.
    """
    numbers = {f"n_{what.replace(' ', '_')}": n_repeats, "at_least": FEW}
    if n_asked is not None and n_repeats < n_asked:
        numbers["n_asked"] = n_asked
    there = counted(n_repeats, numbers.get("n_asked", n_repeats), what.removesuffix("s"), what)
    if n_repeats >= FEW:
        return Check("repeats", "passed", f"{there}.", numbers)
    so = "intervals and p-values rest on a spread that is hardly known"
    if n_repeats < 2:
        so = "how much results vary between seeds is not known at all"
    return Check("repeats", "caution", f"{there}, fewer than {FEW}: {so}.", numbers)


def scoring_models_check(n_models: int, judges_own_model: bool) -> Check:
    """Check whether scores come from several models that are not judged themselves."""
    if judges_own_model:
        sentence = (
            "The question of this campaign is about the very models that are scored, so scores are judged on them."
        )
        return Check("scoring_models", "not_checked", sentence)
    if n_models > 1:
        return Check("scoring_models", "passed", f"Scores are means over {n_models} models.", {"n_models": n_models})
    sentence = (
        "There is one scoring model: every interval is conditional on it. More scoring models (scores.models) would show how much "
        "the scores themselves vary."
    )
    return Check("scoring_models", "caution", sentence, {"n_models": n_models})


def broken_models_check(drops: Mapping[tuple[str, str, int], float], split: str) -> Check:
    """Check whether removals lower the accuracy on the other examples so much that they break the model.

    `drops`: (method, group, k) -> mean over cells of accuracy(reference) - accuracy(removal) on the measured examples other than the
    query. If it is above BROKEN, a change of the query may only reflect that the whole model is worse.
    """
    known = {curve: drop for curve, drop in drops.items() if np.isfinite(drop)}
    if not known:
        return Check("broken_models", "not_checked", "No accuracy of a removal could be compared with its reference's.")
    ordered = sorted(known.items(), key=lambda item: -item[1])
    broken = [(curve, drop) for curve, drop in ordered if drop > BROKEN]
    numbers = {
        "split": split,
        "threshold": BROKEN,
        "largest_drop": ordered[0][1],
        "broken": [[*curve, drop] for curve, drop in broken],
        "n_curves": len(known),
    }
    limit = f"{100 * BROKEN:g} points"
    if not broken:
        sentence = (
            f"No removal lowers the accuracy on the other examples of split {split} by more than {limit} on average; "
            f"the largest drop is {_drop(*ordered[0])}."
        )
        return Check("broken_models", "passed", sentence, numbers)
    shown = "; ".join(_drop(*one) for one in broken[:SHOWN])
    more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    sentence = (
        f"Some removals break the model: they lower the accuracy on the other examples of split {split} by more than {limit} on average "
        f"({shown}{more}). What they do to a query is in part what they do to everything."
    )
    return Check("broken_models", "caution", sentence, numbers)


def _drop(curve: tuple[str, str, int], drop: float) -> str:
    method, group, k = curve
    return f"{method}, {group}, k {k}: {100 * drop:.1f} points"
