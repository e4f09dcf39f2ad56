"""Reads columns of text, or of lists of tokens, into one text per record, or into the two segments of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.base import BETWEEN
from tasks.data.readers import Table
from tasks.data.wording import shown
from tasks.errors import InputError


def read_texts(table: Table, columns: Sequence[str]) -> list[str]:
    """Return the text of every record: its `columns` joined with one space. Raises InputError naming row and column."""
    parts = []
    for column in columns:
        parts.append([_text(value, table, row, column) for row, value in enumerate(table.columns[column])])
    return [" ".join(row) for row in zip(*parts, strict=True)]


def join_pairs(first: Sequence[str], second: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return each pair of segments as one text, and where the second segment starts in it: int64 [n]."""
    texts = [f"{one}{BETWEEN}{other}" for one, other in zip(first, second, strict=True)]
    return texts, np.asarray([len(one) + len(BETWEEN) for one in first], np.int64)


def cell(table: Table, row: int, column: str) -> str:
    """Return the name of one value in messages: file, record and column."""
    return f"{table.place(row)}: {column}"


def _text(value: Any, table: Table, row: int, column: str) -> str:
    """Return a text, or the tokens of a list joined with one space."""
    if isinstance(value, list):
        for position, token in enumerate(value):
            if not isinstance(token, str):
                problem = f"token {position} is {shown(token)}; a list of tokens holds texts only"
                raise InputError(cell(table, row, column), problem)
        value = " ".join(value)
    if not isinstance(value, str):
        problem = f"{'no text' if value is None else shown(value)}; text is needed, or a list of tokens"
        raise InputError(cell(table, row, column), problem)
    return _unicode(value, table, row, column)


def _unicode(text: str, table: Table, row: int, column: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                cell(table, row, column), f"a lone surrogate at character {error.start} is not Unicode text"
            ) from error
    return text
