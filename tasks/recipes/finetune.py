"""Fine-tuning by Adam, AdamW, BERT's Adam or SGD over shuffled batches of weighted examples."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from tasks.base import Batch
from tasks.length_groups import check_length_groups
from tasks.recipe import Recipe, Trained, Training
from tasks.recipes.optimizers import OptimizerName, make_optimizer
from tasks.recipes.schedules import Schedule, rate_factor, updates_by
from tasks.resuming import restore_training, training_tensors
from tasks.seeds import seed_global
from tasks.task import Task
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
    from torch import Tensor, nn
    from torch.optim import Optimizer

ADAM_BETAS, ADAM_EPS, BERT_ADAM_EPS = (0.9, 0.999), 1e-8, 1e-6


def default_eps(options: dict[str, Any]) -> float:
    """Return the default eps of an optimiser.

    The identity holds the number, whether it is a default or set by the config.
    """
    return BERT_ADAM_EPS if options.get("optimizer") == "bert_adam" else ADAM_EPS


class Finetune(Recipe):
    """Train for `epochs` epochs; batch loss = sum(w l) / max(sum w, 1).

    `warmup_frac`: share of all updates over which the learning rate rises. `momentum` is for sgd, `betas` and `eps` are
    for the others; eps is by default 1e-6 for bert_adam, 1e-8 for adam and adamw. `weight_decay` (decoupled for adamw
    and bert_adam, L2 otherwise) does not apply to biases and normalisation weights. `max_grad_norm` clips the norm of
    the gradient of all parameters together; in addition, bert_adam always clips each tensor at 1.
    """

    name: ClassVar[str] = "finetune"
    version: ClassVar[int] = 1
    resumable: ClassVar[bool] = True

    epochs: int = Field(5, ge=1, le=100_000)
    batch_size: int = Field(64, ge=1)
    optimizer: OptimizerName = "adam"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    betas: tuple[float, float] = ADAM_BETAS
    eps: float = Field(default_factory=default_eps, gt=0, allow_inf_nan=False)
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
            raise ValueError("betas and eps need optimizer adam, adamw or bert_adam, not sgd")
        return self

    def last_epoch(self) -> float:
        """Return `epochs`."""
        return float(self.epochs)

    def checkpoint_step(self, n_train: int, epoch: float) -> int:
        """Return the number of updates made by the end of `epoch` (1-based; 0.5 is half-way through the first), at least 1.

        Raises ValueError outside 0 < epoch <= epochs.
        """
        return updates_by(epoch, self.epochs, n_batches(n_train, self.batch_size))

    def learning_rate_at(self, n_train: int, step: int) -> float:
        """Return the learning rate of update `step` (1-based) with `n_train` slots per epoch.

        Raises ValueError past the last update.
        """
        n_steps = self.epochs * n_batches(n_train, self.batch_size)
        return self.learning_rate * rate_factor(self.schedule, self.warmup_frac, n_steps, step)

    def train(self, task: Task, training: Training) -> Trained:
        """Train a fresh network, or one with the weights `training.parent`, on the edited train set; same arguments, same bits.

        `metrics`: n_steps (updates made); train_loss (weighted mean over the last epoch, each batch before its update).
        Raises ValueError if a step of `keep_steps` is never reached, GivenBack if `training.snapshots` requests a stop.
        """
        deterministic(training.numerics)
        run = self.start(task, training)
        watch = Watch.of(training, run.n_steps)
        watch.begin(run)
        train_loss = 0.0
        for epoch in range(run.current_epoch, self.epochs + 1):
            train_loss = run.epoch(epoch, watch)
            if not math.isfinite(train_loss):
                metrics = {"n_steps": float(run.step), **run.metrics}
                return Trained(run.network, metrics, diverged=True, observed=watch.observed)
        metrics = {"n_steps": float(run.step), "train_loss": train_loss, **run.metrics}
        return Trained(run.network, metrics, diverged=not is_finite(run.network), observed=watch.observed)

    def start(self, task: Task, training: Training) -> FinetuneRun:
        """Return the training at its start; recipes that extend fine-tuning return a subclass of FinetuneRun."""
        return FinetuneRun(self, task, training)


class FinetuneRun:
    """A training in progress: network, optimiser and the number of updates made.

    `metrics` are recorded at its end; `sums` accumulate over the batches of the current epoch.
    """

    def __init__(self, recipe: Finetune, task: Task, training: Training):
        import torch

        self.recipe, self.seed, self.numerics, self.step = recipe, training.seed, training.numerics, 0
        check_length_groups(recipe, task, self.numerics.length_group_cost)
        task = task.with_replaced(training.edit).with_length_groups(self.numerics.length_group_cost)
        self.task = task
        self.metrics: dict[str, float] = {}
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.with_dropout = True
        self.train_set = EditedTrainSet.of(task, training.edit)
        self.epoch_steps = n_batches(self.train_set.n_slots, recipe.batch_size)
        self.n_steps = recipe.epochs * self.epoch_steps
        network = start_from(task.network(self.seed), training.parent)
        self.network: nn.Module = network.to(device=self.numerics.device, dtype=getattr(torch, self.numerics.dtype))
        self.optimizer = self.make_optimizer(self.trained_modules(), recipe.learning_rate)

    def trained_modules(self) -> nn.Module:
        """Return the modules that the optimiser updates: the network, to which a recipe may add modules of its own."""
        return self.network

    def make_optimizer(self, modules: nn.Module, learning_rate: float) -> Optimizer:
        """Return the recipe's optimiser over these modules."""
        recipe = self.recipe
        return make_optimizer(
            modules,
            recipe.optimizer,
            learning_rate=learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            betas=recipe.betas,
            eps=recipe.eps,
        )

    @property
    def current_epoch(self) -> int:
        """The epoch of the last update (1-based), even if that update ended it, because work after the epoch may remain."""
        return max(1, math.ceil(self.step / max(self.epoch_steps, 1)))

    def epoch(self, epoch: int, watch: Watch) -> float:
        """Train the rest of an epoch and return its weighted mean loss; NaN as soon as the loss of a batch is not finite."""
        n_done = self.step - (epoch - 1) * self.epoch_steps
        if not n_done:
            self.sums.clear()
        for rows in islice(self.train_set.batches(self.seed, epoch, self.recipe.batch_size), n_done, None):
            weights = self.train_set.weights[rows]
            loss = self.gradient(rows, weights)
            if not math.isfinite(loss):
                return math.nan
            self.update()
            self.sums["loss"] += loss
            self.sums["weight"] += float(weights.sum())
            self.after_update(watch)
        return self.sums["loss"] / max(self.sums["weight"], 1.0)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that updates change."""
        return training_tensors(self.trained_modules(), self.optimizer)

    def facts(self) -> dict[str, Any]:
        """Return the other values on which the next update and the final metrics depend."""
        sums, metrics = dict(self.sums), dict(self.metrics)
        return {"step": self.step, "with_dropout": self.with_dropout, "sums": sums, "metrics": metrics}

    def restore(self, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Set the state to these tensors and facts of another run of the same training."""
        restore_training(tensors, self.trained_modules(), self.optimizer)
        self.step, self.with_dropout = facts["step"], facts["with_dropout"]
        self.sums, self.metrics = defaultdict(float, facts["sums"]), dict(facts["metrics"])

    def gradient(self, rows: np.ndarray, weights: np.ndarray) -> float:
        """Compute the gradient of the batch loss under the dropout masks of this step; return sum(w l)."""
        self.network.train(self.with_dropout)
        self.optimizer.zero_grad(set_to_none=True)
        seed_global(self.seed, "dropout", self.step + 1)
        return weighted_backward(self.task, self.network, rows, weights, self.numerics, self.losses)

    def losses(self, network: nn.Module, batch: Batch, rows: np.ndarray) -> Tensor:
        """Return the losses [n] of a batch, whose examples are `rows` of the train split."""
        return self.task.losses(network, batch)

    def update(self) -> None:
        """Make one optimiser step at the scheduled learning rate."""
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.train_set.n_slots, self.step)
        self.clip_gradient()
        self.optimizer.step()

    def clip_gradient(self) -> None:
        """Clip the norm of the whole gradient if the recipe has `max_grad_norm`."""
        import torch

        if self.recipe.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.trained_modules().parameters(), self.recipe.max_grad_norm)

    def after_update(self, watch: Watch) -> None:
        """Report the update to the watch; recipes with work after an update override this."""
        watch.passed(self.step, self.network)
