"""Formats a campaign's headline table as plain text for a terminal, with aligned columns and without colour codes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from orchestrator.analysis.checks import CAUTION, FAILED, Check, accuracy_found, standing, with_status
from orchestrator.report.columns import columns
from orchestrator.report.numbers import count, interval, signed

if TYPE_CHECKING:
    from orchestrator.campaigns.results import Results

_COLUMNS = ("method", "group", "AUC-DEL", "95% CI, queries of this kind", "95% CI, these queries", "queries", "repeats")


def summary_table(
    summary: pd.DataFrame, verdicts: Sequence[str], width: int = 100, checks: Sequence[Check] = ()
) -> str:
    """Format the AUC-DEL table with both intervals, and below it the verdicts with their checks, wrapped at `width`."""
    rows = [_COLUMNS, *(_cells(row) for row in summary.to_dict("records"))]
    return _text(rows, [False, False, *[True] * (len(_COLUMNS) - 2)], _conclusions(verdicts, checks, width))


def headline_table(
    frame: pd.DataFrame,
    labels: Sequence[str],
    verdicts: Sequence[str],
    width: int = 100,
    checks: Sequence[Check] = (),
) -> str:
    """Format any table, with the columns `labels` first, and below it the verdicts with their checks."""
    found = columns(frame, labels)
    cells = [[printable(column.title), *map(printable, column.cells)] for column in found]
    rows, is_number = list(zip(*cells, strict=True)), [column.is_number for column in found]
    return _text(rows, is_number, _conclusions(verdicts, checks, width))


def results_table(results: Results, width: int = 100) -> str:
    """Format what `refit run` prints at the end: the headline table of `results`, and its verdicts with their checks.

    If the results have sentences in short, these stand above the table, below the failed checks, and only the number of
    verdicts is shown.
    """
    verdicts, checks = results.verdicts, results.checks
    if not results.in_short:
        return _headline(results, verdicts, checks)
    counted = f"All {len(verdicts)} comparisons are in the report in words, and in contrasts.csv in numbers."
    blocks = [
        _failed(checks, width),
        _listed("In short:", "-", [*results.in_short, *accuracy_found(checks)], width),
        [_headline(results, (), ())],
        [counted] if verdicts else [],
        _cautions(checks, width),
        [standing(checks)] if checks else [],
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def most_moved_query(results: Results) -> str:
    """Return the id of the query that a removal changed most, as the data gives it; "" if the campaign has no curve per query."""
    table = results.tables.get("query_curves", pd.DataFrame())
    changed = table.dropna(subset=["delta"]) if "delta" in table.columns else table
    if not len(changed):
        return ""
    ids = changed["given_query_id" if "given_query_id" in changed.columns else "query_id"]
    return printable(ids[changed["delta"].abs().idxmax()])


def _headline(results: Results, verdicts: Sequence[str], checks: Sequence[Check]) -> str:
    """Format the headline table, and below it `verdicts` with `checks`."""
    table = results.tables[results.headline]
    if results.headline == "summary" and "auc_del" in table.columns:
        return summary_table(table, verdicts, checks=checks)
    kept = [name for name in (*results.labels, *results.shown) if name in table.columns]
    return headline_table(table.loc[:, kept] if results.shown else table, results.labels, verdicts, checks=checks)


def _text(rows: Sequence[tuple[str, ...]], is_number: Sequence[bool], conclusions: Sequence[str]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths, is_number) for row in rows]
    lines[1:1] = ["  ".join("-" * one for one in widths)] if rows else []
    return "\n".join([*lines, *([""] if conclusions else []), *conclusions])


def _conclusions(verdicts: Sequence[str], checks: Sequence[Check], width: int) -> list[str]:
    """Return lines with the failed checks, the verdicts, the checks with outcome caution, and the count of checks."""
    parts = [
        _failed(checks, width),
        _listed("", "-", verdicts, width),
        _cautions(checks, width),
        [standing(checks)] if checks else [],
    ]
    return [line for position, part in enumerate(filter(None, parts)) for line in ([""] if position else []) + part]


def _failed(checks: Sequence[Check], width: int) -> list[str]:
    return _listed(FAILED, "!", [f"{check.title}: {check.sentence}" for check in with_status(checks, "failed")], width)


def _cautions(checks: Sequence[Check], width: int) -> list[str]:
    cautions = with_status(checks, "caution")
    return _listed(CAUTION, "!", [f"{check.title}: {check.sentence}" for check in cautions], width)


def _listed(title: str, mark: str, sentences: Sequence[str], width: int) -> list[str]:
    items = [
        textwrap.fill(printable(sentence), width, initial_indent=f"{mark} ", subsequent_indent="  ")
        for sentence in sentences
    ]
    return [title, *items] if title and items else items


def _cells(row: dict) -> tuple[str, ...]:
    return (
        printable(row["method"]),
        printable(row["group"]),
        signed(row.get("auc_del")),
        interval(row.get("ci_low"), row.get("ci_high")),
        interval(row.get("ci_fixed_low"), row.get("ci_fixed_high")),
        count(row.get("n_queries")),
        count(row.get("n_repeats")),
    )


def printable(label: object) -> str:
    """Replace control characters by `?`, so that user text cannot send escape sequences to the terminal."""
    return "".join(char if char.isprintable() else "?" for char in str(label))


def _line(row: tuple[str, ...], widths: Sequence[int], is_number: Sequence[bool]) -> str:
    aligned = [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, is_number, strict=True)]
    return "  ".join(aligned).rstrip()
