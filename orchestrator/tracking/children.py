"""From the results tables to child runs: a curve each for a deletion campaign, a row of the headline table for others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.tracking.record import ChildRecord

_NOT_METRICS = {"method", "baseline", "group", "k", "family"}
_Points = Iterable[tuple[str, int, Any]]


def deletion_children(
    curves: pd.DataFrame,
    summary: pd.DataFrame,
    contrasts: pd.DataFrame,
    committed_at: Mapping[tuple[str, str], int],
) -> list[ChildRecord]:
    """A child per method and group in the order of `summary`: the curve by k, `auc_del_*` and `vs <baseline>/*`.

    `committed_at`: (method, group) -> epoch ms of the last ledger row behind its curve. Raises ValueError when a method
    and group has none.
    """
    pairs = list(dict.fromkeys(zip(summary["method"].astype(str), summary["group"].astype(str), strict=True)))
    missing = [pair for pair in pairs if pair not in committed_at]
    if missing:
        raise ValueError(f"no commit time for {missing[0]}")
    found = []
    for method, group in pairs:
        curve, auc, against = (_of(table, method, group) for table in (curves, summary, contrasts))
        found.append(
            ChildRecord(
                {"method": method, "group": group},
                committed_at[method, group],
                [*_curve_points(curve), *_summary_points(auc), *_contrast_points(against)],
                {"curves.csv": curve.to_csv(index=False, lineterminator="\n")},
            )
        )
    return found


def headline_children(table: pd.DataFrame, labels: Sequence[str], committed_at: int) -> list[ChildRecord]:
    """A child per row of `table`: labelled by the columns `labels`, with a metric per other column that holds numbers.

    `committed_at`: epoch ms of the last ledger row behind the campaign. A label that is missing in a row is left out.
    """
    named = [label for label in labels if label in table.columns]
    return [
        ChildRecord(
            {label: str(row[label]) for label in named if not pd.isna(row[label])},
            committed_at,
            [(str(column), 0, value) for column, value in row.items() if column not in named],
        )
        for row in table.to_dict("records")
    ]


def _of(table: pd.DataFrame, method: str, group: str) -> pd.DataFrame:
    if table.empty:
        return table
    return table.loc[(table["method"].astype(str) == method) & (table["group"].astype(str) == group)]


def _metrics(row: Mapping[Any, Any]) -> Iterable[tuple[str, Any]]:
    return ((str(column), value) for column, value in row.items() if column not in _NOT_METRICS)


def _curve_points(curve: pd.DataFrame) -> _Points:
    for row in curve.to_dict("records"):
        yield from ((column, int(row["k"]), value) for column, value in _metrics(row))


def _summary_points(summary: pd.DataFrame) -> _Points:
    for row in summary.to_dict("records"):
        for column, value in _metrics(row):
            yield column if column == "auc_del" else f"auc_del_{column}", 0, value


def _contrast_points(contrasts: pd.DataFrame) -> _Points:
    for row in contrasts.to_dict("records"):
        yield from ((f"vs {row['baseline']}/{column}", 0, value) for column, value in _metrics(row))
