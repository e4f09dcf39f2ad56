"""Which texts stand in another set of texts, word for word or nearly: copies of queries among the training examples."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHINGLE = 3  # words of one shingle
THRESHOLD = 0.8  # Jaccard similarity of the shingle sets from which on two texts are near duplicates
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Copy:
    """Text `row` of the searched set is a copy of `query` (both positions).

    `similarity`: the Jaccard similarity of their shingle sets, in [0, 1]; 1.0 for texts with the same words in the same order.
    """

    query: int
    row: int
    similarity: float


def near_duplicates(queries: Sequence[str], texts: Sequence[str], threshold: float = THRESHOLD) -> list[Copy]:
    """Every text that is a copy of a query, ordered by query and row.

    J(a, b) = |S(a) & S(b)| / |S(a) | S(b)| >= threshold, where S holds all runs of three consecutive words in lower case
    without punctuation (Broder 1997, section 2); a text of fewer words is one shingle. A text without a single word is
    compared as it stands, without blanks at its ends. An index over the shingles of the queries is built once, so that the
    cost grows with the length of `texts` and not with the number of pairs.
    """
    of_queries = [_shingles(query) for query in queries]
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, shingles in enumerate(of_queries):
        for shingle in shingles:
            index[shingle].append(position)
    known, found = index.keys(), []
    for row, text in enumerate(texts):
        shingles = _shingles(text)
        shared: Counter[int] = Counter()
        for shingle in shingles & known:
            shared.update(index[shingle])
        for query, n_shared in shared.items():
            similarity = n_shared / (len(shingles) + len(of_queries[query]) - n_shared)
            if similarity >= threshold:
                found.append(Copy(query, row, similarity))
    return sorted(found, key=lambda copy: (copy.query, copy.row))


def equal_rows(queries: np.ndarray, features: np.ndarray) -> list[Copy]:
    """Every row of `features` [n, ...] that holds exactly the numbers of a row of `queries` [n_queries, ...]."""
    index: dict[bytes, list[int]] = defaultdict(list)
    for position, query in enumerate(np.ascontiguousarray(queries)):
        index[query.tobytes()].append(position)
    rows = enumerate(np.ascontiguousarray(features, queries.dtype))
    found = [Copy(query, row, 1.0) for row, one in rows for query in index.get(one.tobytes(), ())]
    return sorted(found, key=lambda copy: (copy.query, copy.row))


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    if not words:
        return {("", text.strip())}
    if len(words) < SHINGLE:
        return {tuple(words)}
    return set(zip(words, words[1:], words[2:], strict=False))
