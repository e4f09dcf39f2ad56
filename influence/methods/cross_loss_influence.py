"""Influence on another loss than the one trained on."""

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
    """What removing an example does to any differentiable loss of the model, whatever loss it was trained on.

    score(q, i) = (1/n) grad L_q^T (H + damping I)^-1 grad l_i, H and l_i of the train loss, L_q the task's
    `query_losses`, else -log p(label); in the unit of L_q, which rises by the score when i is removed, to first order.
    Silva et al. 2022, equation 1 under theorem 1 (equation 5), for a weight of -1/n. Options are those of
    influence_function; where a classifier is trained on -log p, both methods are the same.
    """

    name: ClassVar[str] = "cross_loss_influence"

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Raises InputError when the task has no losses per example, or neither query losses nor logits."""
        super().check(task, base_dir, where)
        if not overrides(task, Task.query_losses) and not overrides(task, Task.logits):
            raise InputError(where, f"{self.name} needs query losses or logits; {type(task).__name__} has neither")

    def explained_splits(self, task: Task) -> frozenset[str] | None:
        """Those whose rows have a query loss."""
        return task.splits_with_query_losses

    def _check_queries(self, task: Task, where: str) -> None:
        """Any differentiable loss will do."""

    def query_losses(self, task: Task, network: nn.Module, split: str, rows: np.ndarray, labels: np.ndarray) -> Tensor:
        """The task's query losses, else -log p(label) of its logits: [n]."""
        import torch

        if overrides(task, Task.query_losses):
            return task.query_losses(network, split, rows, labels)
        device = next(network.parameters()).device
        logits = task.logits(network, task.batch(split, rows, device=device))
        targets = torch.as_tensor(labels, device=device)
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
