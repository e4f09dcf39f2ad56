"""Closed-form derivatives of the skip-gram loss in the input vectors of some words, all else held fixed.

A pair has one centre word, so a word's input vector interacts only with the output vectors of its own targets, and the
second derivative of the loss in the vectors of several words has one block per word. Both derivatives depend only on a
(word, target), however many pairs contain it: they are computed once per word and target, and looked up per pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.models.skip_gram import PairLoss
from tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.data.corpus import Corpus

SENTENCES_AT_ONCE = 2000  # limits the pairs that are in memory at once, before those of other words are dropped


@dataclass(frozen=True, eq=False)
class TouchedTargets:
    """Targets of the pairs whose centre is one of `words`, over all sentences: five arrays [n_targets].

    `centres`: position in `words`; `targets`: word numbers; `positive`: true for a context word, false for a negative;
    `factors`: of the target's term in its sentence's loss; `sentences`: train rows, ascending.
    """

    words: np.ndarray
    centres: np.ndarray
    targets: np.ndarray
    positive: np.ndarray
    factors: np.ndarray
    sentences: np.ndarray

    def hessians(self, inner: np.ndarray, outer: np.ndarray, loss: PairLoss) -> np.ndarray:
        """Return the sum over sentences of the second derivative in each word's vector: float64 [n_words, d, d].

        `inner` [n_words, d] are the words' vectors, `outer` [V, d] the output vectors. H_w = sum_t f_t l''(u_w . v_t)
        v_t v_t^T.
        """
        outer, blocks = np.asarray(outer, np.float64), []
        scores = np.asarray(inner, np.float64) @ outer.T
        weights = np.zeros(scores.shape)
        for sign in (True, False):
            chosen = self.positive == sign
            count = np.zeros(scores.shape)
            np.add.at(count, (self.centres[chosen], self.targets[chosen]), self.factors[chosen])
            weights += count * second_derivatives(scores, sign, loss)
        for weight in weights:
            met = np.flatnonzero(weight)
            blocks.append(outer[met].T @ (weight[met, None] * outer[met]))
        return np.stack(blocks)

    def derivatives(
        self, inner: np.ndarray, outer: np.ndarray, loss: PairLoss, vectors: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Return <gradient of a sentence's loss, vector> for train rows `rows` along `vectors` [q, n_words, d]: float64 [q, len(rows)]."""
        inner, outer = np.asarray(inner, np.float64), np.asarray(outer, np.float64)
        mine = np.isin(self.sentences, rows)
        centres, targets = self.centres[mine], self.targets[mine]
        place = np.searchsorted(rows, self.sentences[mine], sorter=(order := np.argsort(rows, kind="stable")))
        factors = self.factors[mine] * self._slopes(inner, outer, loss)[mine]
        found = np.zeros((len(vectors), len(rows)))
        for q, vector in enumerate(np.asarray(vectors, np.float64)):
            along = (vector @ outer.T)[centres, targets]
            found[q] = np.bincount(order[place], factors * along, minlength=len(rows))
        return found

    def _slopes(self, inner: np.ndarray, outer: np.ndarray, loss: PairLoss) -> np.ndarray:
        """Return l'(u . v) of every target: float64 [n_targets]."""
        scores = (inner @ outer.T)[self.centres, self.targets]
        return loss.terms(scores, self.positive, with_terms=False)[1]


def second_derivatives(scores: np.ndarray, positive: bool, loss: PairLoss) -> np.ndarray:
    """Return l''(x) of a target's term, elementwise.

    It is s(x) s(-x), and -sign s(x) s(-x) (1 - 2 s(x)) for the loss without a logarithm.
    """
    s = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
    product = s * (1 - s)
    if loss.name != "paper":
        return product
    return (-product if positive else product) * (1 - 2 * s)


class ClosedForms(Task):
    """Adds the closed forms `row_hessians` and `row_derivatives` of the input vectors to a task of word vectors."""

    corpus: Corpus
    model: Any
    recipe: Any
    _cached: tuple[Any, TouchedTargets] | None = None

    def rows_touching(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return the sentences that contain one of these words."""
        raise NotImplementedError

    def _pair_arrays(self, rows: np.ndarray, used: np.ndarray) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def row_hessians(self, network: nn.Module, name: str, rows: np.ndarray) -> Tensor:
        """Return the second derivative of the train objective in each of these input vectors, all else fixed: float64 [n_rows, dim, dim]."""
        import torch

        inner, outer = (weight.detach().cpu().numpy() for weight in weights_of(network))
        touched = self._touched(rows)
        found = touched.hessians(inner[rows], outer, PairLoss(self.recipe.loss)) / len(self.corpus.ids)
        return torch.from_numpy(found + self.model.l2 * np.eye(found.shape[-1]))

    def row_derivatives(
        self, network: nn.Module, name: str, rows: np.ndarray, vectors: Tensor, train_rows: np.ndarray
    ) -> Tensor:
        """Return <gradient of a sentence's loss in these input vectors, vector> along `vectors` [q, n_rows, dim]: float64 [q, n_train_rows]."""
        import torch

        inner, outer = (weight.detach().cpu().numpy() for weight in weights_of(network))
        touched, along = self._touched(rows), vectors.detach().cpu().numpy()
        return torch.from_numpy(touched.derivatives(inner[rows], outer, PairLoss(self.recipe.loss), along, train_rows))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": None}  # workers compute their own

    def _touched(self, rows: np.ndarray) -> TouchedTargets:
        """Return the targets of these words; cached, because all shards of a score job need the same words."""
        key = (self.recipe.identity().__repr__(), rows.tobytes())
        if self._cached is None or self._cached[0] != key:
            self._cached = (key, self._collect(np.asarray(rows, np.int64)))
        return self._cached[1]

    def _collect(self, rows: np.ndarray) -> TouchedTargets:
        position = np.full(len(self.corpus.vocabulary), -1)
        position[rows] = np.arange(len(rows))
        sentences, parts = self.rows_touching("input.weight", rows), []
        for start in range(0, len(sentences), SENTENCES_AT_ONCE):
            some = sentences[start : start + SENTENCES_AT_ONCE]
            found = self._pair_arrays(some, np.arange(len(some)))
            kept = position[found["centres"]] >= 0
            names = ("centres", "targets", "positive", "factors", "owners")
            centres, targets, positive, factors, owners = (found[name][kept] for name in names)
            parts.append((position[centres], targets, positive, factors.astype(np.float64), some[owners]))
        none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0), np.zeros(0, np.int64))
        return TouchedTargets(rows, *(np.concatenate(arrays) for arrays in zip(none, *parts, strict=True)))


def weights_of(network: Any) -> tuple[Tensor, Tensor]:
    """Return input and output vectors, also if other tensors replace the parameters (torch.func.functional_call)."""
    return network["input"].weight, network["output"].weight
