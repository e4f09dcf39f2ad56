"""Adam, AdamW or SGD over shuffled batches of weighted examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field, model_validator

from tasks.base import Component, KeepCheckpoint, Numerics, Observer, Task, Trained
from tasks.data.edits import Edit
from tasks.recipes.optimizers import OptimizerName, make_optimizer
from tasks.recipes.schedules import Schedule, rate_factor, updates_by
from tasks.seeds import seed_global
from tasks.training import (
    EditedTrainSet,
    Watch,
    deterministic,
    is_finite,
    n_batches,
    start_from,
    weighted_backward,
)

if TYPE_CHECKING:
    from torch import nn

ADAM_BETAS, ADAM_EPS = (0.9, 0.999), 1e-8


class Finetune(Component):
    """Train for `epochs` epochs; batch loss = sum(w l) / max(sum w, 1).

    `warmup_frac`: share of all updates over which the learning rate rises. `momentum` is for sgd, `betas` and `eps` for
    adam and adamw. `weight_decay` (decoupled for adamw, L2 otherwise) spares biases and normalisation weights.
    `max_grad_norm`: clip the gradient's norm.
    """

    name: ClassVar[str] = "finetune"
    version: ClassVar[int] = 1

    epochs: int = Field(5, ge=1, le=100_000)
    batch_size: int = Field(64, ge=1)
    optimizer: OptimizerName = "adam"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    betas: tuple[float, float] = ADAM_BETAS
    eps: float = Field(ADAM_EPS, gt=0, allow_inf_nan=False)
    warmup_frac: float = Field(0.0, ge=0, le=1)
    schedule: Schedule = "constant"
    max_grad_norm: float | None = Field(None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _options_fit_the_optimizer(self) -> Finetune:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} must be at least 0 and below 1")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum {self.momentum} needs optimizer sgd, not {self.optimizer}")
        if self.optimizer == "sgd" and (self.betas, self.eps) != (ADAM_BETAS, ADAM_EPS):
            raise ValueError("betas and eps need optimizer adam or adamw, not sgd")
        return self

    def checkpoint_step(self, n_train: int, epoch: float) -> int:
        """The number of updates made by the end of `epoch` (1-based; 0.5 is half-way through the first), at least 1.

        Raises ValueError outside 0 < epoch <= epochs.
        """
        return updates_by(epoch, self.epochs, n_batches(n_train, self.batch_size))

    def learning_rate_at(self, n_train: int, step: int) -> float:
        """The learning rate of update `step` (1-based) with `n_train` slots per epoch.

        Raises ValueError past the last update.
        """
        n_steps = self.epochs * n_batches(n_train, self.batch_size)
        return self.learning_rate * rate_factor(self.schedule, self.warmup_frac, n_steps, step)

    def train(
        self,
        task: Task,
        *,
        edit: Edit,
        seed: int,
        numerics: Numerics,
        keep_steps: Sequence[int] = (),
        keep: KeepCheckpoint | None = None,
        observers: Sequence[Observer] = (),
        parent: Mapping[str, np.ndarray] | None = None,
    ) -> Trained:
        """Train a fresh network, or one with the weights `parent`, on the edited train set; same arguments, same bits.

        `metrics`: n_steps (updates made); train_loss (weighted mean over the last epoch, each batch before its update).
        Raises ValueError if a step of `keep_steps` is never reached.
        """
        deterministic(numerics)
        run = _Run(self, task, edit, seed, numerics, parent)
        watch = Watch.of(keep_steps, keep, observers, self.epochs * n_batches(run.train_set.n_slots, self.batch_size))
        watch.passed(0, run.network)
        train_loss = 0.0
        for epoch in range(1, self.epochs + 1):
            train_loss = run.epoch(epoch, watch)
            if not math.isfinite(train_loss):
                return Trained(run.network, {"n_steps": float(run.step)}, diverged=True, observed=watch.observed)
        metrics = {"n_steps": float(run.step), "train_loss": train_loss}
        return Trained(run.network, metrics, diverged=not is_finite(run.network), observed=watch.observed)


class _Run:
    """One training in progress: network, optimiser and the number of updates made."""

    def __init__(
        self,
        recipe: Finetune,
        task: Task,
        edit: Edit,
        seed: int,
        numerics: Numerics,
        parent: Mapping[str, np.ndarray] | None,
    ):
        import torch

        self.recipe, self.task, self.seed, self.numerics, self.step = recipe, task, seed, numerics, 0
        self.train_set = EditedTrainSet.of(task, edit)
        network = start_from(task.network(seed), parent)
        self.network: nn.Module = network.to(device=numerics.device, dtype=getattr(torch, numerics.dtype))
        self.optimizer = make_optimizer(
            self.network,
            recipe.optimizer,
            learning_rate=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            betas=recipe.betas,
            eps=recipe.eps,
        )

    def epoch(self, epoch: int, watch: Watch) -> float:
        """Train one epoch and return its weighted mean loss; not finite as soon as one batch's is not."""
        total, weight = 0.0, 0.0
        for rows in self.train_set.batches(self.seed, epoch, self.recipe.batch_size):
            weights = self.train_set.weights[rows]
            loss = self.gradient(rows, weights)
            if not math.isfinite(loss):
                return math.nan
            self.update()
            watch.passed(self.step, self.network)
            total, weight = total + loss, weight + float(weights.sum())
        return total / max(weight, 1.0)

    def gradient(self, rows: np.ndarray, weights: np.ndarray) -> float:
        """Gradient of the batch loss under the dropout masks of this step; returns sum(w l)."""
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        seed_global(self.seed, "dropout", self.step + 1)
        return weighted_backward(self.task, self.network, rows, weights, self.numerics)

    def update(self) -> None:
        """One optimiser step at the scheduled rate."""
        import torch

        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.train_set.n_slots, self.step)
        if self.recipe.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.max_grad_norm)
        self.optimizer.step()
