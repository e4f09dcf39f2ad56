"""Word vectors by skip-gram with negative sampling: weighted sentences, sparse updates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from tasks.base import Numerics
from tasks.recipe import Trained, Training
from tasks.recipes.pair_options import PairOptions
from tasks.recipes.schedules import updates_by
from tasks.resuming import copy_into, module_tensors
from tasks.seeds import purpose_seed
from tasks.training import (
    EditedTrainSet,
    Watch,
    check_whole_batches,
    deterministic,
    is_finite,
    n_batches,
    start_from,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

GROUP = 128  # number of sentences whose pairs are drawn together if batches are smaller


class SkipGramTraining(PairOptions):
    """`epochs` passes over the sentences in random order, `batch_sentences` sentences per update.

    Optimizer sgd: the rate falls linearly from `learning_rate` to `min_learning_rate` (word2vec; with loss word2vec,
    reduction sum and few sentences per batch). Optimizer adam: row-wise, and the rate is multiplied by
    `decay_per_epoch` after every epoch (Silva et al. 2022: loss code, reduction mean, 1,000 sentences, 0.01, 0.9).
    Removed sentences have no pairs. A draw depends on the seed, the epoch, the sentence's id and the place in it, never
    on other sentences.
    """

    name: ClassVar[str] = "skip_gram"
    version: ClassVar[int] = 1
    resumable: ClassVar[bool] = True

    epochs: int = Field(5, ge=1, le=100_000)
    batch_sentences: int = Field(16, ge=1)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(0.025, gt=0, allow_inf_nan=False)
    min_learning_rate: float = Field(1e-4, ge=0, allow_inf_nan=False)
    decay_per_epoch: float = Field(0.9, gt=0, le=1)

    @model_validator(mode="after")
    def _options_fit_the_optimizer(self) -> SkipGramTraining:
        other = "decay_per_epoch" if self.optimizer == "sgd" else "min_learning_rate"
        if other in self.model_fields_set and getattr(self, other) != type(self).model_fields[other].default:
            raise ValueError(f"{other} is not an option of optimizer {self.optimizer}")
        if self.optimizer == "sgd" and self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}")
        return self

    def last_epoch(self) -> float:
        """Return `epochs`."""
        return float(self.epochs)

    def checkpoint_step(self, n_train: int, epoch: float) -> int:
        """Return the number of updates made by the end of `epoch` (1-based; 0.5 is half-way through the first), at least 1.

        Raises ValueError outside 0 < epoch <= epochs.
        """
        return updates_by(epoch, self.epochs, n_batches(n_train, self.batch_sentences))

    def learning_rate_at(self, n_train: int, step: int) -> float:
        """Return the learning rate of update `step` (1-based) with `n_train` slots per epoch.

        Raises ValueError past the last update.
        """
        per_epoch = n_batches(n_train, self.batch_sentences)
        n_steps = self.epochs * per_epoch
        if not 1 <= step <= n_steps:
            raise ValueError(f"step {step} is outside 1..{n_steps}")
        if self.optimizer == "adam":
            return self.learning_rate * self.decay_per_epoch ** ((step - 1) // per_epoch)
        return self.learning_rate - (self.learning_rate - self.min_learning_rate) * (step - 1) / n_steps

    def train(self, task: Any, training: Training) -> Trained:
        """Train fresh vectors, or the weights `training.parent`, on the edited sentences; same arguments, same bits.

        `metrics`: n_steps (updates made); train_loss (weighted mean over the pairs of the last epoch, each batch before
        its update). Raises ValueError if a step of `keep_steps` is never reached or off the CPU, InputError for
        micro-batches, GivenBack if `training.snapshots` requests a stop.
        """
        seed, numerics = training.seed, training.numerics
        deterministic(numerics)
        train_set = EditedTrainSet.of(task, training.edit)
        epoch_steps = n_batches(train_set.n_slots, self.batch_sentences)
        network = start_from(task.network(seed), training.parent)
        run = SkipGramRun(self, self.optimizer, task, train_set.weights, numerics, network)
        watch = Watch.of(training, self.epochs * epoch_steps)
        watch.begin(run)
        for epoch in range(max(1, math.ceil(run.step / max(epoch_steps, 1))), self.epochs + 1):
            batches, before = list(train_set.batches(seed, epoch, self.batch_sentences)), (epoch - 1) * epoch_steps
            rates = [self.learning_rate_at(train_set.n_slots, before + 1 + number) for number in range(len(batches))]
            key = purpose_seed(seed, "skip-gram pairs", epoch)
            run.updates(batches, rates, key, watch, with_loss=epoch == self.epochs, n_done=run.step - before)
            if not is_finite(run.network):
                break
        return run.trained(watch)


class SkipGramRun:
    """A training in progress: the network, its optimiser, and the number of updates made."""

    def __init__(
        self,
        options: PairOptions,
        optimizer: Literal["sgd", "adam"],
        task: Any,
        weights: np.ndarray,
        numerics: Numerics,
        network: nn.Module,
    ):
        import torch

        from tasks.recipes.sgns import Updates

        check_whole_batches(options, numerics)
        if numerics.device != "cpu":
            raise ValueError(f"{options.name} trains on the cpu only; device {numerics.device!r} is not supported")
        self.network = network.to(dtype=getattr(torch, numerics.dtype))
        self.sentences, self.ids, self.weights = task.corpus.sentences, task.splits["train"].ids, weights
        self.sampler = options.sampler(task.corpus.vocabulary.counts)
        self._updates = Updates(self.network, options, optimizer, task.model.l2)
        self.step, self.loss, self.weight = 0, 0.0, 0.0  # sum(w l) and sum(w) over the pairs of the updates with loss

    def updates(
        self,
        batches: Sequence[np.ndarray],
        rates: Sequence[float],
        key: int,
        watch: Watch,
        *,
        with_loss: bool,
        n_done: int = 0,
    ) -> None:
        """Make one update per batch (rows of train) at its rate, skipping the first `n_done`; pairs are drawn with `key`."""
        size = max(1, GROUP // max(map(len, batches), default=1))
        with np.errstate(all="ignore"):  # weights that overflow are a divergence, which is a valid result
            for start in range(n_done // size * size, len(batches), size):
                part, skip = slice(start, start + size), max(n_done - start, 0)
                self._group(batches[part], rates[part], key, watch, with_loss, skip)

    def _group(
        self, batches: Sequence[np.ndarray], rates: Sequence[float], key: int, watch: Watch, with_loss: bool, skip: int
    ) -> None:
        rows = np.concatenate(batches)
        rows = rows[self.weights[rows] != 0]  # a removed sentence has no pairs, so its words change no bit
        pairs, weights = self.sampler.sample(self.sentences, rows, self.ids[rows], key), self.weights[rows]
        end = 0
        for number, (batch, rate) in enumerate(zip(batches, rates, strict=True)):
            begin, end = end, end + int(np.count_nonzero(self.weights[batch]))
            if number < skip:
                continue
            found = self._updates.update(pairs.part(begin, end), weights, weights[begin:end].sum(), rate, with_loss)
            self.loss, self.weight = self.loss + found[0], self.weight + found[1]
            self.step += 1
            watch.passed(self.step, self.network)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that updates change."""
        return module_tensors(self.network) | self._updates.optimizer.tensors()

    def facts(self) -> dict[str, Any]:
        """Return the number of updates and the sums of the last epoch's losses."""
        return {"step": self.step, "loss": self.loss, "weight": self.weight}

    def restore(self, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Set the state to these tensors and facts of another run of the same training."""
        copy_into(self.tensors(), tensors)
        self.step, self.loss, self.weight = facts["step"], facts["loss"], facts["weight"]
        self._updates.optimizer.n_updates = self.step

    def trained(self, watch: Watch) -> Trained:
        """Return the result of the recipe."""
        metrics, loss = {"n_steps": float(self.step)}, self.loss / max(self.weight, 1.0)
        if not (math.isfinite(loss) and is_finite(self.network)):
            return Trained(self.network, metrics, diverged=True, observed=watch.observed)
        return Trained(self.network, {**metrics, "train_loss": loss}, observed=watch.observed)
