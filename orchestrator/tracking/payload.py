"""A TrackRecord as runs: what each holds, before any tracking store is involved."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.tracking.record import TrackRecord
from tasks.digests import digest

RUN_TAG, METHOD_TAG, GROUP_TAG = "refit.run", "refit.method", "refit.group"
METRICS_TAG, ARTIFACTS_TAG = "refit.metrics", "refit.artifacts."
_LABELS = {"method", "baseline", "group", "k"}
_MAX_KEY, _MAX_PARAM, _MAX_TAG = 250, 6000, 8000  # limits of the tracking store


@dataclass(frozen=True, order=True)
class Point:
    """One metric value: `timestamp` in epoch ms, `step` is k (0 for a value of the whole curve)."""

    key: str
    step: int
    value: float
    timestamp: int


@dataclass(frozen=True)
class RunPayload:
    """All of one run. `identity`: the tags it is found again by; `texts`: artifacts made here (name -> content)."""

    name: str
    identity: Mapping[str, str]
    start_ms: int
    end_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[Point, ...] = ()
    files: tuple[tuple[Path, str], ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)

    def metrics_digest(self) -> str:
        """Digest of every metric value with its time stamp: equal digests, nothing to log."""
        return digest([[p.key, p.step, repr(p.value), p.timestamp] for p in self.points])


def payloads(record: TrackRecord) -> tuple[RunPayload, list[RunPayload]]:
    """The parent run of a campaign and its child runs, one per method and group in the order of the summary table.

    Raises ValueError when a method and group has no commit time, or when the run id is not hexadecimal.
    """
    if not re.fullmatch("[0-9a-f]+", record.run):
        raise ValueError(f"run id {record.run!r} is not hexadecimal")
    pairs = list(
        dict.fromkeys(zip(record.summary["method"].astype(str), record.summary["group"].astype(str), strict=True))
    )
    missing = [pair for pair in pairs if pair not in record.committed_at]
    if missing:
        raise ValueError(f"no commit time for {missing[0]}")
    times = list(record.committed_at.values()) or [0]
    start = record.started_at if record.started_at is not None else min(times)
    return _parent(record, start, max(times)), [_child(record, method, group, start) for method, group in pairs]


def _parent(record: TrackRecord, start: int, end: int) -> RunPayload:
    return RunPayload(
        record.campaign,
        {RUN_TAG: record.run},
        start,
        end,
        _params(record.params),
        _tags(record.tags),
        files=tuple(record.artifacts),
    )


def _child(record: TrackRecord, method: str, group: str, start: int) -> RunPayload:
    curve, summary, contrasts = (
        _of(table, method, group) for table in (record.curves, record.summary, record.contrasts)
    )
    stamp = record.committed_at[method, group]
    points = [*_curve_points(curve, stamp), *_summary_points(summary, stamp), *_contrast_points(contrasts, stamp)]
    return RunPayload(
        f"{method} {group}",
        {RUN_TAG: record.run, METHOD_TAG: tag_value(method), GROUP_TAG: tag_value(group)},
        start,
        stamp,
        _params({**record.params, "method": method, "group": group}),
        _tags(record.tags),
        tuple(sorted(points)),
        texts={"curves.csv": curve.to_csv(index=False, lineterminator="\n")},
    )


def _of(table: pd.DataFrame, method: str, group: str) -> pd.DataFrame:
    if table.empty:
        return table
    return table.loc[(table["method"].astype(str) == method) & (table["group"].astype(str) == group)]


def _curve_points(curve: pd.DataFrame, stamp: int) -> Iterable[Point]:
    for row in curve.to_dict("records"):
        yield from _points(row, lambda column: column, int(row["k"]), stamp)


def _summary_points(summary: pd.DataFrame, stamp: int) -> Iterable[Point]:
    for row in summary.to_dict("records"):
        yield from _points(row, lambda column: column if column == "auc_del" else f"auc_del_{column}", 0, stamp)


def _contrast_points(contrasts: pd.DataFrame, stamp: int) -> Iterable[Point]:
    for row in contrasts.to_dict("records"):
        prefix = f"vs {row['baseline']}"
        yield from _points(row, lambda column, prefix=prefix: f"{prefix}/{column}", 0, stamp)


def _points(row: Mapping[Any, Any], name: Any, step: int, stamp: int) -> Iterable[Point]:
    for column, value in row.items():
        if column not in _LABELS and isinstance(value, (int, float)) and math.isfinite(value):
            yield Point(safe_key(name(str(column))), step, float(value), stamp)


def safe_key(key: str) -> str:
    """`key` with what a tracking store refuses in a name replaced by `_`: letters, digits and `_-. /` stay."""
    cleaned = re.sub(r"[^\w\-. /]", "_", key, flags=re.ASCII)
    # "." and ".." alone would read as paths.
    parts = [part if part.strip(".") else part.replace(".", "_") for part in cleaned.split("/")]
    return "/".join(part or "_" for part in parts)[:_MAX_KEY]


def tag_value(value: Any) -> str:
    """A tag's text, within the store's limit."""
    return _clipped(value, _MAX_TAG)


def _clipped(value: Any, most: int) -> str:
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _params(params: Mapping[str, Any]) -> dict[str, str]:
    return {safe_key(str(key)): _clipped(value, _MAX_PARAM) for key, value in params.items()}


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {safe_key(str(key)): tag_value(value) for key, value in tags.items()}
