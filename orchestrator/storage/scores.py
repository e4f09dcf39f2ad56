"""Score shards: a lost or damaged one is computed again, a finished one never."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.storage.blobs import BlobStore
from orchestrator.storage.parquet import DamagedError, from_bytes, to_bytes
from tasks.digests import canonical_json

Range = tuple[int, int]
_NAME = re.compile(r"shard-(\d+)-(\d+)-([0-9a-f]{64})\.parquet")
_SCHEMA = pa.schema([("train_id", pa.int64()), ("scores", pa.list_(pa.float32()))])  # one row per training example
_QUERY_IDS = b"query_ids"


@dataclass(frozen=True)
class ScoreShard:
    """Scores of train rows [start, stop): `scores` float32 [n_queries, stop - start], positive = helps; ids int64."""

    start: int
    stop: int
    query_ids: np.ndarray
    train_ids: np.ndarray
    scores: np.ndarray


class ScoreStore:
    """Score shards under `scores/<score id>/`; a shard's name carries its range and the SHA-256 of its bytes."""

    def __init__(self, blobs: BlobStore):
        self._blobs = blobs

    def put_block(
        self, score_id: str, start: int, stop: int, query_ids: np.ndarray, train_ids: np.ndarray, scores: np.ndarray
    ) -> str:
        """Write the scores [n_queries, stop - start] of train rows [start, stop); the shard's name.

        Raises ValueError on other shapes.
        """
        if scores.shape != (len(query_ids), stop - start) or len(train_ids) != stop - start:
            raise ValueError(f"scores {scores.shape} do not fit {len(query_ids)} queries and rows [{start}, {stop})")
        data = _encode(query_ids, train_ids, scores)
        name = f"shard-{start:09d}-{stop:09d}-{hashlib.sha256(data).hexdigest()}.parquet"
        self._blobs.put(f"scores/{score_id}/{name}", data)
        return name

    def ranges(self, score_id: str) -> list[Range]:
        """The ranges that are present and verified, sorted; a damaged shard is moved to `corrupt/` and is missing."""
        return [(shard.start, shard.stop) for shard in self.load(score_id)]

    def load(self, score_id: str, ranges: Collection[Range] | None = None) -> list[ScoreShard]:
        """The verified shards, all or those of exactly these `ranges`, sorted; each range once."""
        found: dict[Range, ScoreShard] = {}
        for key in self._blobs.list(f"scores/{score_id}/shard-"):
            span = _span(key)
            if span is None or (span not in found and (ranges is None or span in ranges)):
                shard = self._verified(key)
                if shard is not None:
                    found[shard.start, shard.stop] = shard
        return [found[span] for span in sorted(found)]

    def put_diagnostics(self, score_id: str, diagnostics: Mapping[str, Any]) -> None:
        """Keep what a method says of its own work (plain JSON values) beside its shards."""
        self._blobs.put(f"scores/{score_id}/diagnostics.json", (canonical_json(dict(diagnostics)) + "\n").encode())

    def diagnostics(self, score_id: str) -> dict[str, Any]:
        """What `put_diagnostics` wrote; empty if nothing, or nothing readable, is there."""
        try:
            found = json.loads(self._blobs.get(f"scores/{score_id}/diagnostics.json"))
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _verified(self, key: str) -> ScoreShard | None:
        try:
            data = self._blobs.get(key)
        except FileNotFoundError:
            return None  # another driver set it aside
        try:
            return _decode(key, data)
        except DamagedError:
            folder, _, name = key.rpartition("/")
            self._blobs.put(f"{folder}/corrupt/{name}", data)
            self._blobs.delete(key)
            return None


def _span(key: str) -> Range | None:
    match = _NAME.fullmatch(key.rpartition("/")[2])
    return (int(match[1]), int(match[2])) if match else None


def _encode(query_ids: np.ndarray, train_ids: np.ndarray, scores: np.ndarray) -> bytes:
    n_queries, n_rows = scores.shape
    by_row = pa.array(np.ascontiguousarray(scores.T, np.float32).reshape(-1))
    cuts = pa.array(np.arange(n_rows + 1, dtype=np.int64) * n_queries).cast(pa.int32())
    columns = [pa.array(np.asarray(train_ids, np.int64)), pa.ListArray.from_arrays(cuts, by_row)]
    metadata = {_QUERY_IDS: canonical_json([int(i) for i in query_ids])}
    return to_bytes(pa.Table.from_arrays(columns, schema=_SCHEMA.with_metadata(metadata)))


def _decode(key: str, data: bytes) -> ScoreShard:
    match = _NAME.fullmatch(key.rpartition("/")[2])
    if match is None or hashlib.sha256(data).hexdigest() != match[3]:
        raise DamagedError(f"{key}: its {len(data)} bytes do not have the SHA-256 in its name")
    table = from_bytes(data, _SCHEMA).combine_chunks()
    start, stop = int(match[1]), int(match[2])
    query_ids = np.asarray(json.loads((table.schema.metadata or {}).get(_QUERY_IDS, b"[]")), np.int64)
    values = _flat(table["scores"])
    if table.num_rows != stop - start or len(values) != len(query_ids) * (stop - start):
        raise DamagedError(f"{key}: holds {table.num_rows} rows of {len(values)} scores for {len(query_ids)} queries")
    scores = np.ascontiguousarray(values.reshape(stop - start, len(query_ids)).T)
    return ScoreShard(start, stop, query_ids, table["train_id"].to_numpy(), scores)


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    chunks: Sequence[np.ndarray] = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
