"""TracIn on the word embeddings, with words matched to similar words."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from influence.methods.tracin_we_topk import TracInWETopK

if TYPE_CHECKING:
    from torch import Tensor

    from influence.gradients import CheckpointGradients, GradientShard
    from influence.products import TokenGradients


class TracInWESyn(TracInWETopK):
    """tracin_we_topk in which a word may also be matched to a word with a similar embedding.

    score(q, i) = sum_c weight_c sum over matched words (w of q, v of i) of <dl_q/dE_w, dl_i/dE_v>. Two words can be
    matched if they are identical, or if the cosine of their word embeddings at checkpoint c is at least `similarity`;
    each word is matched at most once, by the assignment that maximises the sum of the absolute products. Identical words
    have no precedence. Words are the distinct tokens among the `k` positions with the largest gradient norm, gradients
    summed over those positions. Yeh et al. 2022, appendix H, equation 8, with similarity = 0.7 and k = 10.
    """

    name: ClassVar[str] = "tracin_we_syn"
    is_inner_product: ClassVar[bool] = False  # the assignment depends on both texts

    similarity: float = Field(0.7, gt=0, le=1)

    def term(self, queries: CheckpointGradients, train: CheckpointGradients, context: tuple[int, ...]) -> np.ndarray:
        """Return the sum over matched words of the inner products of their gradients."""
        from influence.synonyms import matched_dot

        return matched_dot(*self._matched(queries, train, context))

    def word_terms(
        self,
        queries: CheckpointGradients,
        train: CheckpointGradients,
        query_row: int,
        train_row: int,
        context: tuple[int, ...],
    ) -> dict[int, float]:
        """Return token of the training example -> product with its match in the query, at one checkpoint."""
        from influence.synonyms import matched_words

        found = matched_words(*self._matched(queries, train, context), query_row, train_row)
        return {token: product for _, token, product in found}

    def word_pairs(
        self, queries: GradientShard, train: GradientShard, query_row: int, train_row: int, prepared: tuple[int, ...]
    ) -> list[tuple[int, int, float]]:
        """Return (token of the query, token of the training example, contribution) of the matched words, largest magnitude first.

        A pair of words counts at every checkpoint at which it is matched. The contributions sum to the score.
        """
        from influence.synonyms import matched_words

        total: dict[tuple[int, int], float] = {}
        for ours, theirs in zip(queries.checkpoints, train.checkpoints, strict=True):
            for one, other, product in matched_words(*self._matched(ours, theirs, prepared), query_row, train_row):
                total[one, other] = total.get((one, other), 0.0) + theirs.weight * product
        found = [(one, other, value) for (one, other), value in total.items()]
        return sorted(found, key=lambda pair: (-abs(pair[2]), pair[0], pair[1]))

    def by_word(
        self, queries: CheckpointGradients, train: CheckpointGradients, context: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return (query row, train row, token of the training example, product with its match in the query), [E] each."""
        from influence.synonyms import matched_by_word

        return matched_by_word(*self._matched(queries, train, context))

    def _matched(
        self, queries: CheckpointGradients, train: CheckpointGradients, context: tuple[int, ...]
    ) -> tuple[TokenGradients, TokenGradients, Tensor, float]:
        assert train.embedding_weights is not None
        return self.used(queries, context), self.used(train, context), train.embedding_weights, self.similarity
