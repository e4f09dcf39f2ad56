"""Checks: reasons for a careful reader to doubt a verdict, and the wording of verdicts when a check fails."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd

Status = Literal["passed", "caution", "failed", "not_checked"]
CHECKS = ["name", "status", "sentence", "numbers"]
FAILED = "These verdicts are not to be relied on:"
CAUTION = "Read the verdicts with caution:"
NO_NAMES: Mapping[int, str] = MappingProxyType({})  # all ids are shown as numbers
SHOWN_IDS = 5  # ids that a sentence names; the column `numbers` has all of them


@dataclass(frozen=True)
class Check:
    """The result of one check.

    `status` passed: the check gives no reason to doubt the verdicts; caution: the verdicts hold, but the reader must take `sentence` into
    account; failed: the verdicts are not to be relied on because of `reason`, a clause without a full stop; not_checked: the check does
    not apply, and `sentence` gives the cause. `numbers`: plain JSON values from which the sentence was made.
    """

    name: str
    status: Status
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status == "failed" and not self.reason:
            raise ValueError(f"check {self.name} failed, but its reason is empty")

    @property
    def title(self) -> str:
        """The name with spaces instead of underscores."""
        return self.name.replace("_", " ")


def with_status(checks: Iterable[Check], status: Status) -> tuple[Check, ...]:
    """Return the checks with this status, in their order."""
    return tuple(check for check in checks if check.status == status)


def worded(verdicts: Iterable[str], checks: Sequence[Check]) -> tuple[str, ...]:
    """Return the verdicts in the wording that the checks allow.

    If a check failed, every verdict begins with "Not to be relied on" and the reasons, so that it cannot be quoted without them.
    """
    reasons = "; ".join(check.reason for check in with_status(checks, "failed"))
    return tuple(f"Not to be relied on: {reasons}. {verdict}" if reasons else verdict for verdict in verdicts)


def accuracy_found(checks: Iterable[Check]) -> tuple[str, ...]:
    """Return the sentence of the check named accuracy if that check passed, and nothing otherwise.

    The sentence of a check that failed or asks for caution is shown with the verdicts, so it needs no second place.
    """
    return tuple(check.sentence for check in with_status(checks, "passed") if check.name == "accuracy")


def standing(checks: Sequence[Check]) -> str:
    """Return one sentence with the numbers of checks that failed, ask for caution, passed or do not apply; "" without checks."""
    if not checks:
        return ""
    words = {"failed": "failed", "caution": "ask for caution", "passed": "passed", "not_checked": "do not apply"}
    counts = {status: sum(check.status == status for check in checks) for status in words}
    parts = [f"{n} {words[status] if n > 1 else _of_one(status, words)}" for status, n in counts.items() if n]
    return f"Of {len(checks)} checks, {', '.join(parts)} (checks.csv)."


def _of_one(status: str, words: Mapping[str, str]) -> str:
    return {"caution": "asks for caution", "not_checked": "does not apply"}.get(status, words[status])


def checks_table(checks: Iterable[Check]) -> pd.DataFrame:
    """Return the checks as a table (columns CHECKS); `numbers` is JSON with sorted keys, and null for NaN and infinity."""
    rows = [
        {
            "name": check.name,
            "status": check.status,
            "sentence": check.sentence,
            "numbers": json.dumps(_plain(check.numbers), sort_keys=True, ensure_ascii=False, allow_nan=False),
        }
        for check in checks
    ]
    return pd.DataFrame(rows, columns=CHECKS)


def percent(share: float) -> str:
    """Format a share as a percentage with one decimal."""
    return f"{100 * share:.1f}%"


def named(ids: Sequence[int], what: str = "query", whats: str = "queries", names: Mapping[int, str] = NO_NAMES) -> str:
    """Name the first ids in words, such as "query 3" or "queries 1, 2, 3, 4, 5 and 7 more".

    `what`, `whats`: the noun in singular and plural. `names`: id -> the id as the data gives it; other ids are shown as numbers.
    """
    shown = ", ".join(names.get(one, str(one)) for one in ids[:SHOWN_IDS])
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return f"{what if len(ids) == 1 else whats} {shown}{more}"


def counted(n: int, n_asked: int, one: str, many: str) -> str:
    """Return a count as a sentence without a full stop: "There are 5 queries", or "A verdict rests on 2 queries of 20 asked".

    `n`: the smallest number that a verdict rests on; `n_asked`: the number in the design; `one`, `many`: the noun in singular and plural.
    """
    what = f"{n} {one if n == 1 else many}"
    if n < n_asked:
        return f"A verdict rests on {what} of {n_asked} asked"
    return f"There is {what}" if n == 1 else f"There are {what}"


def _plain(value: Any) -> Any:
    """Convert to plain JSON values: numpy numbers become Python numbers, NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
