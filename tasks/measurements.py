"""The scalar f(query; theta) of a campaign: more is better. Each is a stated function of the query loss -log p."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tasks.measurement import Measurement

if TYPE_CHECKING:
    from torch import Tensor


def log_softmax(outputs: np.ndarray) -> np.ndarray:
    """Log-probabilities of logits [n, n_classes]: float64, the largest logit taken out first. NaN stays NaN."""
    logits = np.asarray(outputs, np.float64)
    with np.errstate(invalid="ignore"):  # infinite logits of a diverged model
        shifted = logits - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


class _LogProbability(Measurement):
    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The query loss -log p(label): [n] from logits [n, n_classes] and labels int64 [n]."""
        import torch

        return torch.nn.functional.cross_entropy(outputs, labels, reduction="none")

    def _log_p(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return log_softmax(outputs)[np.arange(len(labels)), np.asarray(labels, np.int64)]


class GoldProbability(_LogProbability):
    """Probability of the gold label: p = exp(-loss), in [0, 1]. Yeh et al. 2022, section 2.2."""

    name: ClassVar[str] = "gold_probability"

    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Logits [n, n_classes] and labels int [n] -> float64 [n]."""
        return np.exp(self._log_p(outputs, labels))


class PredictedProbability(GoldProbability):
    """Probability of the label that the scoring model predicts: exp(-loss), in [0, 1]. Han et al. 2020, section 5."""

    name: ClassVar[str] = "predicted_probability"
    label: ClassVar[str] = "predicted"


class Loss(_LogProbability):
    """Minus the cross-entropy loss of the gold label: log p = -loss, in nats."""

    name: ClassVar[str] = "loss"

    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Logits [n, n_classes] and labels int [n] -> float64 [n]."""
        return self._log_p(outputs, labels)


class Margin(_LogProbability):
    """Log-odds of the gold label: log(p / (1 - p)) = logit_y - logsumexp of the other logits, in nats."""

    name: ClassVar[str] = "margin"

    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Logits [n, n_classes] and labels int [n] -> float64 [n]."""
        logits = np.asarray(outputs, np.float64)
        rows, gold = np.arange(len(labels)), np.asarray(labels, np.int64)
        others = logits.copy()
        others[rows, gold] = -np.inf
        peak = others.max(axis=1)
        with np.errstate(invalid="ignore"):
            return logits[rows, gold] - peak - np.log(np.exp(others - peak[:, None]).sum(axis=1))


class Output(Measurement):
    """The recorded output itself, for splits that record one number a row (a property of word vectors): more of it is better."""

    name: ClassVar[str] = "output"
    of_classes: ClassVar[bool] = False

    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Outputs [n, 1] -> float64 [n]; `labels` say nothing here."""
        return np.asarray(outputs, np.float64)[:, 0]

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Minus the output: [n] from [n, 1]."""
        return -outputs[:, 0]
