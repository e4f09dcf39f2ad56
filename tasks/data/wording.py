"""How messages write names and values from the user's data: in quotes, so that blanks are visible, and shortened."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

LONGEST_VALUE = 80  # characters
MOST_NAMES = 12


def shown(value: Any) -> str:
    """Return `repr(value)`, cut after LONGEST_VALUE characters; describe a number with more digits than Python prints."""
    if isinstance(value, (str, bytes)) and len(value) > LONGEST_VALUE:
        return f"{value[: LONGEST_VALUE - 3]!r}..."
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of more than 4,300 digits, or a value nested too deep
        return f"a {type(value).__name__} that is too large to be shown"
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def quoted(names: Iterable[object], most: int = MOST_NAMES) -> str:
    """Return the first `most` names in quotes, separated by commas, and then the number of the names that are not listed."""
    every = list(names)
    listed = ", ".join(shown(str(name)) for name in islice(every, most))
    return f"{listed} and {len(every) - most} more" if len(every) > most else listed
