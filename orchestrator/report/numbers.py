"""Formats numbers for display, with a real minus sign and an em dash for missing values."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

MISSING = "—"
_MINUS = "\N{MINUS SIGN}"


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, NA or the empty string."""
    return bool(pd.isna(value)) or value == "" if pd.api.types.is_scalar(value) else False


def number(value: Any, digits: int = 4) -> str:
    """Format a number with `digits` decimals, or with two significant digits if its magnitude is below 10**-digits."""
    if is_missing(value):
        return MISSING
    value = float(value)
    if math.isinf(value):
        return f"{_MINUS if value < 0 else ''}∞"
    text = f"{value:.{digits}f}" if value == 0 or abs(value) >= 10**-digits else f"{value:.1e}"
    return text.replace("-", _MINUS)


def signed(value: Any, digits: int = 4) -> str:
    """Format a number as `number` does, with a plus sign if it is positive."""
    text = number(value, digits)
    return f"+{text}" if not is_missing(value) and float(value) > 0 else text


def significant(value: Any, digits: int = 3) -> str:
    """Format a score with its sign and `digits` significant digits, since each method has its own scale."""
    if is_missing(value):
        return MISSING
    return f"{float(value):+.{digits}g}".replace("-", _MINUS).replace("inf", "∞") if float(value) else "0"


def rough(value: Any, digits: int = 2) -> str:
    """Format a ratio or slope with `digits` significant digits, without exponent between 0.001 and a million."""
    if is_missing(value):
        return MISSING
    text = f"{float(value):.{digits}g}"
    plain = f"{float(text):.12g}" if 1e-3 <= abs(float(value)) < 1e6 else text
    return plain.replace("-", _MINUS).replace("inf", "∞")


def interval(low: Any, high: Any, digits: int = 4) -> str:
    """Format an interval as both ends in brackets."""
    return MISSING if is_missing(low) or is_missing(high) else f"[{signed(low, digits)}, {signed(high, digits)}]"


def count(value: Any) -> str:
    """Format an integer with thin spaces between thousands."""
    return MISSING if is_missing(value) else f"{int(value):,}".replace(",", "\N{THIN SPACE}")


def p_value(value: Any) -> str:
    """Format a p value with three decimals, or as `< 0.001`."""
    if is_missing(value):
        return MISSING
    return "< 0.001" if float(value) < 0.001 else f"{float(value):.3f}"


def plain(value: Any) -> str:
    """Format any other value as text."""
    if is_missing(value):
        return MISSING
    return number(value) if isinstance(value, float) else str(value)
