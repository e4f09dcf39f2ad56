"""The tokens of many texts as flat arrays, and as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Tokens:
    """Tokens of n texts in one array: text i is ids[offsets[i]:offsets[i + 1]].

    `offsets` int64 [n + 1], `ids` int32 [total], `spans` int32 [total, 2]: (start, end) characters in the text, (0, 0)
    for special tokens. `types` int32 [total], or None if the tokeniser has none: the segment of each token, 0 or 1.
    `hidden` bool [total]: tokens that the padding mask leaves out; None means none.
    """

    offsets: np.ndarray
    ids: np.ndarray
    spans: np.ndarray
    types: np.ndarray | None = None
    hidden: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of tokens of each of `rows`: int64 [len(rows)]."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def padded(self, rows: np.ndarray, length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids int64 [len(rows), length], cut or filled with `pad_id`, and the bool mask of real positions."""
        at, mask = self._positions(rows, length)
        ids = np.where(mask, self.ids[at], pad_id).astype(np.int64)
        return ids, mask if self.hidden is None else mask & ~self.hidden[at]

    def padded_types(self, rows: np.ndarray, length: int) -> np.ndarray | None:
        """Return the types int64 [len(rows), length], cut or filled with 0; None if the tokens have no types."""
        if self.types is None:
            return None
        at, mask = self._positions(rows, length)
        return np.where(mask, self.types[at], 0).astype(np.int64)

    def _positions(self, rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where in `ids` each position of the rows lies, and the mask of those that exist: [len(rows), length]."""
        positions = np.arange(length)
        mask = positions < self.lengths(rows)[:, None]
        return np.minimum(self.offsets[rows][:, None] + positions, max(len(self.ids) - 1, 0)), mask

    def with_token_at(self, rows: np.ndarray, positions: Sequence[Sequence[int]], token: int, *, hide: bool) -> Tokens:
        """Return tokens in which each of `rows` has `token` at its `positions`; with `hide` the padding mask leaves them out.

        Raises ValueError for a position that its row does not have.
        """
        at = [
            int(self.offsets[row]) + position for row, found in zip(rows, positions, strict=True) for position in found
        ]
        lengths = np.repeat(self.lengths(rows), [len(found) for found in positions])
        if (np.concatenate([np.asarray(found, np.int64) for found in positions]) >= lengths).any():
            raise ValueError("a replaced position is behind the last token of its text")
        ids, hidden = self.ids.copy(), np.zeros(len(self.ids), bool)
        ids[at], hidden[at] = token, hide
        return replace(self, ids=ids, hidden=hidden if hide else None)

    def with_masked(self, rows: np.ndarray, positions: np.ndarray) -> Tokens:
        """Return the tokens of `rows`, which may repeat; the padding mask leaves out the one at positions[i] of text i.

        Raises ValueError for a position that its row does not have.
        """
        rows, positions = np.asarray(rows, np.int64), np.asarray(positions, np.int64)
        lengths = self.lengths(rows)
        if ((positions < 0) | (positions >= lengths)).any():
            raise ValueError("a masked position is outside its text")
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        hidden = np.zeros(len(at), bool) if self.hidden is None else self.hidden[at]
        hidden[offsets[:-1] + positions] = True
        types = None if self.types is None else self.types[at]
        return Tokens(offsets, self.ids[at], self.spans[at], types, hidden)

    def counts(self, vocabulary_size: int) -> csr_matrix:
        """Count how often each token id occurs in each text, without hidden tokens: CSR float64 [n, vocabulary_size]."""
        from scipy.sparse import csr_matrix

        counted = np.ones(len(self.ids)) if self.hidden is None else (~self.hidden).astype(np.float64)
        parts = (counted, self.ids, self.offsets)
        counts = csr_matrix(parts, shape=(len(self), vocabulary_size), copy=True)  # sum_duplicates sorts in place
        counts.sum_duplicates()
        counts.eliminate_zeros()  # those of hidden tokens
        return counts


def join_tokens(
    rows: Sequence[tuple[Sequence[int], Sequence[tuple[int, int]]]], types: Sequence[Sequence[int]] | None = None
) -> Tokens:
    """Build Tokens from one (ids, spans) pair per text, and from the types of its tokens if there are any."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(ids) for ids, _ in rows], out=offsets[1:])
    ids = np.fromiter((token for ids, _ in rows for token in ids), np.int32, offsets[-1])
    spans = np.asarray([span for _, spans in rows for span in spans], np.int32).reshape(-1, 2)
    flat = None if types is None else np.fromiter((kind for row in types for kind in row), np.int32, offsets[-1])
    return Tokens(offsets, ids, spans, flat)


def table_of_tokens(tokens: Tokens) -> pa.Table:
    """Return one row per text, with columns of lists `id`, `start`, `end`, and `type` if the tokens have types."""
    import pyarrow as pa

    offsets = pa.array(tokens.offsets, pa.int64())
    columns = {"id": tokens.ids, "start": tokens.spans[:, 0], "end": tokens.spans[:, 1]}
    if tokens.types is not None:
        columns["type"] = tokens.types
    return pa.table(
        {
            name: pa.LargeListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values), pa.int32()))
            for name, values in columns.items()
        }
    )


def tokens_of_table(table: pa.Table) -> Tokens:
    """Invert `table_of_tokens`."""
    id_, start, end = (table.column(name).combine_chunks() for name in ("id", "start", "end"))
    spans = np.stack([column.values.to_numpy() for column in (start, end)], axis=1)
    types = table.column("type").combine_chunks().values.to_numpy().copy() if "type" in table.column_names else None
    return Tokens(id_.offsets.to_numpy().copy(), id_.values.to_numpy().copy(), spans, types)
