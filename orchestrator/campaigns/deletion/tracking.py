"""The tracking record of a deletion campaign: its parameters, and a child run per curve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.plan import NOT_ASKED
from orchestrator.tracking.record import CampaignRecord, ChildRecord

_NOT_METRICS = {"method", "baseline", "group", "k", "family"}
_Points = Iterable[tuple[str, int, Any]]


def deletion_record(finished: FinishedRun) -> CampaignRecord:
    """Return the parameters that distinguish deletion campaigns, and a child run per method and group."""
    plan, tables = finished.plan, finished.results.tables
    params = {
        "measurement": finished.experiment.config.measurement.name,
        "n_queries": len(plan.query_ids),
        "k": list(plan.ks),
        "groups": list(plan.groups),
        "methods": list(plan.methods),
    }
    children = deletion_children(tables["curves"], tables["summary"], tables["contrasts"], _committed(finished))
    return CampaignRecord(params, children)


def _committed(finished: FinishedRun) -> dict[tuple[str, str], int]:
    """Return (method, group) -> time of the last ledger row of its curve, including references, in milliseconds since 1970."""
    plan, stamps = finished.plan, finished.committed_ms
    references = [stamps[plan.works[i].spec_id] for i in plan.reference]
    return {
        (method, group): max(
            [*references, *(stamps[plan.works[i].spec_id] for i in np.unique(plan.cell[m, g]) if i != NOT_ASKED)]
        )
        for m, method in enumerate(plan.methods)
        for g, group in enumerate(plan.groups)
    }


def deletion_children(
    curves: pd.DataFrame,
    summary: pd.DataFrame,
    contrasts: pd.DataFrame,
    committed_at: Mapping[tuple[str, str], int],
) -> list[ChildRecord]:
    """Return a child run per method and group in the order of `summary`, with metrics for the curve by k, `auc_del_*` and `vs <baseline>/*`.

    `committed_at`: (method, group) -> time of the last ledger row of its curve, in milliseconds since 1970. Raises ValueError
    if a method and group has none.
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
