"""Order and labels of the rows of a recipe grid in figures and tables: arms in their order, levels from low to high."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.report.canvas import LABEL_LENGTH, short
from orchestrator.report.numbers import is_missing

LEVEL_LENGTH = 10  # largest number of characters of a level's label
_LOG_FACTOR = 5  # levels that differ by more than this factor have a logarithmic axis
_CHARACTER = 0.018  # share of an axis that a character of a label takes, including space to the next label


def ordered(table: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Return the rows of `arms` in their order, then by level; `level` becomes text, which is empty without a level."""
    known = table.loc[table["arm"].isin(list(arms))]
    known = known.assign(level=[level_text(value) for value in known["level"]])
    levels = {level: place for place, level in enumerate(dict.fromkeys(ordered_levels(known["level"])))}
    by_level = np.array([levels[level] for level in known["level"]], int)
    by_arm = np.array([list(arms).index(arm) for arm in known["arm"]], int)
    return known.iloc[np.lexsort((by_level, by_arm))].reset_index(drop=True)


def ordered_levels(levels: Iterable[str]) -> list[str]:
    """Return the levels: numbers ascending, then other values in the given order."""
    return sorted(levels, key=lambda level: (_number(level) is None, _number(level) or 0.0))


def level_text(value: Any) -> str:
    """Return a level as text: numbers without trailing zeros, empty without a level."""
    if is_missing(value):
        return ""
    found = None if isinstance(value, bool) else _number(str(value))
    return str(value) if found is None else f"{found:.12g}"


def level_places(levels: Sequence[str]) -> tuple[list[float], bool]:
    """Return the positions of levels on an axis from 0 to 1, and whether they are evenly spaced instead of to scale."""
    found = [_number(level) for level in levels]
    values = [value for value in found if value is not None]
    even = [i / max(len(levels) - 1, 1) for i in range(len(levels))]
    if len(levels) < 2:
        return even, False
    if len(values) < len(levels):
        return even, True
    scaled = [math.log(v) for v in values] if values[0] > 0 and values[-1] > _LOG_FACTOR * values[0] else values
    places = [(v - scaled[0]) / (scaled[-1] - scaled[0]) for v in scaled]
    return (even, True) if is_crowded(levels, places) else (places, False)


def is_crowded(levels: Sequence[str], places: Sequence[float]) -> bool:
    """Return whether the labels of `levels` at `places` would touch."""
    longest = max((len(short(level, LEVEL_LENGTH)) for level in levels), default=0)
    return any(b - a < _CHARACTER * longest for a, b in pairwise(places))


def series_name(arm: str, level: str, most: int = 40) -> str:
    """Return arm and level in one line of at most `most` characters; if it is too long, the name of the arm is shortened."""
    if not level:
        return short(arm, min(most, LABEL_LENGTH))
    ending = f" · {short(level, LEVEL_LENGTH)}"
    return short(arm, most - len(ending)) + ending


def _number(level: str) -> float | None:
    try:
        found = float(level)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
