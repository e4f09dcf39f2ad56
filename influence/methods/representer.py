"""Representer points: the last layer refit with an L2 penalty, and its logits split over the training examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from influence.base import Method
from influence.checkpoint import Checkpoint, QueryBlock
from influence.methods.requirements import require_last_layer, require_task
from tasks.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from influence.gradients import GradientShard
    from influence.representer import Representers


class Representer(Method):
    """The part of a query's logit that a training example contributes, after a refit of the last layer.

    The weights W of the last layer are refit on its inputs a (followed by 1 with `bias`) until they minimise (1/n)
    sum_i -log softmax(W a_i)[y_i] + l2 |W|^2. Then score(q, i) = alpha_i[y_q] (a_i . a_q), with alpha_i = -(p_i - e_y) /
    (2 l2 n), p_i = the probabilities under the refit W, and y_q = the label of the query loss. The scores of a query sum
    over the train set to its logit of y_q under the refit layer; the unit is that of logits, and a positive score helps.
    It is the mean over scoring models, at the last checkpoint of each. `tolerance`: the largest norm of the gradient at
    which the refit counts as converged. Yeh et al. 2018, theorem 3.1; Yeh et al. 2022, equation 1.
    """

    name: ClassVar[str] = "representer"
    needs: ClassVar[frozenset[str]] = frozenset({"curvature"})
    uses_checkpoints: ClassVar[bool] = False

    l2: float = Field(0.003, gt=0)
    bias: bool = True
    tolerance: float = Field(1e-10, gt=0)
    max_iterations: int = Field(100, ge=1)
    max_parameters: int = Field(5000, ge=1)

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Raise InputError if the model has no last layer, or the task no losses per example."""
        require_last_layer(task, base_dir, where, f"{self.name} needs a last layer onto the logits")
        require_task(task, Task.losses, where, f"{self.name} needs the train loss of every example")

    def check_network(self, task: Task, network: nn.Module, queries: QueryBlock | None, where: str) -> None:
        """Refuse a train loss other than -log p(label), and a last layer with more than `max_parameters`."""
        from influence.network_checks import check_last_layer

        check_last_layer(self.name, task, network, self.bias, self.max_parameters, where)

    def solve(
        self,
        task: Task,
        checkpoints: Sequence[tuple[Checkpoint, float]],
        queries: QueryBlock,
        device: torch.device | str = "cpu",
    ) -> Representers:
        """Refit the last layer at each (checkpoint, weight) and return the scores. Raises InputError, RefitError."""
        from influence.representer import represent

        options = self.model_dump(include={"bias", "l2", "tolerance", "max_iterations"})
        return represent(self.name, task, checkpoints, queries, device, **options)

    def diagnostics(self, solved: Representers) -> dict[str, Any]:
        """Return how the refit of each scoring model ended."""
        return solved.diagnostics

    def score(self, queries: GradientShard, train: GradientShard, prepared: Any) -> np.ndarray:
        """Return scores float32 [n_queries, n_train]."""
        representers: Representers = prepared
        return representers.scores(train.rows)
