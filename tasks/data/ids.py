"""Turns ids as the data gives them into stable 64-bit whole numbers."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.data.wording import shown
from tasks.errors import InputError

ALLOWED = "ids are whole numbers of 64 bits, or text"
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_WHOLE_AS_FLOAT = re.compile(r"(-?[0-9]{1,15})\.0*")
_FRACTION = re.compile(r"-?[0-9]+\.[0-9]+")
_LARGEST_EXACT_FLOAT = 2**53


@dataclass(frozen=True)
class Ids:
    """`numbers` int64 [n], all different; `given` holds the ids as text if the data has ids of text, else None."""

    numbers: np.ndarray
    given: tuple[str, ...] | None = None


def number_of(given: str) -> int:
    """Return the whole number that stands for an id of text.

    number = the first 8 bytes of SHA-256("refit-id" 0x00 UTF-8 of the text), big-endian, without the highest bit.

    Range: 0 .. 2^63 - 1. The number depends on the text alone, so that it is the same in every file, split and run.
    """
    return int.from_bytes(hashlib.sha256(b"refit-id\0" + given.encode()).digest()[:8], "big") & (2**63 - 1)


def read_ids(values: Sequence[Any], where: Callable[[int], str]) -> Ids:
    """Return the ids of a column: the numbers themselves if all are whole numbers, else `number_of` each text.

    Whole numbers may be written as floats (12.0) and as text; surrounding blanks are ignored. `where(row)` names a row
    in errors. Raises InputError on a missing id, on an id that is neither a whole number nor text, on a fraction in a
    column of numbers, on a column that mixes numbers and text, and on an id that appears twice.
    """
    texts: list[str] = []
    numbers: list[int | None] = []
    for row, value in enumerate(values):
        if type(value) is str:
            text = value.strip()
            if not text:
                raise InputError(where(row), f"no id; {ALLOWED}")
            texts.append(text)
            numbers.append(_whole(text))
        else:
            texts.append(str(value) if isinstance(value, uuid.UUID) else "")
            numbers.append(None if isinstance(value, uuid.UUID) else _number(value, where, row))
    if None not in numbers:
        return Ids(_unique([number for number in numbers if number is not None], None, where))
    given = tuple(_text(text, values[row], where, row) for row, text in enumerate(texts))
    if all(number is not None or _FRACTION.fullmatch(text) for number, text in zip(numbers, given, strict=True)):
        row = numbers.index(None)
        raise InputError(where(row), f"{shown(given[row])} is not an id; {ALLOWED}")
    return Ids(_unique([number_of(text) for text in given], given, where), given)


def _whole(text: str) -> int | None:
    """Return the number that a text represents if it is a whole number of 64 bits, else None."""
    as_float = _WHOLE_AS_FLOAT.fullmatch(text)
    if not as_float and not _WHOLE.fullmatch(text):
        return None
    number = int(as_float[1] if as_float else text)
    return number if -(2**63) <= number < 2**63 else None


def _number(value: Any, where: Callable[[int], str], row: int) -> int:
    """Return the whole number that a value other than text represents. Raises InputError."""
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if type(value) is float and value.is_integer():
        if abs(value) <= _LARGEST_EXACT_FLOAT:
            return int(value)
        problem = f"{value!r} is a float, and above 2^53 floats merge neighbouring ids; write ids as whole numbers"
        raise InputError(where(row), problem)
    if value is None or value != value:
        raise InputError(where(row), f"no id; {ALLOWED}")
    raise InputError(where(row), f"{shown(value)} is not an id; {ALLOWED}")


def _text(text: str, value: Any, where: Callable[[int], str], row: int) -> str:
    if not text:
        problem = f"{shown(value)} is a number, and other ids of this column are text; write all ids as text"
        raise InputError(where(row), problem)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(where(row), f"a lone surrogate at character {error.start} is not Unicode text") from error
    return text


def _unique(numbers: Sequence[int], given: Sequence[str] | None, where: Callable[[int], str]) -> np.ndarray:
    first: dict[int, int] = {}
    for row, number in enumerate(numbers):
        other = first.setdefault(number, row)
        if other == row:
            continue
        if given is not None and given[row] != given[other]:
            problem = f"ids {shown(given[row])} and {shown(given[other])} have the same digest of 63 bits; change one"
            raise InputError(where(row), problem)
        name = number if given is None else shown(given[row])
        raise InputError(where(row), f"id {name} is also that of {where(other)}; ids are unique")
    return np.asarray(numbers, np.int64)
