"""The exact solver forms and solves the Hessian in float64, and knows the flat directions of a softmax."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from convex_tasks import Logistic, Ridge, curvature_of, queries_of
from torch import nn

from influence.checkpoint import Checkpoint
from influence.flat_directions import solved_on_range
from influence.inverse_hessian import in_float64
from influence.methods.cross_loss_influence import CrossLossInfluence
from influence.methods.influence_function import InfluenceFunction
from influence.scoring import Scorer
from influence.solvers import ConjugateGradients, Exact, LiSSA
from tasks.errors import InputError


class Softmax(Logistic):
    """Logistic regression as users have it: float32 weights and inputs, and no penalty on the flat directions."""

    penalty_weight = 0.0

    def network(self, seed):
        return super().network(seed).float()

    def batch(self, split, rows, *, blank=None, device="cpu"):
        found = super().batch(split, rows, blank=blank, device=device)
        return {name: entry.float() if entry.is_floating_point() else entry for name, entry in found.items()}


def trained(task):
    """Float32 weights after a few steps of gradient descent, kept as float64 numbers: [3, 4]."""
    x, y = torch.tensor(task.splits["train"].features), torch.tensor(task.splits["train"].labels)
    weights = torch.zeros(3, x.shape[1], dtype=torch.float64, requires_grad=True)
    for _ in range(30):
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(x @ weights.T, y), weights)
        weights = (weights - 0.5 * slope).detach().requires_grad_(True)
    return weights.detach().float().double().numpy()


def reference(task, weights, damping=0.0, rcond=1e-10):
    """(1/n) grad l_q^T (H + damping I)^-1 grad l_i, or with the pseudo-inverse, in numpy float64: [n_queries, n_train].

    Inputs are the float32 numbers that the task hands out.
    """

    def gradients(split):
        x = task.splits[split].features.astype(np.float32).astype(np.float64)
        logits = x @ weights.T
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return x, p, np.einsum("nc,nd->ncd", p - np.eye(3)[task.splits[split].labels], x).reshape(len(x), -1)

    x, p, train = gradients("train")
    bend = np.einsum("nc,cd->ncd", p, np.eye(3)) - np.einsum("nc,nd->ncd", p, p)
    hessian = np.einsum("ncd,ni,nj->cidj", bend, x, x).reshape(12, 12) / len(x)
    inverse = np.linalg.inv(hessian + damping * np.eye(12)) if damping else np.linalg.pinv(hessian, rcond, True)
    return gradients("test")[2] @ inverse @ train.T / len(x)


def scores(task, method, weights):
    # a checkpoint holds float32 arrays, as those of a training do
    state = {"weight": np.asarray(weights, np.float32)}
    scorer = Scorer(task, [Checkpoint("m0", 1, 1.0, 1.0, state)], queries_of(task), {"m": method}, {"m": None})
    return scorer.score_range(0, len(task.splits["train"]))["m"], scorer.diagnostics["m"]["models"][0]


@pytest.mark.parametrize("method", [InfluenceFunction, CrossLossInfluence])
def test_a_softmax_without_damping_is_solved_on_the_range_of_its_hessian(method):
    """A constant added to all logits changes nothing: one zero eigenvalue per input, four here."""
    task = Softmax()
    weights = trained(task)
    found, told = scores(task, method(solver=Exact()), weights)
    expected = reference(task, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert told["zero_eigenvalues"] == 4
    assert max(told["residual"]) < 1e-10


def test_a_small_damping_gives_the_float64_scores_of_a_float32_network():
    """Zero eigenvalues of a float32 Hessian are 1e-9 to 1e-8 large: beside a damping of 1e-9 they decide the scores."""
    task = Softmax()
    weights = trained(task)
    found, told = scores(task, InfluenceFunction(solver=Exact(damping=1e-9)), weights)
    expected = reference(task, weights, 1e-9)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert told["zero_eigenvalues"] == 0


def test_the_pseudo_inverse_is_the_limit_of_vanishing_damping():
    task = Softmax()
    weights = trained(task)
    found, _ = scores(task, InfluenceFunction(solver=Exact()), weights)
    near, _ = scores(task, InfluenceFunction(solver=Exact(damping=1e-8)), weights)
    np.testing.assert_allclose(found, near, rtol=1e-4, atol=1e-5 * np.abs(found).max())


@pytest.mark.parametrize("indefinite", ["refuse", "absolute"])
def test_a_query_that_moves_a_flat_direction_is_refused_without_damping_and_solved_with_it(indefinite):
    """No train example has a value in input 2, so the loss is flat there; the queries have."""
    task = Ridge()
    task.penalty_weight = 0.0
    task.splits["train"].features[:, 2] = 0.0
    curvature = curvature_of(task)
    gradients = torch.tensor(task.splits["test"].features[:3].copy())
    gradients[1, 2] = 0.0
    with pytest.raises(InputError, match=r"0 has no solution: 1 eigenvalues .* of 2 of 3 queries .* above 0 is needed"):
        Exact(indefinite=indefinite).solve(curvature, gradients)
    assert torch.isfinite(Exact(damping=1e-3, indefinite=indefinite).solve(curvature, gradients).x).all()
    solution = Exact(indefinite=indefinite).solve(curvature, gradients[1:2])
    assert float(solution.x[0, 2].abs()) < 1e-12
    assert solution.diagnostics["zero_eigenvalues"] == 1


def test_negative_curvature_beyond_rounding_is_no_zero():
    blocks, right = torch.diag(torch.tensor([1.0, 0.5, -1e-12])).double()[None], torch.ones(1, 3, 1).double()
    with pytest.raises(
        InputError, match=r"smallest eigenvalue of the Hessian is -1e-12; a damping above 1e-12 is needed"
    ):
        solved_on_range(blocks, right, absolute=False)
    rounding = torch.diag(torch.tensor([1.0, 0.5, -3e-16])).double()[None]
    solved = solved_on_range(rounding, right, absolute=False)
    assert solved.n_flat == 1
    assert solved.x.tolist() == [[1.0, 2.0, 0.0]]
    assert solved.outside.tolist() == [1.0]


def test_the_gradient_of_a_nearly_certain_query_is_not_refused_for_its_rounding():
    """p - 1 of a probability near 1 keeps no relative precision; beside other gradients its rounding is nothing."""
    task = Ridge()
    task.penalty_weight = 0.0
    task.splits["train"].features[:, 2] = 0.0
    curvature = curvature_of(task)
    gradients = torch.ones(2, 5).double()
    gradients[:, 2] = 0.0
    gradients[1] *= 1e-13
    gradients[1, 2] = 1e-16
    assert torch.isfinite(Exact().solve(curvature, gradients).x).all()
    with pytest.raises(InputError, match="has no solution"):
        Exact().solve(curvature, gradients[1:])


def test_only_the_exact_solver_has_another_identity():
    """The numbers of the others are what they were, and so are the ids of their scores."""
    for solver in (ConjugateGradients(), LiSSA()):
        for method in (InfluenceFunction, CrossLossInfluence):
            assert method(solver=solver).identity()["solver"] == solver.model_dump(
                mode="json", exclude={"check_residual"}
            )
    exact = InfluenceFunction(solver=Exact(damping=0.1)).identity()["solver"]
    assert exact == {**Exact(damping=0.1).model_dump(mode="json"), "version": 2}


class Doubled(Logistic):
    """The numbers of Softmax, held as float64 from the start."""

    penalty_weight = 0.0

    def batch(self, split, rows, *, blank=None, device="cpu"):
        found = super().batch(split, rows, blank=blank, device=device)
        return {name: entry.float().double() if entry.is_floating_point() else entry for name, entry in found.items()}


class FromAMethod:
    """The task's query loss takes its batch itself, as losses of a whole model do."""

    def query_losses(self, network, split, rows, labels):
        logits = self.logits(network, self.batch(split, rows))
        return nn.functional.cross_entropy(logits, torch.as_tensor(labels), reduction="none")


class FromAProperty(FromAMethod):
    """The train loss takes the mean of all inputs from a property."""

    @property
    def mean_input(self):
        return self.batch("train", np.arange(len(self.splits["train"])))["x"].mean(0)

    def losses(self, network, batch):
        return super().losses(network, batch) + 0.1 * network(self.mean_input).square().sum()


class FromACachedProperty(FromAMethod):
    """The query loss takes the mean of all inputs from a property that keeps it."""

    @cached_property
    def mean_input(self):
        return self.batch("train", np.arange(len(self.splits["train"])))["x"].mean(0)

    def query_losses(self, network, split, rows, labels):
        return super().query_losses(network, split, rows, labels) + 0.1 * network(self.mean_input).square().sum()


class FromItsPenalty(FromAMethod):
    """The penalty is taken on the query rows."""

    def penalty(self, network):
        return 0.1 * network(self.batch("test", np.arange(3))["x"]).square().mean()


class FromABaseClass(FromAMethod):
    """The query loss is that of the base class, reached by super() without arguments, and more."""

    def query_losses(self, network, split, rows, labels):
        more = network(self.batch(split, rows)["x"]).square().sum(1)
        return super().query_losses(network, split, rows, labels) + 0.1 * more


@pytest.mark.parametrize("kind", [FromAMethod, FromAProperty, FromACachedProperty, FromItsPenalty, FromABaseClass])
def test_the_methods_of_a_task_get_float64_batches_too(kind):
    """Scores of a float32 task are those of the same numbers in a task that is float64 throughout."""
    single, double = (type(kind.__name__, (kind, base), {})() for base in (Softmax, Doubled))
    weights = trained(single)
    method = CrossLossInfluence(solver=Exact(damping=1e-6))
    np.testing.assert_array_equal(scores(single, method, weights)[0], scores(double, method, weights)[0])


def test_the_task_itself_stays_in_float32():
    task = type("Task", (FromACachedProperty, Softmax), {})()
    scores(task, CrossLossInfluence(solver=Exact(damping=1e-6)), trained(task))
    assert "mean_input" not in vars(task)
    assert task.mean_input.dtype == task.batch("train", np.arange(2))["x"].dtype == torch.float32
    assert task.query_losses(task.network(0), "test", np.arange(2), np.zeros(2, np.int64)).dtype == torch.float32


@dataclass(frozen=True, slots=True)
class Slotted:
    """A task without a dictionary of attributes, which cannot be assigned to."""

    values: Any

    def batch(self, split, rows, *, blank=None, device="cpu"):
        return {"x": torch.tensor(self.values[rows]), "labels": torch.tensor(rows)}

    def total(self, rows):
        return self.batch("train", rows)["x"].sum()


def test_any_kind_of_class_may_be_a_task():
    task = Slotted(np.arange(4, dtype=np.float32))
    found = in_float64(task)
    assert isinstance(found, Slotted)
    assert found.total(np.arange(3)).dtype == torch.float64
    assert found.batch("train", np.arange(3), device="cpu")["labels"].dtype == torch.int64
    assert task.total(np.arange(3)).dtype == torch.float32


def test_a_batch_function_of_the_instance_is_wrapped():
    task = type("Task", (FromAMethod, Softmax), {})()
    task.batch = lambda split, rows, **options: {"x": torch.ones(len(rows), 4), "labels": torch.zeros(len(rows)).long()}
    losses = in_float64(task).query_losses(task.network(0).double(), "test", np.arange(2), np.zeros(2, np.int64))
    assert losses.dtype == torch.float64
