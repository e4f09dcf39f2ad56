"""Vectors of the tokens of many texts: computed once, stored in shards, and mapped into the memory of every process."""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tasks.data.cache import write_atomically

SHARD_TEXTS, SHARD_VECTORS = 256, 16384
MOST_SHARDS = 100  # a mapped file stays open, and a process may often open 1,024
_CHECKSUM_BYTES = hashlib.sha256().digest_size
Compute = Callable[[int], np.ndarray]


class VectorShards:
    """Vectors of n texts: text i has an array [lengths[i], width] of one dtype, which `compute(i)` returns.

    A shard holds consecutive texts, at most 256 of them and at most 16,384 vectors (at least one text), or a hundredth of
    all if that is more. A shard that is needed for the first time is read from `<folder>/<number of its first text>.npy`
    if that file is intact, else computed and written; with `folder` None it stays in memory. The file is a .npy file
    [n_vectors, width] followed by the SHA-256 of `key`, its name and its content. A damaged, foreign or truncated file is
    replaced.
    """

    def __init__(self, key: str, lengths: np.ndarray, dtype: str, compute: Compute, folder: Path | None):
        self._key, self._dtype, self._compute, self._folder = key, np.dtype(dtype), compute, folder
        self._offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._starts = _starts(lengths)
        self._ends = [*self._starts[1:], len(lengths)]
        self._shards: dict[int, np.ndarray] = {}

    def load(self, rows: np.ndarray) -> None:
        """Read or compute all shards that hold `rows`.

        Processes that start together begin with different shards, so that they share the work.
        """
        shards = sorted({self._shard_of(row) for row in rows.tolist()})
        first = os.getpid() % max(len(shards), 1)
        for shard in [*shards[first:], *shards[:first]]:
            self._shard(shard)

    def __getitem__(self, row: int) -> np.ndarray:
        """Return the vectors of one text [lengths[row], width], which must not be changed."""
        shard = self._shard_of(row)
        before = self._offsets[self._starts[shard]]
        return self._shard(shard)[self._offsets[row] - before : self._offsets[row + 1] - before]

    def _shard_of(self, row: int) -> int:
        return bisect.bisect_right(self._starts, row) - 1

    def _shard(self, shard: int) -> np.ndarray:
        if shard not in self._shards:
            self._shards[shard] = self._read_or_compute(shard)
        return self._shards[shard]

    def _read_or_compute(self, shard: int) -> np.ndarray:
        begin, end = self._starts[shard], self._ends[shard]
        n_vectors = int(self._offsets[end] - self._offsets[begin])
        if (found := self._read(begin, n_vectors)) is not None:
            return found
        values = np.concatenate([self._compute(row) for row in range(begin, end)]).astype(self._dtype)
        if self._folder is None:
            return values
        with contextlib.suppress(OSError):  # a full or read-only disk costs memory but does not stop the run
            self._write(begin, values)
            found = self._read(begin, n_vectors)
        return values if found is None else found

    def _path(self, begin: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{begin}.npy"

    def _read(self, begin: int, n_vectors: int) -> np.ndarray | None:
        """Return a read-only memory map of an intact file, else None."""
        if self._folder is None:
            return None
        try:
            content = np.memmap(self._path(begin), np.uint8, "r")
            body, checksum = content.data[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:].tobytes()
            if self._checksum(begin, body) != checksum:
                return None
            values = np.load(self._path(begin), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):  # ValueError: an empty file cannot be mapped
            return None
        return values if values.dtype == self._dtype and len(values) == n_vectors else None

    def _write(self, begin: int, values: np.ndarray) -> None:
        stream = io.BytesIO()
        np.save(stream, values, allow_pickle=False)
        body = stream.getbuffer()
        write_atomically(self._path(begin), body, self._checksum(begin, body))

    def _checksum(self, begin: int, body: memoryview) -> bytes:
        hasher = hashlib.sha256(f"{self._key}/{begin}/".encode())
        hasher.update(body)
        return hasher.digest()


def padded(texts: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Return the vectors of some texts as one array [n, length, width], filled with zeros. `texts` must not be empty."""
    found = np.zeros((len(texts), length, texts[0].shape[1]), texts[0].dtype)
    for row, vectors in enumerate(texts):
        found[row, : len(vectors)] = vectors
    return found


def _starts(lengths: np.ndarray) -> list[int]:
    """Return the first text of every shard."""
    most_texts = max(SHARD_TEXTS, -(-len(lengths) // MOST_SHARDS))
    most_vectors = max(SHARD_VECTORS, -(-int(lengths.sum()) // MOST_SHARDS))
    starts: list[int] = []
    n_texts, n_vectors = 0, 0
    for row, length in enumerate(lengths.tolist()):
        if not starts or n_texts == most_texts or n_vectors + length > most_vectors:
            starts.append(row)
            n_texts, n_vectors = 0, 0
        n_texts, n_vectors = n_texts + 1, n_vectors + length
    return starts
