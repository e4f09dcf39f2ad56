"""The last layer refit with an L2 penalty, and the representer values of its training examples, in float64."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from influence.checkpoint import Checkpoint, QueryBlock
from influence.last_layer import read_queries, read_train, softmax_hessian
from tasks.errors import RefitError
from tasks.task import Task

log = logging.getLogger("refit")
# A step is accepted if the objective falls by this share of what the slope predicts; below the rounding error of the
# objective, the comparison says nothing, and the step is accepted.
SUFFICIENT, ROUNDING, SMALLEST_STEP = 1e-4, 1e-14, 2.0**-30


@dataclass(frozen=True, eq=False)
class RefitLayer:
    """The minimiser `weights` [C, D] of F(W) = (1/n) sum_i -log softmax(W a_i)[y_i] + l2 |W|^2, float64.

    `values` [n, C] are the representer values alpha_i = -(p_i - e_y) / (2 l2 n). At the minimum W = sum_i alpha_i a_i^T.
    `gradient_norm` is |grad F| at `weights`, after `n_iterations` Newton steps.
    """

    weights: Tensor
    values: Tensor
    gradient_norm: float
    n_iterations: int


def refit_layer(
    inputs: Tensor, labels: Tensor, n_classes: int, l2: float, tolerance: float, max_iterations: int
) -> RefitLayer:
    """Minimise F by Newton's method from zero until |grad F| <= `tolerance`: `inputs` [n, D] float64, `labels` int64 [n].

    F is strongly convex, so the minimiser is unique. Step lengths are halved until F falls. After `max_iterations`
    steps, the result is what has been reached.
    """
    n, width = inputs.shape
    targets = functional.one_hot(labels, n_classes).to(inputs)
    weights, iteration = inputs.new_zeros(n_classes, width), 0
    while True:
        deltas = (inputs @ weights.T).softmax(1) - targets
        gradient = deltas.T @ inputs / n + 2 * l2 * weights
        norm = float(gradient.norm())
        if norm <= tolerance or iteration == max_iterations or not np.isfinite(norm):
            return RefitLayer(weights, -deltas / (2 * l2 * n), norm, iteration)
        hessian = softmax_hessian(inputs, deltas + targets)
        hessian.diagonal().add_(2 * l2)
        step = -torch.cholesky_solve(gradient.view(-1, 1), torch.linalg.cholesky(hessian)).view_as(weights)
        weights = _stepped(inputs, labels, l2, weights, step, float((gradient * step).sum()))
        iteration += 1


def _stepped(inputs: Tensor, labels: Tensor, l2: float, weights: Tensor, step: Tensor, slope: float) -> Tensor:
    """Return weights + t step with the largest t of 1, 1/2, 1/4 ... at which F falls enough."""

    def objective(at: Tensor) -> float:
        return float(functional.cross_entropy(inputs @ at.T, labels) + l2 * at.square().sum())

    start, length = objective(weights), 1.0
    slack = ROUNDING * max(1.0, abs(start))
    while objective(weights + length * step) > start + SUFFICIENT * length * slope + slack and length > SMALLEST_STEP:
        length /= 2
    return weights + length * step


@dataclass(frozen=True, eq=False)
class Represented:
    """One scoring model: inputs [n, D] and values [n, C] of the train rows, inputs [q, D] and labels [q] of the queries."""

    weight: float
    train_inputs: Tensor
    values: Tensor
    query_inputs: Tensor
    query_labels: Tensor

    def scores(self, rows: np.ndarray) -> Tensor:
        """Return alpha_i[y_q] (a_i . a_q) of train rows: float64 [q, len(rows)]."""
        at = torch.as_tensor(rows, device=self.values.device)
        return (self.query_inputs @ self.train_inputs[at].T) * self.values[at][:, self.query_labels].T


class Representers:
    """The representer scores of all queries at all scoring models; `diagnostics` has plain JSON values for each model."""

    def __init__(self, models: Sequence[Represented], diagnostics: dict[str, Any]):
        self.models, self.diagnostics = models, diagnostics

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Return the weighted mean over models of the scores of train rows: float32 [n_queries, len(rows)]."""
        total = torch.stack([model.weight * model.scores(rows) for model in self.models]).sum(0)
        return total.cpu().numpy().astype(np.float32)


def represent(
    name: str,
    task: Task,
    checkpoints: Sequence[tuple[Checkpoint, float]],
    queries: QueryBlock,
    device: torch.device | str,
    *,
    bias: bool,
    l2: float,
    tolerance: float,
    max_iterations: int,
) -> Representers:
    """Refit the last layer at each (checkpoint, weight) and return the scores of the queries.

    Raises RefitError if the inputs of a last layer are not finite.
    """
    fresh, models, found = task.network(0), [], []
    for checkpoint, weight in checkpoints:
        train = read_train(task, fresh, checkpoint, bias, device)
        asked = read_queries(task, fresh, checkpoint, bias, device, queries)
        if not bool(train.inputs.isfinite().all() and asked.inputs.isfinite().all()):
            raise RefitError(f"{name}: the inputs of the last layer of {checkpoint.spec_id} are not finite")
        n_classes = train.logits.shape[1]
        refit = refit_layer(train.inputs, train.labels, n_classes, l2, tolerance, max_iterations)
        models.append(Represented(weight, train.inputs, refit.values, asked.inputs, asked.labels))
        agrees = (train.inputs @ refit.weights.T).argmax(1) == train.logits.argmax(1)
        found.append(
            {
                "spec_id": checkpoint.spec_id,
                "step": checkpoint.step,
                "l2": l2,
                "n_parameters": refit.weights.numel(),
                "gradient_norm": refit.gradient_norm,
                "iterations": refit.n_iterations,
                "converged": refit.gradient_norm <= tolerance,
                "agreement_train": float(agrees.double().mean()),
            }
        )
        _log(name, found[-1], tolerance)
    return Representers(models, {"query_ids": [int(i) for i in queries.ids], "models": found})


def _log(name: str, model: dict[str, Any], tolerance: float) -> None:
    log.info(
        "%s: last layer refit in %d Newton steps, gradient norm %.2g; it gives %.1f%% of the training examples the network's class",
        *(name, model["iterations"], model["gradient_norm"], 100 * model["agreement_train"]),
    )
    if not model["converged"]:
        log.warning(
            "%s: the refit of the last layer did not converge: its gradient norm is %.2g after %d steps (tolerance %.2g); "
            "raise max_iterations or l2",
            *(name, model["gradient_norm"], model["iterations"], tolerance),
        )
