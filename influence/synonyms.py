"""Products of word gradients over an optimal one-to-one matching of identical and similar words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from influence.products import TokenGradients


@dataclass(frozen=True, eq=False)
class _Words:
    """The distinct tokens of n examples, one example after the other; those of example i are at starts[i]:starts[i + 1].

    tokens int64 [E]; vectors [E, dim] are their gradients, summed over positions; directions float64 [E, dim] are their
    embeddings scaled to length one (zero for a zero embedding).
    """

    starts: np.ndarray
    tokens: Tensor
    vectors: Tensor
    directions: Tensor

    @staticmethod
    def of(gradients: TokenGradients, embeddings: Tensor) -> _Words:
        summed = gradients.summed
        order = torch.argsort(summed.rows, stable=True)
        tokens, ends = summed.tokens[order], np.arange(gradients.n + 1)
        starts = np.searchsorted(summed.rows[order].cpu().numpy(), ends)
        directions = functional.normalize(embeddings[tokens].double(), dim=1, eps=1e-300)
        return _Words(starts, tokens, summed.vectors[order], directions)

    def part(self, example: int) -> slice:
        """Return the places of the words of one example."""
        return slice(int(self.starts[example]), int(self.starts[example + 1]))


def matched_dot(queries: TokenGradients, train: TokenGradients, embeddings: Tensor, similarity: float) -> np.ndarray:
    """Return the sum of the matched products of every (query, train example): float64 [n_queries, n_train].

    Words w of the query and v of the example can be matched if they are the same token, or if the cosine of their rows
    of `embeddings` [vocabulary, dim] is at least `similarity`. Each word is matched at most once. The matching maximises
    the sum of |<g_w, g_v>|, g = gradient of the word summed over its positions; the result sums <g_w, g_v>. Yeh et al.
    2022, appendix H, equation 8.
    """
    scores = np.zeros((queries.n, train.n))
    for q, i, _, products in _matches(queries, train, embeddings, similarity):
        scores[q, i] = products.sum()
    return scores


def matched_by_word(
    queries: TokenGradients, train: TokenGradients, embeddings: Tensor, similarity: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return `matched_dot` before it is summed: (query row, train row, token of the train example, product), [E] each."""
    found = list(_matches(queries, train, embeddings, similarity))
    sizes = [len(tokens) for _, _, tokens, _ in found]
    rows, columns = (np.repeat(np.array([pair[at] for pair in found], np.int64), sizes) for at in (0, 1))
    tokens = np.concatenate([np.zeros(0, np.int64), *(tokens for _, _, tokens, _ in found)])
    return rows, columns, tokens, np.concatenate([np.zeros(0), *(products for *_, products in found)])


def _matches(
    queries: TokenGradients, train: TokenGradients, embeddings: Tensor, similarity: float
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Yield (query row, train row, matched tokens of the train example, products) of every pair with a product other than zero."""
    ours, theirs = _Words.of(queries, embeddings), _Words.of(train, embeddings)
    tokens = theirs.tokens.cpu().numpy()
    for q in range(queries.n):
        products = _products(ours, ours.part(q), theirs, slice(None), similarity)
        matching = np.logical_or.reduce(products != 0, axis=0, initial=False) if products.size else np.zeros(0, bool)
        for i in np.unique(np.searchsorted(theirs.starts, np.flatnonzero(matching), side="right") - 1):
            block = products[:, theirs.part(i)]
            at = _matching(block)
            yield q, int(i), tokens[theirs.part(i)][at[1]], block[at]


def matched_words(
    queries: TokenGradients, train: TokenGradients, embeddings: Tensor, similarity: float, row: int, train_row: int
) -> list[tuple[int, int, float]]:
    """Return (token of the query, token of the train example, product) of the matched words of one pair.

    The products sum to its entry of `matched_dot`; matches with product zero are left out.
    """
    ours, theirs = (
        _Words.of(side.kept(side.rows == one), embeddings) for side, one in ((queries, row), (train, train_row))
    )
    products = _products(ours, ours.part(row), theirs, theirs.part(train_row), similarity)
    at = _matching(products)
    tokens = ours.tokens.cpu().numpy()[at[0]].tolist(), theirs.tokens.cpu().numpy()[at[1]].tolist()
    return [found for found in zip(*tokens, products[at].tolist(), strict=True) if found[2]]


def _matching(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places (rows, columns) of the one-to-one assignment with the largest sum of absolute values."""
    rows, columns = linear_sum_assignment(np.abs(products), maximize=True)
    return rows, columns


def _products(ours: _Words, mine: slice, theirs: _Words, yours: slice, similarity: float) -> np.ndarray:
    """Return <g_w, g_v> where words w and v can be matched, else 0: float64 [words of ours, words of theirs]."""
    same = ours.tokens[mine, None] == theirs.tokens[None, yours]
    similar = ours.directions[mine] @ theirs.directions[yours].T >= similarity
    products = (ours.vectors[mine] @ theirs.vectors[yours].T).double()
    return (products * (same | similar)).cpu().numpy()
