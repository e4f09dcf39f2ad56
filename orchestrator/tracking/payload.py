"""Converts a TrackRecord into the content of MLflow runs, without access to a tracking store."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.tracking.record import ChildRecord, TrackRecord
from tasks.digests import digest

RUN_TAG, METRICS_TAG, ARTIFACTS_TAG, PARAM_TAG = "refit.run", "refit.metrics", "refit.artifacts.", "refit.param."
CHECKS_TAG = "refit.checks_"
FAILED_TAG, CAUTION_TAG = f"{CHECKS_TAG}failed", f"{CHECKS_TAG}caution"
NOTE_TAG = "mlflow.note.content"  # shown as the description of a run
_MAX_KEY, _MAX_PARAM, _MAX_TAG = 250, 6000, 8000  # limits of the tracking store


@dataclass(frozen=True, order=True)
class Point:
    """One metric value: `timestamp` in ms since the epoch, `step` is k (0 for a value of the whole curve)."""

    key: str
    step: int
    value: float
    timestamp: int


@dataclass(frozen=True)
class RunPayload:
    """The content of one run. `identity`: the tags that identify it; `texts`: text artifacts (name -> content)."""

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
        """Return a digest of all metric values and time stamps; if the stored digest is equal, nothing need be logged."""
        return digest([[p.key, p.step, repr(p.value), p.timestamp] for p in self.points])


def payloads(record: TrackRecord) -> tuple[RunPayload, list[RunPayload]]:
    """Return the parent run of a campaign and its child runs, in the record's order.

    Raises ValueError if the run id is not hexadecimal, if a child has no label, if two children have the same labels, or
    if a label has the name of one of Refit's own tags.
    """
    if not re.fullmatch("[0-9a-f]+", record.run):
        raise ValueError(f"run id {record.run!r} is not hexadecimal")
    times = [child.committed_at for child in record.children] or [record.started_at or 0]
    start = record.started_at if record.started_at is not None else min(times)
    children = [_child(record, child, start) for child in record.children]
    seen: set[tuple[tuple[str, str], ...]] = set()
    for child in children:
        key = tuple(child.identity.items())
        if len(key) == 1:
            raise ValueError("a child run has no label, so it cannot be distinguished from its parent")
        if key in seen:
            raise ValueError(f"two runs are labelled {child.name!r}")
        seen.add(key)
    return _parent(record, start, max(times)), children


def _parent(record: TrackRecord, start: int, end: int) -> RunPayload:
    return RunPayload(
        record.campaign,
        {RUN_TAG: record.run},
        start,
        end,
        _params(record.params),
        _tags({**record.tags, **({NOTE_TAG: record.description} if record.description else {})}),
        files=tuple(record.artifacts),
    )


def _child(record: TrackRecord, child: ChildRecord, start: int) -> RunPayload:
    return RunPayload(
        " ".join(child.labels.values()),
        {RUN_TAG: record.run, **{_label_tag(label): tag_value(value) for label, value in child.labels.items()}},
        start,
        child.committed_at,
        _params({**record.params, **child.labels}),
        _tags(record.tags),
        tuple(sorted(_points(child))),
        texts=child.texts,
    )


def _label_tag(label: str) -> str:
    tag = f"refit.{safe_key(label)}"
    if tag in (RUN_TAG, METRICS_TAG) or tag.startswith((ARTIFACTS_TAG, PARAM_TAG, CHECKS_TAG)):
        raise ValueError(f"the label {label!r} has the name of one of Refit's own tags; choose another")
    return tag


def _points(child: ChildRecord) -> Iterable[Point]:
    for key, step, value in child.points:
        if isinstance(value, (int, float)) and math.isfinite(value):
            yield Point(safe_key(key), step, float(value), child.committed_at)


def safe_key(key: str) -> str:
    """Replace characters that a tracking store refuses in a name by `_`; letters, digits and `_-. /` are kept."""
    cleaned = re.sub(r"[^\w\-. /]", "_", key, flags=re.ASCII)
    # "." and ".." alone would read as paths.
    parts = [part if part.strip(".") else part.replace(".", "_") for part in cleaned.split("/")]
    return "/".join(part or "_" for part in parts)[:_MAX_KEY]


def tag_value(value: Any) -> str:
    """Return a value as the text of a tag, cut to the store's limit."""
    return _clipped(value, _MAX_TAG)


def _clipped(value: Any, most: int) -> str:
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _params(params: Mapping[str, Any]) -> dict[str, str]:
    return {safe_key(str(key)): _clipped(value, _MAX_PARAM) for key, value in params.items()}


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {safe_key(str(key)): tag_value(value) for key, value in tags.items()}
