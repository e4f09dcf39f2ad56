"""Encodes ledger rows as the parquet bytes of one part, and decodes them; a part's name contains its SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from sys import intern
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from orchestrator.records import LedgerRow, Outcome
from orchestrator.storage.parquet import DamagedError, from_bytes, schema_of, to_bytes
from tasks.data.edits import Edit

_COLUMNS = (
    ("spec_id", pa.string()),
    ("spec", pa.string()),  # canonical JSON
    ("edit", pa.string()),  # canonical JSON {ids, mode, weights}: a row suffices to repeat the retrain
    ("status", pa.string()),
    ("attempts", pa.int32()),
    ("error", pa.string()),
    ("outputs", pa.map_(pa.string(), pa.list_(pa.float32()))),  # arrays in C order
    ("shapes", pa.map_(pa.string(), pa.list_(pa.int32()))),  # shape of each output
    ("metrics", pa.map_(pa.string(), pa.float64())),
    ("seconds", pa.float64()),
    ("worker", pa.string()),
    ("device", pa.string()),
    ("committed_at", pa.timestamp("us", "UTC")),
    ("code_version", pa.string()),
)
SCHEMA = pa.schema([pa.field(name, kind, nullable=name == "error") for name, kind in _COLUMNS])
_TASK_ID = b"task_id"  # missing in parts written by versions before 0.2
_COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_MAPS = ("outputs", "shapes", "metrics")
_REPETITIVE = ("status", "worker", "device", "code_version", *(f"{name}.key_value.key" for name in _MAPS))


class IndexEntry(NamedTuple):
    """A ledger row without its outputs, spec and edit."""

    spec_id: str
    status: str
    attempts: int
    seconds: float
    error: str | None
    committed_at: str


def part_name(data: bytes) -> str:
    """Return the name of a part, which contains the SHA-256 of its bytes."""
    return f"part-{hashlib.sha256(data).hexdigest()}.parquet"


def encode_rows(rows: Sequence[LedgerRow], *, task_id: str = "", quick: bool = False) -> bytes:
    """Encode `rows` as parquet bytes, sorted by (spec_id, committed_at): the order of `rows` does not change the bytes.

    `task_id`: the task id of the ledger, which is stored in the metadata. `quick`: compress faster and less.
    Raises ValueError if a `committed_at` has no time zone.
    """
    ordered, instants = _in_order(rows)
    outcomes = [row.outcome for row in ordered]
    outputs = [{name: _float32(value) for name, value in sorted(o.outputs.items())} for o in outcomes]
    shapes = [{name: np.asarray(value.shape, np.int32) for name, value in by_name.items()} for by_name in outputs]
    metrics = [{name: float(value) for name, value in sorted(o.metrics.items())} for o in outcomes]
    columns: dict[str, Any] = {
        "spec_id": [o.spec_id for o in outcomes],
        "spec": [row.spec for row in ordered],
        "edit": [_edit_json(row.edit) for row in ordered],
        "status": [o.status for o in outcomes],
        "attempts": [row.attempts for row in ordered],
        "error": [None if o.error is None else _clean(o.error) for o in outcomes],
        "outputs": _map_of_lists(outputs, pa.float32()),
        "shapes": _map_of_lists(shapes, pa.int32()),
        "metrics": [list(by_name.items()) for by_name in metrics],
        "seconds": [float(o.seconds) for o in outcomes],
        "worker": [_clean(o.worker) for o in outcomes],
        "device": [_clean(o.device) for o in outcomes],
        "committed_at": instants,
        "code_version": [_clean(row.code_version) for row in ordered],
    }
    schema = SCHEMA.with_metadata({_TASK_ID: task_id}) if task_id else SCHEMA
    return to_bytes(pa.Table.from_pydict(columns, schema=schema), _REPETITIVE, quick=quick)


def distinct_rows(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    """Return `rows` without duplicates; rows are duplicates if they are equal in every column."""
    n_of = Counter(row.spec_id for row in rows)
    return list({(row.spec_id, row_key(row) if n_of[row.spec_id] > 1 else ()): row for row in rows}.values())


def decode_rows(data: bytes, spec_ids: Collection[str] | None = None) -> list[LedgerRow]:
    """Decode the rows of a part, or those of `spec_ids`; outputs are read-only float32 views. Raises DamagedError."""
    table = from_bytes(data, SCHEMA)
    if spec_ids is not None:
        wanted = frozenset(spec_ids)
        table = table.filter(pa.array([spec_id in wanted for spec_id in table["spec_id"].to_pylist()], pa.bool_()))
    try:
        return [row for batch in table.to_batches() for row in _rows_of(batch)]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"a row cannot be read: {error}") from error


def check_ledger(data: bytes, task_id: str) -> None:
    """Check that a part belongs to the ledger `task_id`, as far as it names its ledger. Raises DamagedError."""
    stored = (schema_of(data).metadata or {}).get(_TASK_ID)
    if stored is not None and stored.decode() != task_id:
        raise DamagedError(f"it is a part of the ledger {stored.decode()}")


def check_rows(data: bytes) -> None:
    """Check that every page of a part can be read. Raises DamagedError."""
    from_bytes(data, SCHEMA)


def decode_index(data: bytes) -> list[IndexEntry]:
    """Decode the rows of a part without outputs, spec and edit. Raises DamagedError."""
    table = from_bytes(data, SCHEMA, IndexEntry._fields)
    columns = {name: table[name].to_pylist() for name in IndexEntry._fields if name != "committed_at"}
    columns["status"] = list(map(intern, columns["status"]))  # one string object per status, not one per row
    rows = zip(*columns.values(), _texts(table["committed_at"]), strict=True)  # committed_at is the last field
    return list(map(IndexEntry._make, rows))


def outcome_bits(row: LedgerRow) -> str:
    """Return a digest of the status and of the bytes of every output."""
    hasher = hashlib.sha256(row.outcome.status.encode())
    for name, value in sorted(row.outcome.outputs.items()):
        array = _float32(value)
        hasher.update(json.dumps([name, array.shape]).encode())
        hasher.update(array.tobytes())
    return hasher.hexdigest()


def row_key(row: LedgerRow) -> tuple[str, str]:
    """Return a key that covers every column of a row, to compare and sort rows by."""
    return repr(replace(row, outcome=replace(row.outcome, outputs={}))), outcome_bits(row)


def _in_order(rows: Sequence[LedgerRow]) -> tuple[list[LedgerRow], list[datetime]]:
    """Sort `rows` by (spec_id, committed_at) and return them with their times; the rare ties are sorted by `row_key`."""
    places = [(row.spec_id, _instant(row.committed_at)) for row in rows]
    n_at = Counter(places)
    keys = [(*at, row_key(row) if n_at[at] > 1 else ()) for at, row in zip(places, rows, strict=True)]
    order = sorted(range(len(rows)), key=keys.__getitem__)
    return [rows[i] for i in order], [places[i][1] for i in order]


def _rows_of(batch: pa.RecordBatch) -> list[LedgerRow]:
    plain = {f.name: batch.column(f.name).to_pylist() for f in SCHEMA if f.name not in ("outputs", "committed_at")}
    outputs, committed = batch.column("outputs"), _texts(batch.column("committed_at"))
    starts, names = outputs.offsets.to_numpy(), outputs.keys.to_pylist()
    cuts, values = outputs.items.offsets.to_numpy(), outputs.items.values.to_numpy(zero_copy_only=True)
    rows = []
    for i in range(batch.num_rows):
        shapes = dict(plain["shapes"][i])
        entries = range(starts[i], starts[i + 1])
        arrays = {names[e]: values[cuts[e] : cuts[e + 1]].reshape(shapes[names[e]]) for e in entries}
        rows.append(_row({name: column[i] for name, column in plain.items()}, arrays, committed[i]))
    return rows


def _row(plain: Mapping[str, Any], outputs: dict[str, np.ndarray], committed_at: str) -> LedgerRow:
    same = {name: plain[name] for name in ("spec_id", "status", "error", "seconds", "worker", "device")}
    outcome = Outcome(outputs=outputs, metrics=dict(plain["metrics"]), **same)
    edit = _edit(plain["edit"])
    return LedgerRow(outcome, plain["spec"], edit, plain["attempts"], committed_at, plain["code_version"])


def _map_of_lists(rows: Sequence[Mapping[str, np.ndarray]], item: pa.DataType) -> pa.Array:
    names = list(chain.from_iterable(rows))
    arrays = [array.reshape(-1) for row in rows for array in row.values()]
    flat = np.concatenate(arrays) if arrays else np.zeros(0)
    values = pa.ListArray.from_arrays(_offsets([len(a) for a in arrays]), pa.array(flat, item))
    return pa.MapArray.from_arrays(_offsets([len(row) for row in rows]), pa.array(names, pa.string()), values)


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)).cast(pa.int32())


def _float32(value: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(value, np.float32, order="C")


def _clean(text: str) -> str:
    return text.encode(
        "utf-8", "backslashreplace"
    ).decode()  # UTF-8 cannot encode lone surrogates (undecodable file names)


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"committed_at {text!r} has no time zone; expected ISO 8601 in UTC")
    return moment.astimezone(UTC)


def index_of(rows: Sequence[LedgerRow]) -> list[IndexEntry]:
    """Return what `decode_index` would return for a part with these rows, without reading the part."""
    entries = [
        IndexEntry(
            row.spec_id,
            intern(row.outcome.status),
            row.attempts,
            float(row.outcome.seconds),
            None if row.outcome.error is None else _clean(row.outcome.error),
            _instant(row.committed_at).isoformat(timespec="microseconds"),
        )
        for row in rows
    ]
    return sorted(entries, key=lambda entry: (entry.spec_id, entry.committed_at))


def _texts(column: pa.Array | pa.ChunkedArray) -> list[str]:
    moments = column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
    return [text + "+00:00" for text in np.datetime_as_string(moments, unit="us").tolist()]


def _edit_json(edit: Edit) -> str:
    stored: dict[str, Any] = {"ids": edit.ids, "mode": edit.mode, "weights": edit.weights}  # ints and floats only
    if edit.replaced:
        stored |= {"replaced": edit.replaced, "replace_by": edit.replace_by}
    return _COMPACT.encode(stored)


def _edit(text: str) -> Edit:
    stored = json.loads(text)
    replaced = tuple((i, tuple(positions)) for i, positions in stored.get("replaced", ()))
    return Edit(tuple(stored["ids"]), tuple(stored["weights"]), stored["mode"], replaced, stored.get("replace_by"))
