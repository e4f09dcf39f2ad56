"""Options of recipes for word vectors: which pairs of words a sentence gives, and their loss."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tasks.data.pairs import NegativesPer, NoiseTable, PairSampler, WindowShape
from tasks.models.skip_gram import LossName
from tasks.recipe import Recipe


class PairOptions(Recipe):
    """Which pairs of words a sentence gives, and their loss.

    `window`, `dynamic_window`, `window_shape`, `negatives`, `negatives_per`, `subsample`: see
    tasks.data.pairs.PairSampler; `noise_power`: see NoiseTable; `loss`: see tasks.models.skip_gram.PairLoss.
    `reduction`: a batch's loss is the sum of w l over its pairs (word2vec), or their mean, sum(w l) / max(sum w, 1)
    (Silva et al.'s code). `max_uses` applies to sgd with reduction sum: if n > max_uses pairs of a batch use a word's
    vector, it moves by max_uses / n of the step. All pairs of a batch are computed at the same weights, so that vectors
    of frequent words would diverge when hundreds of pairs push them at once. Gradients are closed forms of whole
    batches, so micro-batches are refused.
    """

    fits: ClassVar[str] = "word_vectors"
    whole_batches: ClassVar[bool] = True

    window: int = Field(5, ge=1, le=1000)
    dynamic_window: bool = True
    window_shape: WindowShape = "symmetric"
    negatives: int = Field(5, ge=1, le=1000)
    negatives_per: NegativesPer = "pair"
    noise_power: float = Field(0.75, ge=0, le=10)
    subsample: float = Field(1e-3, ge=0, lt=1)
    loss: LossName = "word2vec"
    reduction: Literal["sum", "mean"] = "sum"
    max_uses: float = Field(64.0, gt=0)

    def pair_options(self) -> dict[str, Any]:
        """Return the options of this class, which a fine-tune copies from its parent's recipe."""
        return {name: getattr(self, name) for name in PairOptions.model_fields}

    def sampler(self, counts: np.ndarray) -> PairSampler:
        """Return what draws the pairs of sentences; `counts` are those of every word in the full train set, whatever is removed."""
        return PairSampler(
            counts,
            NoiseTable(counts, self.noise_power),
            window=self.window,
            dynamic_window=self.dynamic_window,
            window_shape=self.window_shape,
            negatives=self.negatives,
            negatives_per=self.negatives_per,
            subsample=self.subsample,
        )
