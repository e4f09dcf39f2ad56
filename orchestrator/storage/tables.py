"""The parquet tables of a run directory: scores by query and training example, and the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from orchestrator.storage.blobs import write_file
from orchestrator.storage.parquet import DamagedError, from_bytes, to_bytes

_SCORES = pa.schema([("query_id", pa.int64()), ("train_id", pa.int64()), ("score", pa.float32())])
_NAME = pa.dictionary(pa.int32(), pa.string())
_PLAN = pa.schema(
    [
        ("method", _NAME),
        ("query_id", pa.int64()),
        ("group", _NAME),
        ("k", pa.int64()),
        ("repeat", pa.int32()),
        ("spec_id", pa.string()),
    ]
)


About = Mapping[str, str]  # metadata that identify a table: `run`, and for scores also `label` and `group`


def about_scores(run: str, label: str, group: str = "") -> dict[str, str]:
    """Return the metadata that identify scores/<label>.parquet of a run."""
    return {"run": run, "label": label, "group": group}


def write_scores_table(
    path: Path, query_ids: np.ndarray, train_ids: np.ndarray, scores: np.ndarray, about: About | None = None
) -> None:
    """Write scores [n_queries, n_train] as rows `query_id, train_id, score`, query by query, with `about` as metadata.

    Raises ValueError if the shapes do not fit.
    """
    if scores.shape != (len(query_ids), len(train_ids)):
        raise ValueError(f"scores {scores.shape} do not fit {len(query_ids)} queries and {len(train_ids)} train ids")
    columns = [
        pa.array(np.repeat(np.asarray(query_ids, np.int64), len(train_ids))),
        pa.array(np.tile(np.asarray(train_ids, np.int64), len(query_ids))),
        pa.array(np.ascontiguousarray(scores, np.float32).reshape(-1)),
    ]
    schema = _SCORES.with_metadata(dict(about or {}))
    write_file(path, to_bytes(pa.Table.from_arrays(columns, schema=schema), ("query_id", "train_id")))


def read_scores_table(path: Path, about: About | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read query ids [n_queries], train ids [n_train] and scores float32 [n_queries, n_train] of `write_scores_table`.

    Raises FileNotFoundError, and DamagedError that names the file if it lacks a score or its metadata contradict `about`.
    """
    table = _read(path, _SCORES, about)
    queries, trains, scores = (table[name].to_numpy() for name in _SCORES.names)
    n_train = int(np.argmax(queries != queries[0])) or len(queries) if len(queries) else 0
    train_ids = trains[:n_train]
    query_ids = queries[::n_train] if n_train else queries
    grid = np.repeat(query_ids, n_train), np.tile(train_ids, len(query_ids))
    is_once = len(np.unique(query_ids)) == len(query_ids) and len(np.unique(train_ids)) == n_train
    if not (is_once and np.array_equal(queries, grid[0]) and np.array_equal(trains, grid[1])):
        raise DamagedError(f"{path}: does not hold one score for every query and training example, query by query")
    return query_ids, train_ids, scores.reshape(len(query_ids), n_train)


def write_plan(path: Path, columns: Mapping[str, Sequence | np.ndarray], about: About | None = None) -> None:
    """Write the cells of a campaign, with `about` as metadata.

    The columns of a deletion campaign are `method, query_id, group, k, repeat, spec_id`. Other campaigns have other
    columns of text or integers, which must include `spec_id`. Raises ValueError if it is missing.
    """
    if "spec_id" not in columns:
        raise ValueError(f"a plan needs the column spec_id; given: {', '.join(sorted(columns))}")
    schema = _PLAN if set(columns) == set(_PLAN.names) else _schema_of(columns)
    arrays = [_column(columns[field.name], field.type) for field in schema]
    repetitive = [name for name in schema.names if name != "spec_id"]
    table = pa.Table.from_arrays(arrays, schema=schema.with_metadata(dict(about or {})))
    write_file(path, to_bytes(table, repetitive))


def read_plan(path: Path, about: About | None = None) -> dict[str, np.ndarray]:
    """Read the columns of plan.parquet; strings as object arrays, numbers as integers.

    Raises FileNotFoundError, and DamagedError if it cannot be read or its metadata contradict `about`.
    """
    table = _read(path, None, about)
    texts = {field.name for field in table.schema if not pa.types.is_integer(field.type)}
    if "spec_id" not in texts:
        raise DamagedError(f"{path}: has no column spec_id")
    texts_of = {name: np.asarray(table[name].to_pylist(), object) for name in texts}
    return {name: texts_of[name] if name in texts else table[name].to_numpy() for name in table.schema.names}


def _column(values: Sequence | np.ndarray, kind: pa.DataType) -> pa.Array:
    array = pa.array(values, pa.string() if pa.types.is_dictionary(kind) else kind)
    return array.dictionary_encode() if pa.types.is_dictionary(kind) else array


def _schema_of(columns: Mapping[str, Sequence | np.ndarray]) -> pa.Schema:
    kinds = {
        name: _NAME if any(isinstance(v, str) for v in values[:1]) else pa.int64() for name, values in columns.items()
    }
    return pa.schema([(name, pa.string() if name == "spec_id" else kind) for name, kind in kinds.items()])


def _read(path: Path, schema: pa.Schema | None, about: About | None) -> pa.Table:
    try:
        table = from_bytes(path.read_bytes(), schema)
    except DamagedError as error:
        raise DamagedError(f"{path}: {error}") from error
    metadata = table.schema.metadata or {}
    stored = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}
    for name, wanted in (about or {}).items():
        if stored.get(name, wanted) != wanted:  # tables written by versions before 0.2 have no such metadata
            raise DamagedError(f"{path}: belongs to {name} {stored[name]!r}, not {wanted!r}")
    return table
