"""Checks: what would make a careful reader doubt a verdict, and how a verdict is worded when a check fails."""

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
NO_NAMES: Mapping[int, str] = MappingProxyType({})  # ids that are shown as the numbers they are
SHOWN_IDS = 5  # ids that a sentence names; the column `numbers` has all of them


@dataclass(frozen=True)
class Check:
    """What one check found.

    `status` passed: nothing speaks against the verdicts; caution: they stand, with what `sentence` says in mind; failed: they are not
    to be relied on, for the `reason`, a clause without an end; not_checked: the check does not apply, and `sentence` says why.
    `numbers`: what the sentence rests on, plain JSON values.
    """

    name: str
    status: Status
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status == "failed" and not self.reason:
            raise ValueError(f"check {self.name} failed and gives no reason")

    @property
    def title(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")


def with_status(checks: Iterable[Check], status: Status) -> tuple[Check, ...]:
    """The checks that ended so, in their order."""
    return tuple(check for check in checks if check.status == status)


def worded(verdicts: Iterable[str], checks: Sequence[Check]) -> tuple[str, ...]:
    """The verdicts as a campaign with these checks may state them.

    Where a check failed, every verdict begins with "Not to be relied on" and the reasons, so that it cannot be quoted without them.
    """
    reasons = "; ".join(check.reason for check in with_status(checks, "failed"))
    return tuple(f"Not to be relied on: {reasons}. {verdict}" if reasons else verdict for verdict in verdicts)


def standing(checks: Sequence[Check]) -> str:
    """One sentence: how many checks failed, ask for caution, passed or do not apply; "" without checks."""
    if not checks:
        return ""
    words = {"failed": "failed", "caution": "ask for caution", "passed": "passed", "not_checked": "do not apply"}
    counts = {status: sum(check.status == status for check in checks) for status in words}
    told = [f"{n} {words[status] if n > 1 else _of_one(status, words)}" for status, n in counts.items() if n]
    return f"Of {len(checks)} checks, {', '.join(told)} (checks.csv)."


def _of_one(status: str, words: Mapping[str, str]) -> str:
    return {"caution": "asks for caution", "not_checked": "does not apply"}.get(status, words[status])


def checks_table(checks: Iterable[Check]) -> pd.DataFrame:
    """The checks as a table (columns CHECKS); `numbers` is JSON with sorted keys, null for what is not a number."""
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
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f}%"


def named(ids: Sequence[int], what: str = "query", whats: str = "queries", names: Mapping[int, str] = NO_NAMES) -> str:
    """The first ids in words, such as "query 3" or "queries 1, 2, 3, 4, 5 and 7 more".

    `names`: id -> the id as the data gives it; an id without one is shown as a number.
    """
    shown = ", ".join(names.get(one, str(one)) for one in ids[:SHOWN_IDS])
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return f"{what if len(ids) == 1 else whats} {shown}{more}"


def counted(n: int, n_asked: int, one: str, many: str) -> str:
    """How many there are, in words without an end: "There are 5 queries", or "A verdict rests on 2 queries of 20 asked".

    `n`: the fewest that a verdict rests on; `n_asked`: those that the campaign asks for; `one`, `many`: what they are called.
    """
    what = f"{n} {one if n == 1 else many}"
    if n < n_asked:
        return f"A verdict rests on {what} of {n_asked} asked"
    return f"There is {what}" if n == 1 else f"There are {what}"


def _plain(value: Any) -> Any:
    """JSON values: numpy numbers as Python's, anything not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
