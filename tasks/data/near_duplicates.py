"""Finds copies of queries among the training examples: texts that are equal or nearly equal."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.base import Text

SHINGLE = 3  # words per shingle
THRESHOLD = 0.8  # Jaccard similarity of the shingle sets at which two texts count as near duplicates
Shingles = frozenset[tuple[str, ...]]
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Copy:
    """Text `row` of the searched set is a copy of `query` (both are positions).

    `similarity` is the Jaccard similarity of their shingle sets, in [0, 1]; 1.0 for texts with the same words in the
    same order.
    """

    query: int
    row: int
    similarity: float


def near_duplicates(queries: Sequence[Text], texts: Sequence[Text], threshold: float = THRESHOLD) -> list[Copy]:
    """Return every text that is a copy of a query, ordered by query and row.

    J(a, b) = |S(a) & S(b)| / |S(a) | S(b)| >= threshold, where S holds all runs of three consecutive words in lower
    case without punctuation (Broder 1997, section 2); a text of fewer words is one shingle. A text without any word is
    compared character by character, ignoring surrounding blanks; a text of white space only is a copy of nothing. Texts
    with equal shingles are compared once. The shingles of the queries are indexed once, so that the cost grows with the
    number of distinct texts, with their lengths, and with the number of copies.

    A pair of texts (both arguments hold pairs then) is a copy if each of its two segments is one; the smaller of the
    two similarities counts. Pairs that share one long segment are therefore not copies.
    """
    if not queries or not texts:
        return []
    by_segment = [
        _near_duplicates(asked, searched, threshold)
        for asked, searched in zip(_by_segment(queries), _by_segment(texts), strict=True)
    ]
    shared = set.intersection(*(set(found) for found in by_segment))
    return [Copy(query, row, min(found[query, row] for found in by_segment)) for query, row in sorted(shared)]


def _by_segment(texts: Sequence[Text]) -> list[list[str]]:
    """Return the texts as one list, or the first and the second segments of pairs as two."""
    parts = [(text,) if isinstance(text, str) else text for text in texts]
    return [list(segment) for segment in zip(*parts, strict=True)]


def _near_duplicates(queries: Sequence[str], texts: Sequence[str], threshold: float) -> dict[tuple[int, int], float]:
    """Map (query, row) of every copy among single texts to its similarity."""
    of_queries, of_texts = _grouped(queries), _grouped(texts)
    return {
        (query, row): similarity
        for asked, shingles, similarity in _pairs(of_queries, of_texts, threshold)
        for query in of_queries[asked]
        for row in of_texts[shingles]
    }


def _grouped(texts: Sequence[str]) -> dict[Shingles, list[int]]:
    """Map each shingle set to the positions of the texts that have exactly it; texts of white space only are left out."""
    groups: dict[Shingles, list[int]] = defaultdict(list)
    for position, text in enumerate(texts):
        if text.strip():
            groups[_shingles(text)].append(position)
    return groups


def _pairs(
    queries: Iterable[Shingles], texts: Iterable[Shingles], threshold: float
) -> Iterator[tuple[Shingles, Shingles, float]]:
    """Yield (query, text, similarity) of every pair of distinct shingle sets whose similarity is at least `threshold`."""
    asked = sorted(queries, key=len)
    sizes = [len(query) for query in asked]
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, query in enumerate(asked):
        for shingle in query:
            index[shingle].append(position)
    for text in texts:
        # J is at most min(|a|, |b|) / max(|a|, |b|), so queries of other sizes cannot reach the threshold
        low = bisect_left(sizes, True, key=lambda n: n / len(text) >= threshold)
        high = bisect_left(sizes, True, key=lambda n: n > len(text) and len(text) / n < threshold)
        if low >= high:
            continue
        shared: Counter[int] = Counter()
        for shingle in text & index.keys():
            listed = index[shingle]
            shared.update(listed[bisect_left(listed, low) : bisect_left(listed, high)])
        for position, n_shared in shared.items():
            similarity = n_shared / (len(text) + sizes[position] - n_shared)
            if similarity >= threshold:
                yield asked[position], text, similarity


def equal_rows(queries: np.ndarray, features: np.ndarray) -> list[Copy]:
    """Return every row of `features` [n, ...] that is equal to a row of `queries` [n_queries, ...]."""
    index: dict[bytes, list[int]] = defaultdict(list)
    for position, query in enumerate(np.ascontiguousarray(queries)):
        index[query.tobytes()].append(position)
    rows = enumerate(np.ascontiguousarray(features, queries.dtype))
    found = [Copy(query, row, 1.0) for row, one in rows for query in index.get(one.tobytes(), ())]
    return sorted(found, key=lambda copy: (copy.query, copy.row))


def _shingles(text: str) -> Shingles:
    words = _WORD.findall(text.lower())
    if not words:
        return frozenset([("", text.strip())])
    if len(words) < SHINGLE:
        return frozenset([tuple(words)])
    return frozenset(zip(words, words[1:], words[2:], strict=False))
