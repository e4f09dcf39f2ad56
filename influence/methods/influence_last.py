"""Influence functions on the last layer, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence.base import Method
from influence.checkpoint import Checkpoint, QueryBlock
from influence.methods.requirements import require_last_layer, require_task
from influence.solvers import Exact
from tasks.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from influence.gradients import GradientShard
    from influence.inverse_hessian import QuerySolutions


class InfluenceLast(Method):
    """The influence function on the weights of the last layer, with its Hessian in closed form.

    score(q, i) = (1/n) grad l_q^T (H + damping I)^-1 grad l_i with grad l_i = (p_i - e_y) kron a_i and H = (1/n) sum_i
    (diag(p_i) - p_i p_i^T) kron (a_i a_i^T) + the Hessian of the penalty; a = the input of the last layer followed by
    1, p = softmax probabilities. It equals influence_function with `solver: exact` on the same parameters, but needs
    one forward pass over the train set per scoring model. The score is in the unit of the loss: the query loss rises by
    the score when i is removed. It is the mean over scoring models, at the last checkpoint of each. `solver`: the
    options of `exact` (default damping 0.01); `bias: false` keeps the biases of the layer fixed. Koh and Liang 2017,
    equation 2; Inf-Last in Yeh et al. 2022, section 5.
    """

    name: ClassVar[str] = "influence_last"
    needs: ClassVar[frozenset[str]] = frozenset({"curvature"})
    uses_checkpoints: ClassVar[bool] = False

    solver: Exact = Exact(damping=0.01)
    bias: bool = True

    def identity(self) -> dict[str, Any]:
        """Return name, version and options; the version of the solver too."""
        return {**super().identity(), "solver": self.solver.identity()}

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Raise InputError if the model has no last layer, or the task no losses per example."""
        require_last_layer(task, base_dir, where, f"{self.name} needs a last layer onto the logits")
        require_task(task, Task.losses, where, f"{self.name} needs the train loss of every example")

    def explained_splits(self, task: Task) -> frozenset[str] | None:
        """Return the splits whose rows have a train loss."""
        return task.splits_with_losses

    def check_network(self, task: Task, network: nn.Module, queries: QueryBlock | None, where: str) -> None:
        """Refuse a train loss other than -log p(label), and a last layer with more parameters than the solver allows."""
        from influence.network_checks import check_last_layer

        check_last_layer(self.name, task, network, self.bias, self.solver.max_parameters, where, "solver")

    def solve(
        self,
        task: Task,
        checkpoints: Sequence[tuple[Checkpoint, float]],
        queries: QueryBlock,
        device: torch.device | str = "cpu",
    ) -> QuerySolutions:
        """Return the solutions of all queries at each (checkpoint, weight). Raises InputError, RefitError."""
        from influence.last_layer import solve_last_layer

        return solve_last_layer(self.name, self.solver, self.bias, task, checkpoints, queries, device)

    def diagnostics(self, solved: QuerySolutions) -> dict[str, Any]:
        """Return the solver's diagnostics for each model and query."""
        return solved.diagnostics

    def score(self, queries: GradientShard, train: GradientShard, prepared: Any) -> np.ndarray:
        """Return scores float32 [n_queries, n_train]."""
        solutions: QuerySolutions = prepared
        return solutions.scores(train.rows)
