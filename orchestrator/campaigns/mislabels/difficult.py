"""Difficult examples: training examples that repeatedly trained models still classify wrongly at the end of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import log_softmax

from orchestrator.records import Outcome

TRAIN = "train"


@dataclass(frozen=True, eq=False)
class RepeatedOutputs:
    """The outputs of repeatedly trained models on the train set.

    `logits` float32 [n_models, n_train, n_classes], of the models whose training ended well; `labels` int64 [n_train]: the given labels.
    """

    logits: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], labels: np.ndarray) -> RepeatedOutputs:
        """Collect the outcomes that are ok; failed ones are left out. All train rows must have been recorded, in their order."""
        found = [outcome.outputs[TRAIN] for outcome in outcomes if outcome.status == "ok"]
        return cls(np.stack(found) if found else np.zeros((0, len(labels), 1), np.float32), labels)

    @property
    def n_models(self) -> int:
        """The number of models."""
        return len(self.logits)

    @cached_property
    def wrong_frac(self) -> np.ndarray:
        """The share of models that classify each example wrongly: float64 [n_train]."""
        return (self.logits.argmax(axis=2) != self.labels).mean(axis=0)

    @cached_property
    def losses(self) -> np.ndarray:
        """The final loss -log p(given label) of every example, in nats: float64 [n_models, n_train]."""
        log_p = log_softmax(self.logits.astype(np.float64), axis=2)
        return -log_p[:, np.arange(len(self.labels)), self.labels]

    @cached_property
    def predicted(self) -> np.ndarray:
        """The class that most models predict; of several, the one with the lower index: int64 [n_train]."""
        votes = self.logits.argmax(axis=2)
        counts = [(votes == c).sum(axis=0) for c in range(self.logits.shape[2])]
        return np.argmax(counts, axis=0)

    def difficult(self, threshold: float) -> np.ndarray:
        """Return the rows that a share of at least `threshold` of the models classifies wrongly, ascending: int64."""
        return np.flatnonzero(self.wrong_frac >= threshold - 1e-9)
