"""Guesses which character separates the columns of a file, for error messages only; no file is read by a guess."""

from __future__ import annotations

import csv
from collections.abc import Sequence

CANDIDATES = (";", "\t", ",", "|", ":")
_LONGEST_HEADER = 10_000  # characters


def delimiter_hint(header_line: str, columns: Sequence[str], used: str) -> str:
    """Suggest what to write in the config if another character than `used` seems to separate the header line; else "".

    Another character is suggested if splitting the line at it gives every requested column, or gives several columns
    although `used` gives only one.
    """
    line = header_line[:_LONGEST_HEADER]
    names_by = {other: _names(line, other) for other in CANDIDATES if other != used}
    fitting = [other for other, names in names_by.items() if set(columns) <= set(names)]
    if not fitting and len(_names(line, used)) == 1:
        fitting = [other for other, names in names_by.items() if len(names) > 1]
    if not fitting:
        return ""
    best = max(fitting, key=lambda other: len(names_by[other]))
    name, remedy = {
        "\t": ("tabs", "format: tsv"),
        ",": ("','", "format: csv"),
    }.get(best, (repr(best), f'format: csv with delimiter: "{best}"'))
    return f"; the header line seems to be separated by {name}: {remedy} reads that"


def _names(line: str, delimiter: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []
