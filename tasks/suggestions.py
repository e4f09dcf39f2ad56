"""Suggestions for a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_NAME = 100  # characters; comparing longer names takes long, and they are no typing errors
MOST_OPTIONS = 10_000


def did_you_mean(value: object, options: Iterable[object]) -> str:
    """Return `; did you mean 'x'?` for the one of `options` that is nearest to `value` in spelling, or "" if none is near.

    Upper and lower case count as equal, and so do blanks, `-` and `_`. A value that is not text has no suggestion.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        return ""
    by_form: dict[str, str] = {}
    for option in options:
        if len(by_form) < MOST_OPTIONS and isinstance(option, str) and 0 < len(option) <= LONGEST_NAME:
            by_form.setdefault(_form(option), option)
    found = get_close_matches(_form(value), by_form, n=1, cutoff=0.6)
    return f"; did you mean {by_form[found[0]]!r}?" if found else ""


def listed(names: Iterable[object], most: int = 12) -> str:
    """Return all names as `a, b, c`. If there are more than `most`, return the first `most` and the number of all names."""
    names = [str(name) for name in names]
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} ... ({len(names)} in all)"


def _form(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
