"""Parses one line of a jsonl file to an object; errors name the file and the line."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tasks.data.wording import shown
from tasks.errors import InputError

ONE_A_LINE = "format: jsonl needs one object per line"


class _Object(dict):
    """A JSON object that remembers a repeated key, of which plain `json` silently keeps the last value."""

    repeated: str | None = None


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        found.repeated = next(name for name, count in counts.items() if count > 1)
    return found


def json_object(line: str, where: str) -> dict[str, Any]:
    """Return the object of a line; `where` names file and line. Raises InputError if the line is not one object or repeats a key.

    Repeated keys inside a value of the object are not checked, because only the columns of the object are read.
    """
    try:
        record = json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        problem = f"not valid JSON at column {error.colno}: {error.msg}{_hint(line, error)}"
        raise InputError(where, problem) from error
    except RecursionError as error:
        raise InputError(where, f"not valid JSON: nested too deep{_array_hint(line.strip())}") from error
    except ValueError as error:  # Python parses whole numbers of at most 4,300 digits
        raise InputError(
            where, "not valid JSON: a whole number has too many digits; write such a value as text"
        ) from error
    if not isinstance(record, _Object):
        raise InputError(where, f"a JSON {type(record).__name__}, not an object with columns; {ONE_A_LINE}")
    if record.repeated is not None:
        raise InputError(where, f"the key {shown(record.repeated)} appears twice; a record has each column once")
    return record


def _hint(line: str, error: json.JSONDecodeError) -> str:
    """Describe what the user probably has if a line is not valid JSON."""
    text = line.strip()
    if error.msg == "Extra data" and text.endswith(",") and line[error.pos :].strip() == ",":
        return f"; a comma follows the object: {ONE_A_LINE}, with nothing between them"
    if text == "{":
        return f"; {ONE_A_LINE}, and this object spans several lines"
    return _array_hint(text)


def _array_hint(text: str) -> str:
    is_array = text.startswith("[")
    return f"; the file seems to hold a JSON array: {ONE_A_LINE}, without an array around them" if is_array else ""
