"""representer against a refit by SciPy, and what its scores sum to."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from small_task import SmallBert, SmallCNN, SmallTask, checkpoint, query_block

from influence.gradients import loaded
from influence.methods.representer import Representer
from influence.representer import refit_layer
from influence.scoring import Scorer


def scorer(task, method, points, queries=None):
    return Scorer(task, points, queries or query_block(task), {"m": method}, {"m": None})


def score(task, method, points, queries=None):
    return scorer(task, method, points, queries).score_range(0, len(task.splits["train"]))["m"]


def activations(task, point, split, rows, bias):
    """The inputs of the last layer of one row at a time, recorded by a hook of its own."""
    network, found = loaded(task.network(0), point), []
    last = network.get_submodule(task.model.last_module(network))
    last.register_forward_hook(lambda module, args, output: found.append(args[0][0].double().numpy()))
    for row in rows:
        task.logits(network, task.batch(split, [row]))
    return np.column_stack([np.stack(found), *([np.ones(len(rows))] if bias else [])])


def refit_by_scipy(inputs, labels, n_classes, l2):
    """The minimiser of the objective by BFGS: [n_classes, D]."""
    x, y = torch.tensor(inputs), torch.tensor(labels)

    def objective(flat):
        w = torch.tensor(flat.reshape(n_classes, -1), requires_grad=True)
        value = torch.nn.functional.cross_entropy(x @ w.T, y) + l2 * w.square().sum()
        value.backward()
        return value.item(), w.grad.numpy().ravel()

    start = np.zeros(n_classes * inputs.shape[1])
    found = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
    return found.x.reshape(n_classes, -1)


def expected_scores(task, point, queries, l2, bias=True):
    labels, n_classes = task.splits["train"].labels, 3
    ours = activations(task, point, "train", range(len(labels)), bias)
    asked = activations(task, point, queries.split, queries.rows, bias)
    logits = ours @ refit_by_scipy(ours, labels, n_classes, l2).T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    alpha = -(p - np.eye(n_classes)[labels]) / (2 * l2 * len(labels))
    return (asked @ ours.T) * alpha[:, queries.labels].T


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"), [(SmallCNN, torch.float64, 1e-6), (SmallBert, torch.float32, 1e-4)]
)
def test_scores_equal_those_of_a_refit_by_scipy(kind, dtype, tolerance, bias):
    task = SmallTask(kind(), dtype=dtype)
    point, queries = checkpoint(task), query_block(task)
    expected = expected_scores(task, point, queries, 0.01, bias)
    found = score(task, Representer(l2=0.01, bias=bias), [point])
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_the_scores_of_a_query_sum_to_its_logit_under_the_refit_layer_for_any_label():
    """The representer theorem: W = sum_i alpha_i a_i^T at the minimum. Yeh et al. 2018, theorem 3.1."""
    task = SmallTask(SmallCNN(), dtype=torch.float64)
    point, queries = checkpoint(task), query_block(task)
    ours = activations(task, point, "train", range(30), bias=True)
    weights = refit_by_scipy(ours, task.splits["train"].labels, 3, 0.003)
    logits = activations(task, point, "test", queries.rows, bias=True) @ weights.T
    for shift in range(3):
        labels = (queries.labels + shift) % 3
        sums = score(task, Representer(), [point], replace(queries, labels=labels)).astype(float).sum(1)
        np.testing.assert_allclose(sums, logits[np.arange(3), labels], rtol=1e-4, atol=1e-4)


def test_scores_are_the_mean_over_scoring_models_at_the_last_checkpoint_of_each():
    task = SmallTask(SmallCNN())
    points = [
        checkpoint(task, seed, step=step, weight=0.0, spec_id=spec)
        for seed, step, spec in ((1, 1, "x"), (2, 5, "x"), (3, 4, "y"))
    ]
    alone = [score(task, Representer(), [point]) for point in points]
    expected = (alone[1] + alone[2]) / 2
    for order in ([0, 1, 2], [2, 1, 0]):
        found = score(task, Representer(), [points[i] for i in order])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("l2", [1e-8, 1e-3, 10.0])
def test_the_refit_converges_on_separable_data_and_without_a_class(l2):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    inputs = torch.tensor(np.eye(5)[labels] * 4 + 0.1 * rng.normal(size=(60, 5)))
    refit = refit_layer(inputs, torch.tensor(labels), 4, l2, 1e-10, 200)
    assert refit.gradient_norm <= 1e-10
    assert refit.n_iterations < 100
    torch.testing.assert_close(
        refit.values.T @ inputs, refit.weights, rtol=1e-5, atol=1e-5 * float(refit.weights.abs().max())
    )


def test_a_refit_that_did_not_converge_says_so(caplog):
    task = SmallTask(SmallCNN())
    with caplog.at_level(logging.INFO, "refit"):
        stopped = scorer(task, Representer(max_iterations=1, l2=1e-4), [checkpoint(task)])
        done = scorer(task, Representer(l2=1e-4), [checkpoint(task)])
    [warning] = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "did not converge" in warning
    assert [s.diagnostics["m"]["models"][0]["converged"] for s in (stopped, done)] == [False, True]
    assert done.diagnostics["m"]["models"][0]["gradient_norm"] <= 1e-10
