"""Cosine of loss gradients over chosen layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from influence.methods.tracin import TracIn

if TYPE_CHECKING:
    from influence.gradients import CheckpointGradients, GradientShard


class GradientCosine(TracIn):
    """Cosine of the gradients of two losses, averaged over checkpoints.

    score(q, i) = mean_c cos(dl_i/dW, dl_q/dW), where W are all parameters of the chosen layers as one vector; in [-1,
    1], and 0 if a gradient is zero. Unlike a dot product, it does not let the examples with the largest gradients
    decide every query. `layers` as in tracin, by default every trained parameter including biases; `checkpoints: last`
    (of each scoring model) or all; learning rates do not enter. Positive = helpful. Han and Tsvetkov 2021, section 2,
    with one checkpoint; after Barshan et al. 2020.
    """

    name: ClassVar[str] = "gradient_cosine"

    bias: bool = True
    checkpoints: Literal["all", "last"] = "last"
    learning_rate_weights: Literal[False] = False

    def score(self, queries: GradientShard, train: GradientShard, prepared: None) -> np.ndarray:
        """Return scores float32 [n_queries, n_train]: the weighted mean of the checkpoints' cosines."""
        total = sum(checkpoint.weight for checkpoint in train.checkpoints)
        mean = train.weighted([(i, c.weight / total) for i, c in enumerate(train.checkpoints)])
        return super().score(queries, mean, prepared)

    def term(self, queries: CheckpointGradients, train: CheckpointGradients, context: list[str]) -> np.ndarray:
        """Return the cosines at one checkpoint."""
        from influence.products import cosines

        ours, theirs = (
            np.sum([side.layers[name].squared_norm(self.bias) for name in context], axis=0) for side in (queries, train)
        )
        return cosines(super().term(queries, train, context), ours, theirs)
