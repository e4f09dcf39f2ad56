"""The base class of methods that sum over checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from influence.base import Method
from influence.checkpoint import Checkpoint

if TYPE_CHECKING:
    from influence.gradients import CheckpointGradients, GradientShard


class CheckpointSum(Method):
    """score = sum over checkpoints c of weight_c term_c(query, train).

    weight_c = learning rate at c / number of scoring models (Pruthi et al. 2020, section 3.2), or 1 / number of scoring
    models without `learning_rate_weights`. `checkpoints: last` uses the last checkpoint of each scoring model, with
    weight 1 / number of scoring models.
    """

    checkpoints: Literal["all", "last"] = "all"
    learning_rate_weights: bool = True

    def takes_last_checkpoint(self) -> bool:
        """Return whether `checkpoints` is last."""
        return super().takes_last_checkpoint() or self.checkpoints == "last"

    def weighs_by_learning_rate(self) -> bool:
        """Return whether `learning_rate_weights` is set."""
        return self.learning_rate_weights

    def term(self, queries: CheckpointGradients, train: CheckpointGradients, context: Any) -> np.ndarray:
        """Return the term of one checkpoint: float64 [n_queries, n_train]."""
        raise NotImplementedError

    def context(self, train: GradientShard, prepared: Any) -> Any:
        """Return what `term` needs besides gradients."""
        return prepared

    def score(self, queries: GradientShard, train: GradientShard, prepared: Any) -> np.ndarray:
        """Return scores float32 [n_queries, n_train], summed in float64."""
        scores, context = np.zeros((len(queries), len(train))), self.context(train, prepared)
        for ours, theirs in zip(queries.checkpoints, train.checkpoints, strict=True):
            scores += theirs.weight * self.term(ours, theirs, context)
        return scores.astype(np.float32)


def checkpoint_terms(method: Method, checkpoints: Sequence[Checkpoint]) -> list[tuple[int, float]]:
    """Return the checkpoints over which a method sums, and their weights: (position, weight).

    Methods that do not use checkpoints get the last one of each scoring model. Raises ValueError if all weights are
    zero.
    """
    models = {checkpoint.spec_id for checkpoint in checkpoints}
    last = {spec_id: max(c.step for c in checkpoints if c.spec_id == spec_id) for spec_id in models}
    if not method.needs:
        return []
    if method.takes_last_checkpoint():
        return [(i, 1 / len(models)) for i, c in enumerate(checkpoints) if c.step == last[c.spec_id]]
    by_rate = method.weighs_by_learning_rate()
    terms = [(i, c.weight if by_rate else 1 / len(models)) for i, c in enumerate(checkpoints)]
    if terms and not any(weight for _, weight in terms):
        raise ValueError(
            f"{method.name}: the learning rate is zero at every checkpoint; set learning_rate_weights: false"
        )
    return terms
