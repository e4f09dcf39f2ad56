"""Stores score shards. A missing or damaged shard is computed again; a finished one is not."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.storage.blobs import BlobStore
from orchestrator.storage.parquet import DamagedError, from_bytes, to_bytes
from tasks.digests import canonical_json

log = logging.getLogger(__name__)

Range = tuple[int, int]
_NAME = re.compile(r"shard-(\d+)-(\d+)-([0-9a-f]{64})\.parquet")
_SCHEMA = pa.schema([("train_id", pa.int64()), ("scores", pa.list_(pa.float32()))])  # one row per training example
_QUERY_IDS = b"query_ids"
_SCORE_ID, _RANGE = b"score_id", b"range"  # missing in shards written by versions before 0.2


@dataclass(frozen=True)
class ScoreShard:
    """Scores of train rows [start, stop).

    `scores` is float32 [n_queries, stop - start]; a positive score means that the example helps the query. Ids are int64.
    """

    start: int
    stop: int
    query_ids: np.ndarray
    train_ids: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Asked:
    """The ids of all queries and of the whole train set that a shard must belong to; int64, in their order."""

    query_ids: np.ndarray
    train_ids: np.ndarray


class _UnlabelledError(DamagedError):
    """A shard that is undamaged but does not name its score id, since a version before 0.2 wrote it."""


class ScoreStore:
    """Score shards under `scores/<score id>/`; the name of a shard contains its range and the SHA-256 of its bytes.

    A shard's metadata also name its score id and range, so that a shard copied to another name is detected.
    """

    def __init__(self, blobs: BlobStore):
        self._blobs = blobs

    def put_block(
        self, score_id: str, start: int, stop: int, query_ids: np.ndarray, train_ids: np.ndarray, scores: np.ndarray
    ) -> str:
        """Write the scores [n_queries, stop - start] of train rows [start, stop); return the name of the shard.

        Raises ValueError if the shapes do not fit.
        """
        if scores.shape != (len(query_ids), stop - start) or len(train_ids) != stop - start:
            raise ValueError(f"scores {scores.shape} do not fit {len(query_ids)} queries and rows [{start}, {stop})")
        data = _encode(score_id, start, query_ids, train_ids, scores)
        name = f"shard-{start:09d}-{stop:09d}-{hashlib.sha256(data).hexdigest()}.parquet"
        self._blobs.put(f"scores/{score_id}/{name}", data)
        return name

    def ranges(self, score_id: str, asked: Asked | None = None) -> list[Range]:
        """Return the ranges of the verified shards, sorted.

        A shard that is damaged, or whose content does not match its name, is moved to `corrupt/`. A shard that does not
        name its score id stays where it is, but does not count.
        """
        return [(shard.start, shard.stop) for shard in self.load(score_id, asked=asked)]

    def load(
        self, score_id: str, ranges: Collection[Range] | None = None, asked: Asked | None = None
    ) -> list[ScoreShard]:
        """Return the verified shards, all or those of exactly these `ranges`, sorted; each range once.

        `asked`: a shard whose ids differ from these counts as damaged.
        """
        found: dict[Range, ScoreShard] = {}
        for key in self._blobs.list(f"scores/{score_id}/shard-"):
            span = _span(key)
            if span is None or (span not in found and (ranges is None or span in ranges)):
                shard = self._verified(score_id, key, asked)
                if shard is not None:
                    found[shard.start, shard.stop] = shard
        return [found[span] for span in sorted(found)]

    def put_diagnostics(self, score_id: str, diagnostics: Mapping[str, Any]) -> None:
        """Store the diagnostics of a method (plain JSON values) next to its shards."""
        stored = {"score_id": score_id, "diagnostics": dict(diagnostics)}
        self._blobs.put(_diagnostics_key(score_id), (canonical_json(stored) + "\n").encode())

    def diagnostics(self, score_id: str) -> dict[str, Any]:
        """Return what `put_diagnostics` wrote for these scores; empty if it is missing or unreadable."""
        try:
            found = json.loads(self._blobs.get(_diagnostics_key(score_id)))
        except (FileNotFoundError, ValueError):
            return {}
        is_ours = isinstance(found, dict) and found.get("score_id") == score_id
        return found["diagnostics"] if is_ours and isinstance(found.get("diagnostics"), dict) else {}

    def foreign_diagnostics(self, score_id: str) -> str | None:
        """Return the key of the stored diagnostics if they are damaged or belong to other scores, else None."""
        key = _diagnostics_key(score_id)
        if not self._blobs.exists(key):
            return None
        try:
            found = json.loads(self._blobs.get(key))
        except ValueError:
            return key
        return None if isinstance(found, dict) and found.get("score_id") == score_id else key

    def unlabelled(self, score_id: str) -> int:
        """Count the undamaged shards that a version before 0.2 wrote; they lack the score id and are computed again."""
        keys = [key for key in self._blobs.list(f"scores/{score_id}/shard-") if _span(key) is not None]
        return sum(self._is_unlabelled(score_id, key) for key in keys)

    def _is_unlabelled(self, score_id: str, key: str) -> bool:
        try:
            _decode(score_id, key, self._blobs.get(key), None)
        except (DamagedError, FileNotFoundError) as error:
            return isinstance(error, _UnlabelledError)
        return False

    def _verified(self, score_id: str, key: str, asked: Asked | None) -> ScoreShard | None:
        try:
            data = self._blobs.get(key)
        except FileNotFoundError:
            return None  # another driver moved it to corrupt/
        try:
            return _decode(score_id, key, data, asked)
        except _UnlabelledError:
            return None
        except DamagedError as error:
            log.warning("scores: %s; it is moved to corrupt/ and computed again", error)
            folder, _, name = key.rpartition("/")
            self._blobs.put(f"{folder}/corrupt/{name}", data)
            self._blobs.delete(key)
            return None


def _span(key: str) -> Range | None:
    match = _NAME.fullmatch(key.rpartition("/")[2])
    return (int(match[1]), int(match[2])) if match else None


def _diagnostics_key(score_id: str) -> str:
    return f"scores/{score_id}/diagnostics.json"


def _encode(score_id: str, start: int, query_ids: np.ndarray, train_ids: np.ndarray, scores: np.ndarray) -> bytes:
    n_queries, n_rows = scores.shape
    by_row = pa.array(np.ascontiguousarray(scores.T, np.float32).reshape(-1))
    cuts = pa.array(np.arange(n_rows + 1, dtype=np.int64) * n_queries).cast(pa.int32())
    columns = [pa.array(np.asarray(train_ids, np.int64)), pa.ListArray.from_arrays(cuts, by_row)]
    metadata = {
        _QUERY_IDS: canonical_json([int(i) for i in query_ids]),
        _SCORE_ID: score_id,
        _RANGE: canonical_json([start, start + n_rows]),
    }
    return to_bytes(pa.Table.from_arrays(columns, schema=_SCHEMA.with_metadata(metadata)))


def _decode(score_id: str, key: str, data: bytes, asked: Asked | None) -> ScoreShard:
    match = _NAME.fullmatch(key.rpartition("/")[2])
    if match is None or hashlib.sha256(data).hexdigest() != match[3]:
        raise DamagedError(f"{key}: its {len(data)} bytes do not have the SHA-256 in its name")
    table = from_bytes(data, _SCHEMA).combine_chunks()
    start, stop, metadata = int(match[1]), int(match[2]), table.schema.metadata or {}
    if _SCORE_ID not in metadata:
        raise _UnlabelledError(f"{key}: does not name its score id")
    if metadata[_SCORE_ID].decode() != score_id:
        raise DamagedError(f"{key}: holds scores of the score id {metadata[_SCORE_ID].decode()!r}")
    if json.loads(metadata.get(_RANGE, b"null")) != [start, stop]:
        raise DamagedError(f"{key}: holds the rows {metadata.get(_RANGE, b'').decode()}")
    query_ids = np.asarray(json.loads(metadata.get(_QUERY_IDS, b"[]")), np.int64)
    values = _flat(table["scores"])
    if table.num_rows != stop - start or len(values) != len(query_ids) * (stop - start):
        raise DamagedError(f"{key}: holds {table.num_rows} rows of {len(values)} scores for {len(query_ids)} queries")
    scores = np.ascontiguousarray(values.reshape(stop - start, len(query_ids)).T)
    train_ids = table["train_id"].to_numpy()
    if asked is not None and not (
        np.array_equal(query_ids, asked.query_ids) and np.array_equal(train_ids, asked.train_ids[start:stop])
    ):
        raise DamagedError(f"{key}: holds the scores of other queries or training examples than its range has")
    return ScoreShard(start, stop, query_ids, train_ids, scores)


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    chunks: Sequence[np.ndarray] = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
