"""The summary as plain text for a terminal: aligned columns, no colour codes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pandas as pd

from orchestrator.report.numbers import count, interval, signed

_COLUMNS = ("method", "group", "AUC-DEL", "95% CI, queries of this kind", "95% CI, these queries", "queries", "repeats")


def summary_table(summary: pd.DataFrame, verdicts: Sequence[str], width: int = 100) -> str:
    """The AUC-DEL table with both intervals, and the verdicts below it, wrapped at `width`."""
    rows = [_COLUMNS, *(_cells(row) for row in summary.to_dict("records"))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * one for one in widths))
    told = [
        textwrap.fill(_printable(verdict), width, initial_indent="- ", subsequent_indent="  ") for verdict in verdicts
    ]
    return "\n".join([*lines, *([""] if told else []), *told])


def _cells(row: dict) -> tuple[str, ...]:
    return (
        _printable(row["method"]),
        _printable(row["group"]),
        signed(row.get("auc_del")),
        interval(row.get("ci_low"), row.get("ci_high")),
        interval(row.get("ci_fixed_low"), row.get("ci_fixed_high")),
        count(row.get("n_queries")),
        count(row.get("n_repeats")),
    )


def _printable(label: object) -> str:
    """Labels are user text: control characters, escape sequences among them, do not reach the terminal."""
    return "".join(char if char.isprintable() else "?" for char in str(label))


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    aligned = [
        cell.ljust(w) if position < 2 else cell.rjust(w)
        for position, (cell, w) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()
