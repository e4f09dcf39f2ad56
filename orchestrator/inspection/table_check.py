"""How a result table that was written before compares with the one derived from the ledger now."""

from __future__ import annotations

import csv
import io


def compared(stored: bytes, derived: str) -> tuple[str, str]:
    """(problem, note) about a CSV table against its derived text; both "" where they are equal to the byte.

    A table that an older version of Refit wrote may lack columns. If it does, and those it has agree, that is a note. If some
    differ too, as p_holm does where families were other ones, the problem names them and what to do.
    """
    if stored == derived.encode():
        return "", ""
    try:
        before = _rows(stored.decode("utf-8", errors="replace"))
    except csv.Error as error:
        return f"is no CSV table ({error}); refit report writes it anew", ""
    now = _rows(derived)
    lacking = [name for name in now[0] if name not in before[0]]
    if not lacking or len(before) != len(now) or [name for name in now[0] if name in before[0]] != before[0]:
        return "differs from the table derived from the ledger", ""
    named = f"an older version wrote it, without the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}"
    differing = [name for name in before[0] if _column(before, name) != _column(now, name)]
    if not differing:
        return "", f"{named}; what it has agrees with the ledger"
    return (
        f"{named}, and {', '.join(differing)} {'differs' if len(differing) == 1 else 'differ'} from what this version derives "
        "from the ledger; refit report writes it anew",
        "",
    )


def _rows(text: str) -> list[list[str]]:
    """The rows of a CSV text, the header first; one empty header where there is none."""
    return list(csv.reader(io.StringIO(text))) or [[]]


def _column(rows: list[list[str]], name: str) -> list[str]:
    position = rows[0].index(name)
    return [row[position] if position < len(row) else "" for row in rows[1:]]
