"""Formats any table as columns of text: row labels first, and both ends of an interval in one column."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pandas.api import types

from orchestrator.report import numbers

_INTERVAL = re.compile(r"(?:(?P<name>.+)_)?ci(?:_(?P<kind>.+))?_low")
_P_VALUE = re.compile(r"p|p_.+|.+_p")


@dataclass(frozen=True)
class Column:
    """One column as text. `is_number`: the column holds numbers and is right-aligned."""

    title: str
    cells: tuple[str, ...]
    is_number: bool


def columns(frame: pd.DataFrame, labels: Sequence[str] = ()) -> list[Column]:
    """Format the columns of `frame` as text; those in `labels` come first, as plain text.

    `ci_low` and `ci_high` become one interval, and so do `<name>_ci_low` and `<name>_ci_high`, and `ci_<kind>_low` and
    `ci_<kind>_high`. Integers are shown as counts, `p`, `p_<kind>` and `<kind>_p` as p values. All other numbers of a
    column have the same number of decimals, which suits the largest. Columns without any value are left out, except
    those in `labels`.
    """
    first = [name for name in labels if name in frame.columns]
    found = [_text(frame, name, name) for name in first]
    done = set(first)
    for name in map(str, frame.columns):
        high = name.removesuffix("_low") + "_high"
        if name in done or (len(frame) and all(map(numbers.is_missing, frame[name]))):
            continue
        match = _INTERVAL.fullmatch(name)
        if match and high in frame.columns:
            found.append(_interval(frame, name, high, match))
            done.add(high)
        else:
            found.append(_column(frame, name))
    return found


def _interval(frame: pd.DataFrame, low: str, high: str, match: re.Match[str]) -> Column:
    title = " ".join(
        ([_title(match["name"])] if match["name"] else [])
        + ["95% CI"]
        + ([f"({_title(match['kind'])})"] if match["kind"] else [])
    )
    digits, sign = _scale([*frame[low], *frame[high]])
    ends = zip(frame[low], frame[high], strict=True)
    return Column(title, tuple(_bracketed(a, b, digits, sign) for a, b in ends), True)


def _bracketed(low: object, high: object, digits: int, sign: bool) -> str:
    if numbers.is_missing(low) or numbers.is_missing(high):
        return numbers.MISSING
    return f"[{_number(low, digits, sign)}, {_number(high, digits, sign)}]"


def _column(frame: pd.DataFrame, name: str) -> Column:
    values = frame[name]
    if types.is_bool_dtype(values) or not types.is_numeric_dtype(values):
        return _text(frame, name, _title(name))
    if types.is_integer_dtype(values) or name.startswith("n_"):
        write = numbers.plain if name.endswith("_id") or name in ("seed", "k") else numbers.count
        return Column(_title(name), tuple(write(value) for value in values), True)
    if _P_VALUE.fullmatch(name):
        return Column(_title(name), tuple(map(numbers.p_value, values)), True)
    digits, sign = _scale(frame[name])
    return Column(_title(name), tuple(_number(value, digits, sign) for value in values), True)


def _text(frame: pd.DataFrame, name: str, title: str) -> Column:
    def text(value: object) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return numbers.plain(value)

    return Column(_title(title), tuple(text(value) for value in frame[name].tolist()), False)


def _title(name: str) -> str:
    return re.sub(r"^n_", "", name).replace("_", " ")


def _scale(values: Iterable[Any]) -> tuple[int, bool]:
    """Return the number of decimals, three below 10, fewer above, more below 0.1, and whether some value is negative."""
    finite = [float(v) for v in values if not numbers.is_missing(v) and math.isfinite(v)]
    largest = max(map(abs, finite), default=0.0)
    whole = math.floor(math.log10(largest)) + 1 if largest > 0 else 1
    digits = 3 - whole if whole < 0 else 4 - max(whole, 1)
    return min(max(digits, 0), 6), any(value < 0 for value in finite)


def _number(value: object, digits: int, sign: bool) -> str:
    return numbers.signed(value, digits) if sign else numbers.number(value, digits)
