"""The measurements, each a monotone function of the query loss -log p, oriented so that more is better."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tasks.errors import InputError
from tasks.measurement import Measurement

if TYPE_CHECKING:
    from torch import Tensor


def log_softmax(outputs: np.ndarray) -> np.ndarray:
    """Return log-probabilities of logits [n, n_classes]: float64, computed relative to the largest logit. NaN stays NaN."""
    logits = np.asarray(outputs, np.float64)
    with np.errstate(invalid="ignore"):  # a diverged model has infinite logits
        shifted = logits - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


class _LogProbability(Measurement):
    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the query loss -log p(label), [n], from logits [n, n_classes] and labels int64 [n]."""
        import torch

        return torch.nn.functional.cross_entropy(outputs, labels, reduction="none")

    def _log_p(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return log_softmax(outputs)[np.arange(len(labels)), np.asarray(labels, np.int64)]


class GoldProbability(_LogProbability):
    """Probability of the gold label: p = exp(-loss), in [0, 1]. Yeh et al. 2022, section 2.2."""

    name: ClassVar[str] = "gold_probability"
    title: ClassVar[str] = "the probability of the gold label"

    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return p(label), float64 [n], from logits [n, n_classes] and labels int [n]."""
        return np.exp(self._log_p(outputs, labels))


class PredictedProbability(GoldProbability):
    """Probability of the label that the scoring model predicts: exp(-loss), in [0, 1]. Han et al. 2020, section 5."""

    name: ClassVar[str] = "predicted_probability"
    title: ClassVar[str] = "the probability of the predicted label"
    label: ClassVar[str] = "predicted"


class ReferenceProbability(GoldProbability):
    """Probability of the label that the reference of the same seed predicts, in [0, 1]. Han et al. 2020, section 3.4, released code.

    Methods explain the label that the scoring model predicts, since the references are trained after the scores are computed.
    """

    name: ClassVar[str] = "reference_probability"
    title: ClassVar[str] = "the probability of the label that the reference predicts"
    label: ClassVar[str] = "reference"


class Loss(_LogProbability):
    """Minus the cross-entropy loss of the gold label: log p = -loss, in nats."""

    name: ClassVar[str] = "loss"
    title: ClassVar[str] = "the log-probability of the gold label"

    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return log p(label), float64 [n], from logits [n, n_classes] and labels int [n]."""
        return self._log_p(outputs, labels)


class Margin(_LogProbability):
    """Log-odds of the gold label: log(p / (1 - p)) = logit_y - logsumexp of the other logits, in nats."""

    name: ClassVar[str] = "margin"
    title: ClassVar[str] = "the log-odds of the gold label"

    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the log-odds of the label, float64 [n], from logits [n, n_classes] and labels int [n]."""
        logits = np.asarray(outputs, np.float64)
        rows, gold = np.arange(len(labels)), np.asarray(labels, np.int64)
        others = logits.copy()
        others[rows, gold] = -np.inf
        peak = others.max(axis=1)
        with np.errstate(invalid="ignore"):
            return logits[rows, gold] - peak - np.log(np.exp(others - peak[:, None]).sum(axis=1))


class Correct(Measurement):
    """1 if the gold label has the largest logit, else 0 (ties go to the smaller class). Yeh et al. 2022, appendix K.

    Its mean over queries and repeats is the share of correct answers. It is a step function, so no method can differentiate it. As
    for every measurement of the gold label, influence methods explain the query loss -log p(label).
    """

    name: ClassVar[str] = "correct"
    title: ClassVar[str] = "the share of correct answers"

    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return 1 or 0, float64 [n], from logits [n, n_classes] and labels int [n]; NaN for a row with a logit of NaN."""
        outputs = np.asarray(outputs, np.float64)
        right = (outputs.argmax(axis=1) == np.asarray(labels)).astype(np.float64)
        return np.where(np.isnan(outputs).any(axis=1), np.nan, right)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Raise InputError: the measurement has no gradient."""
        problem = "'correct' is 0 or 1 and has no gradient; allowed as a loss: gold_probability, loss or margin"
        raise InputError("measurement", problem)


class Output(Measurement):
    """The recorded output itself, where more is better.

    It is meant for splits that record one number per row, such as properties of word vectors.
    """

    name: ClassVar[str] = "output"
    title: ClassVar[str] = "the output"
    of_classes: ClassVar[bool] = False

    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the outputs [n, 1] as float64 [n]; `labels` are ignored."""
        return np.asarray(outputs, np.float64)[:, 0]

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return minus the output: [n] from [n, 1]."""
        return -outputs[:, 0]
