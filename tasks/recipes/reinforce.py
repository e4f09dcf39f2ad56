"""Undo the effect of some sentences on word vectors, and reinforce that of others (Silva et al. 2022, section 4.4)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tasks.recipe import Trained, Training
from tasks.recipes.pair_options import PairOptions
from tasks.recipes.schedules import updates_by
from tasks.recipes.skip_gram import SkipGramRun
from tasks.seeds import generator, purpose_seed
from tasks.training import EditedTrainSet, Watch, deterministic, is_finite, n_batches, start_from


class Reinforce(PairOptions):
    """Fine-tune a parent's vectors on the selected sentences; each of `passes` passes takes negative weights first, then positive.

    A sentence of weight -1 amplifies the bias (set A): the update is a step away from it. A sentence of weight 1
    mitigates it (set M): the update is a step towards it. Each set is used in random order, `batch_sentences` sentences
    per update, with fresh windows and negatives in every pass, a fresh optimiser and a constant learning rate. The
    published code instead continues with the optimiser state and learning rate with which the parent ended. The pair
    options are those of the parent's recipe, which `of` copies.
    """

    name: ClassVar[str] = "reinforce"
    version: ClassVar[int] = 1
    needs_parent: ClassVar[bool] = True

    passes: int = Field(1, ge=1, le=100_000)
    batch_sentences: int = Field(1, ge=1)
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)

    @staticmethod
    def of(parent: PairOptions, **options: Any) -> Reinforce:
        """Return the recipe with these options and the parent recipe's pair options."""
        return Reinforce(**{**parent.pair_options(), **options})

    def last_epoch(self) -> float:
        """Return `passes`."""
        return float(self.passes)

    def checkpoint_step(self, n_train: int, epoch: float) -> int:
        """Return the number of updates made by the end of pass `epoch` (1-based) on a selection of `n_train`, at least 1.

        Raises ValueError outside 0 < epoch <= passes.
        """
        return updates_by(epoch, self.passes, n_batches(n_train, self.batch_sentences))

    def learning_rate_at(self, n_train: int, step: int) -> float:
        """Return the learning rate of update `step` (1-based), which is constant. Raises ValueError past the last update."""
        n_steps = self.passes * n_batches(n_train, self.batch_sentences)
        if not 1 <= step <= n_steps:
            raise ValueError(f"step {step} is outside 1..{n_steps}")
        return self.learning_rate

    def train(self, task: Any, training: Training) -> Trained:
        """Return the parent's vectors after the updates, or unchanged for the empty edit. Same arguments, same bits.

        `metrics`: n_steps (updates made); train_loss (sum(w l) / max(sum w, 1) over the pairs of the last pass,
        including negative weights). Raises ValueError without a parent, for an edit that is no selection, off the CPU,
        or if a step of `keep_steps` is never reached.
        """
        edit, seed, numerics = training.edit, training.seed, training.numerics
        if training.parent is None:
            raise ValueError("reinforce changes a parent's vectors: it needs a parent")
        if not edit.is_empty and edit.mode != "select":
            raise ValueError(
                f"reinforce needs an edit of mode select (a selection of sentences), not of mode {edit.mode}"
            )
        deterministic(numerics)
        train_set = EditedTrainSet.of(task, edit)
        weights = np.zeros_like(train_set.weights) if edit.is_empty else train_set.weights
        n_shown = int(np.count_nonzero(weights))
        run = SkipGramRun(
            self, self.optimizer, task, weights, numerics, start_from(task.network(seed), training.parent)
        )
        watch = Watch.of(training, self.passes * n_batches(n_shown, self.batch_sentences))
        watch.passed(0, run.network)
        for number in range(1, self.passes + 1 if n_shown else 1):
            batches = _batches(weights, seed, number, self.batch_sentences)
            key = purpose_seed(seed, "reinforce pairs", number)
            run.updates(batches, [self.learning_rate] * len(batches), key, watch, with_loss=number == self.passes)
            if not is_finite(run.network):
                break
        return run.trained(watch)


def _batches(weights: np.ndarray, seed: int, number: int, size: int) -> list[np.ndarray]:
    """Return the batches of one pass: rows of negative weight, then rows of positive, each in an order keyed (seed, pass)."""
    order = generator(seed, "reinforce order", number).permutation(len(weights))
    rows = np.concatenate([order[weights[order] < 0], order[weights[order] > 0]])
    return [rows[start : start + size] for start in range(0, len(rows), size)]
