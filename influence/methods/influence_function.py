"""Influence functions: the inverse Hessian between two gradients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from influence.base import Method
from influence.methods.requirements import require_task
from influence.pooled_layers import pooled_layers
from influence.solvers import ConjugateGradients, Solver
from tasks.errors import InputError
from tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from influence.gradients import GradientShard
    from influence.inverse_hessian import QuerySolutions, SolveOptions


class InfluenceFunction(Method):
    """The effect of removing an example on the train loss of the query, to first order, by the inverse Hessian.

    score(q, i) = (1/n) grad l_q^T (H + damping I)^-1 grad l_i, where H is the Hessian of (1/n) sum l_i + penalty. The
    score is in the unit of the loss: the query loss of q rises by the score when i is removed. Koh and Liang 2017,
    equation 2, for a weight of -1/n. It is the mean over scoring models, at the last checkpoint of each. `parameters`:
    all (what the task chooses for these queries, else all trained ones), or a list of patterns of parameter names.
    `solver`: exact, cg (default, damping 0.01) or lissa, with options; networks are not convex, so damping must exceed
    the absolute value of the most negative eigenvalue of H. `batch_size` train rows are differentiated at once, along
    `pass_size` / rows vectors; smaller values need less memory. `dropout`: Hessian and train gradients are taken in
    training mode, as in the code published with Han et al. 2020. The masks are drawn from the solver's seed (0 if it has
    none) and the step, batch or train example, so that they are the same for every query; query gradients have none.
    `queries_at_once`: so many queries are solved together, in the order of the queries, and workers share the ranges;
    by default all are solved together, by one worker for each scoring model.
    """

    name: ClassVar[str] = "influence_function"
    needs: ClassVar[frozenset[str]] = frozenset({"curvature"})
    uses_checkpoints: ClassVar[bool] = False
    may_diverge: ClassVar[bool] = True
    selects: ClassVar[dict[str, str]] = {"parameters": "trained"}

    parameters: Literal["all"] | tuple[str, ...] = "all"
    solver: Solver = ConjugateGradients()
    batch_size: int = Field(64, ge=1)
    pass_size: int = Field(1024, ge=1)
    dropout: bool = False
    queries_at_once: int | None = Field(None, ge=1)

    @field_validator("parameters")
    @classmethod
    def _not_empty(cls, parameters: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not parameters:
            raise ValueError("an empty list chooses no parameter")
        return parameters

    def identity(self) -> dict[str, Any]:
        """Return name, version and options (`dropout` and `queries_at_once` if set); the version of the solver too if it is not 1."""
        options = super().identity()
        for name in ("dropout", "queries_at_once"):
            if not options[name]:
                del options[name]  # score ids made before there was this option stay
        return {**options, "solver": self.solver.identity()}

    def identity_on(self, task: Task) -> dict[str, Any]:
        """Return how Hessian-vector products are computed, if they are computed layer by layer (decision 50)."""
        return {"products": "by_layer"} if pooled_layers(task) else {}

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Raise InputError if the task has no losses per example, or if no measured row has one."""
        require_task(task, Task.losses, where, f"{self.name} needs the train loss of every example")
        self._check_queries(task, where)

    def explained_splits(self, task: Task) -> frozenset[str] | None:
        """Return the splits whose rows have a train loss."""
        return task.splits_with_losses

    def _check_queries(self, task: Task, where: str) -> None:
        with_loss = task.splits_with_losses
        if with_loss is not None and not with_loss & set(task.measured):
            raise InputError(
                where, f"{self.name} explains train losses, and no measured row has one; use cross_loss_influence"
            )

    def query_losses(self, task: Task, network: nn.Module, split: str, rows: np.ndarray, labels: np.ndarray) -> Tensor:
        """Return the loss of each query whose gradient is taken; here it is the train loss under `labels`, [n]."""
        import torch

        batch = task.batch(split, rows, device=next(network.parameters()).device)
        targets = torch.as_tensor(labels, dtype=batch["labels"].dtype, device=batch["labels"].device)
        return task.losses(network, {**batch, "labels": targets})

    def diagnostics(self, solved: QuerySolutions) -> dict[str, Any]:
        """Return the solver's diagnostics for each model and query."""
        return solved.diagnostics

    def solve_options(self) -> SolveOptions:
        """Return how it solves for its queries."""
        from influence.inverse_hessian import SolveOptions

        seed = getattr(self.solver, "seed", 0) if self.dropout else None
        sizes = (self.batch_size, self.pass_size)
        return SolveOptions(
            self.name, self.parameters, self.solver, *sizes, self.query_losses, seed, self.queries_at_once
        )

    def score(self, queries: GradientShard, train: GradientShard, prepared: Any) -> np.ndarray:
        """Return scores float32 [n_queries, n_train]; a row of NaN for a query whose solver diverged."""
        solutions: QuerySolutions = prepared
        return solutions.scores(train.rows)
