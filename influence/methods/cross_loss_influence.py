"""Influence on a loss other than the one trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from influence.methods.influence_function import InfluenceFunction
from tasks.errors import InputError
from tasks.hooks import overrides
from tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn


class CrossLossInfluence(InfluenceFunction):
    """The effect of removing an example on any differentiable loss of the model, whatever loss it was trained on.

    score(q, i) = (1/n) grad L_q^T (H + damping I)^-1 grad l_i, where H and l_i are of the train loss and L_q is the
    task's `query_losses`, else -log p(label). The score is in the unit of L_q, which to first order rises by the score
    when i is removed. Equation 1 of Silva et al. 2022, for a weight of -1/n and, by their theorem 1 (equation 5),
    for a query loss that differs from the train loss. Options are those of influence_function; for a classifier trained on -log p, both methods are the same.
    """

    name: ClassVar[str] = "cross_loss_influence"

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Raise InputError if the task has no losses per example, or neither query losses nor logits."""
        super().check(task, base_dir, where)
        if not overrides(task, Task.query_losses) and not overrides(task, Task.logits):
            raise InputError(where, f"{self.name} needs query losses or logits; {type(task).__name__} has neither")

    def explained_splits(self, task: Task) -> frozenset[str] | None:
        """Return the splits whose rows have a query loss."""
        return task.splits_with_query_losses

    def _check_queries(self, task: Task, where: str) -> None:
        """Accept any differentiable query loss."""

    def query_losses(self, task: Task, network: nn.Module, split: str, rows: np.ndarray, labels: np.ndarray) -> Tensor:
        """Return the task's query losses, else -log p(label) of its logits: [n]."""
        import torch

        if overrides(task, Task.query_losses):
            return task.query_losses(network, split, rows, labels)
        device = next(network.parameters()).device
        logits = task.logits(network, task.batch(split, rows, device=device))
        targets = torch.as_tensor(labels, device=device)
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
