"""Shared by influence tuning and embedding tuning: training on the label loss alternates with rounds on a loss over influences."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from influence.recipes.tuples import Accessible, Tuples
from tasks.base import Batch
from tasks.errors import InputError
from tasks.hooks import overrides
from tasks.model import Model
from tasks.recipe import Training
from tasks.recipes.finetune import Finetune, FinetuneRun
from tasks.task import Task
from tasks.training import Watch

if TYPE_CHECKING:
    from torch import Tensor, nn

Cosines = Callable[[Batch, int], "Tensor"]  # (groups in one batch, their number) -> [n_groups, size - 1]
AFTER_ROUND = "round"
PROBES_AT_ONCE = {"cpu": 2, "cuda": 32}  # per forward and backward pass: what fits a CPU's cache, what fills a GPU


class TuningRounds(Finetune):
    """Fine-tuning, and after every `interval` updates a round of `round_epochs` passes over fresh probes.

    A round lowers J = (mean influence of the same-confound group - mean of the other group)^2 of `probes` probes, with
    `group_size` examples of the probe's label in each group, in evaluation mode (no dropout). An update uses
    `round_batch_size` probes (in micro-batches of whole groups); the round has its own optimiser at the constant
    `round_learning_rate`, whose moments start at zero. No round follows within interval / 2 updates of the end.
    `access_rate` is the share of the train set whose confounds the recipe may use, drawn by a stream of its own.
    Options that follow the published code: `minority_examples` 5 (rows of each minority cell that are always
    accessible), `eval_after_round` (the label updates after a round are without dropout too), `reset_moments` (a round
    sets the moments of the label optimiser to zero). The published code also draws its probes once per round and
    carries left-over gradients into the next round; neither the paper nor this recipe does. Han and Tsvetkov 2021,
    section 4, section 6.3 and appendix A.
    """

    name: ClassVar[str] = ""

    interval: int = Field(50, ge=1)
    round_epochs: int = Field(5, ge=1)
    round_batch_size: int = Field(64, ge=1)
    round_learning_rate: float = Field(3e-5, gt=0, allow_inf_nan=False)
    probes: int = Field(75, ge=1)
    group_size: int = Field(5, ge=1)
    access_rate: float = Field(1.0, gt=0, le=1)
    minority_examples: int = Field(0, ge=0)
    eval_after_round: bool = False
    reset_moments: bool = False

    def check_task(self, task: Task, where: str) -> None:
        """Raise InputError if the train set's confounds are unknown, or do not vary within any label."""
        if not overrides(task.model, Model.last_module):
            raise InputError(where, f"{self.name!r} needs a model that names the layer onto its logits")
        train = task.splits["train"]
        if train.confounds is None:
            problem = "needs a task with a confound for every training example, such as textlen or msgs"
            raise InputError(where, f"{self.name!r} {problem}")
        cells = np.unique(np.stack([train.labels, train.confounds]), axis=1)
        if cells.shape[1] == len(np.unique(train.labels)):
            raise InputError(where, f"{self.name!r} needs a label with two confounds; every label has one only")

    def is_round(self, step: int, n_steps: int) -> bool:
        """Return whether a round follows update `step` (1-based) of `n_steps`."""
        return step % self.interval == 0 and n_steps - step > self.interval / 2

    def start(self, task: Task, training: Training) -> RoundsRun:
        """Return the training at its start."""
        return RoundsRun(self, task, training)

    def cosines_of(self, task: Task, network: nn.Module) -> Cosines:
        """Return the function that computes the influences that rounds equalise."""
        raise NotImplementedError


class RoundsRun(FinetuneRun):
    """A fine-tuning with rounds in between.

    `metrics`: n_rounds (those that found probes), n_probes (of the last epoch of the last round) and influence_loss
    (their mean, before each update).
    """

    recipe: TuningRounds

    def __init__(self, recipe: TuningRounds, task: Task, training: Training):
        super().__init__(recipe, task, training)
        recipe.check_task(task, "task.recipe")
        kept = self.train_set.weights > 0
        self.accessible = Accessible.draw(
            task.splits["train"], kept, recipe.access_rate, recipe.minority_examples, self.seed
        )
        self.cosines = recipe.cosines_of(task, self.network)
        self.metrics["n_rounds"] = 0.0

    def after_update(self, watch: Watch) -> None:
        """Make a round if one is due; the observers are called before and after it."""
        if not self.recipe.is_round(self.step, self.n_steps):
            return watch.passed(self.step, self.network)
        watch.observe(self.step, self.network)
        self.round()
        return watch.passed(self.step, self.network, AFTER_ROUND)

    def round(self) -> None:
        """Make `round_epochs` passes, each over newly drawn probes."""
        self.network.eval()
        optimizer = self.make_optimizer(self.network, self.recipe.round_learning_rate)
        for epoch in range(1, self.recipe.round_epochs + 1):
            tuples = self.accessible.tuples(self.recipe.probes, self.recipe.group_size, self.seed, self.step, epoch)
            total = 0.0
            for start in range(0, len(tuples), self.recipe.round_batch_size):
                part = slice(start, start + self.recipe.round_batch_size)
                optimizer.zero_grad(set_to_none=True)
                total += self.influence_gradient(Tuples(tuples.rows[part], tuples.weights[part]))
                self.clip_gradient()
                optimizer.step()
            self.metrics |= {"n_probes": float(len(tuples)), "influence_loss": total / max(len(tuples), 1)}
        self.metrics["n_rounds"] += self.metrics["n_probes"] > 0
        if self.recipe.reset_moments:
            self.optimizer.state.clear()
        self.with_dropout = not self.recipe.eval_after_round

    def influence_gradient(self, tuples: Tuples) -> float:
        """Add the gradient of the mean influence loss of these tuples to the parameters and return the sum of the losses."""
        import torch

        from influence.influence_loss import influence_loss

        total = 0.0
        at_once = self.probes_at_once()
        for start in range(0, len(tuples), at_once):
            rows, weights = (x[start : start + at_once] for x in (tuples.rows, tuples.weights))
            cosines = self.cosines(self.groups(rows), len(rows))
            losses = influence_loss(cosines, torch.as_tensor(weights, dtype=cosines.dtype, device=cosines.device))
            if losses.requires_grad:
                (losses.sum() / len(tuples)).backward()
            total += losses.sum().item()
        return total

    def probes_at_once(self) -> int:
        """Return the number of probes per pass; a micro-batch limits the examples, but a probe and its groups stay together."""
        most, micro_batch = PROBES_AT_ONCE[self.numerics.device.partition(":")[0]], self.numerics.micro_batch
        return min(most, max(1, micro_batch // (1 + 2 * self.recipe.group_size))) if micro_batch else most

    def groups(self, rows: np.ndarray) -> Batch:
        """Return the examples of some tuples [n, 1 + 2k] as one batch, one group after the other."""
        return self.task.batch("train", rows.reshape(-1), device=self.numerics.device)
