"""Compares a stored result table with the one that is derived from the ledger now."""

from __future__ import annotations

import csv
import io


def compared(stored: bytes, derived: str) -> tuple[str, str]:
    """Compare a stored CSV table with its derived text and return (problem, note); both are "" if the bytes are equal.

    A table that an older version of Refit wrote may lack columns. If its other columns agree, the result is a note. If some of them
    differ as well, as p_holm does where the older version used other families, the problem names the columns and the remedy.
    """
    if stored == derived.encode():
        return "", ""
    try:
        before = _rows(stored.decode("utf-8", errors="replace"))
    except csv.Error as error:
        return f"is no CSV table ({error}); refit report writes it again", ""
    now = _rows(derived)
    lacking = [name for name in now[0] if name not in before[0]]
    if not lacking or len(before) != len(now) or [name for name in now[0] if name in before[0]] != before[0]:
        return "differs from the table derived from the ledger", ""
    named = f"an older version wrote it without the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}"
    differing = [name for name in before[0] if _column(before, name) != _column(now, name)]
    if not differing:
        return "", f"{named}; its other columns agree with the ledger"
    return (
        f"{named}, and {', '.join(differing)} {'differs' if len(differing) == 1 else 'differ'} from what this version derives "
        "from the ledger; refit report writes it again",
        "",
    )


def _rows(text: str) -> list[list[str]]:
    """Return the rows of a CSV text, the header first; a text without rows gives one empty header."""
    return list(csv.reader(io.StringIO(text))) or [[]]


def _column(rows: list[list[str]], name: str) -> list[str]:
    position = rows[0].index(name)
    return [row[position] if position < len(row) else "" for row in rows[1:]]
